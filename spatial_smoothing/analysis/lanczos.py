"""Eigenvalues and spectral densities of a symmetric matrix known by its products.

Contract of this file: a symmetric matrix H of n rows is given by a function `matvec`
that maps v, f[n], to H v, f[n]. Loops over products run on the host: for the Hessian of
a network a product takes milliseconds and more, which hides the host, and on CPUs XLA
runs the gradients of convolutions many times slower inside a compiled loop. Vectors
stay on the device, in float32 or wider.

Source: Golub & Van Loan, Matrix Computations, chapter 10; Ghorbani et al., ICML 2019.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.lookup import lookup

Matvec = Callable[[jax.Array], jax.Array]

# Accelerators round the factors of a product to bfloat16 or TensorFloat-32 unless they
# are told not to. Lanczos vectors would lose their orthogonality.
_dot = functools.partial(jnp.dot, precision="highest")


class Krylov(NamedTuple):
    """What m steps of Lanczos find.

    Attributes:
      alpha: f64[m], the diagonal of the tridiagonal matrix T.
      beta: f64[m]. The first m - 1 are the off-diagonal of T; the last is the norm of
        the vector that the next step would begin with.
      basis: f[M, n], M >= m. The first m rows, Q, are orthonormal, and Q H Q' = T.
    """

    alpha: np.ndarray
    beta: np.ndarray
    basis: jax.Array

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the eigenvalues of T, the Ritz values, which approximate those of H.

        Returns:
          Ritz values f64[m], increasing; eigenvectors of T f64[m, m], in columns; and
          error bounds f64[m]: within the bound of a Ritz value is an eigenvalue of H.

        Source: Golub & Van Loan, section 10.1: the bound is the last beta times the
        last component of the eigenvector.
        """
        off_diagonal = self.beta[:-1]
        values, vectors = np.linalg.eigh(
            np.diag(self.alpha) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
        )
        return values, vectors, np.abs(self.beta[-1] * vectors[-1])


def lanczos(
    matvec: Matvec,
    start: jax.Array,
    *,
    num_steps: int,
    stop: Callable[[Krylov], bool] = lambda krylov: False,
) -> Krylov:
    """Reduces a symmetric matrix to a tridiagonal one, with full reorthogonalisation.

    Args:
      matvec: Product of the symmetric matrix H and a vector, f[n] to f[n].
      start: f[n], the first vector, in float32 or wider; it must not be zero.
      num_steps: Largest number of products, at least 1. Memory grows with it: the basis
        has `num_steps` times n numbers.
      stop: Function of what was found so far to whether that is enough. It is called
        after every step; the default never stops.

    Returns:
      What the steps found. There are fewer than `num_steps` of them where `stop` says
      so, or where the products of `start` span a smaller space, which then is
      exhausted.

    Raises:
      ValueError: if `num_steps` is less than 1.
      FloatingPointError: if a product is not finite.

    Source: Golub & Van Loan, section 10.1.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    num_steps = min(num_steps, start.size)
    basis = jnp.zeros((num_steps, start.size), start.dtype)
    vector = start / jnp.linalg.norm(start)
    alphas: list[float] = []
    betas: list[float] = []
    for step in range(num_steps):
        basis, vector, alpha, beta = _extend(basis, step, vector, matvec(vector))
        alphas.append(float(alpha))
        betas.append(float(beta))
        _check_finite(alphas[-1] + betas[-1], step=step + 1, method="Lanczos")
        krylov = Krylov(np.array(alphas), np.array(betas), basis)
        # Once the space is exhausted nothing should be left of the next vector. A norm
        # of this size is rounding error; to go on would find eigenvalues that H does
        # not have.
        largest = np.abs(alphas + betas).max()
        rounding = 100 * np.finfo(start.dtype).eps * largest
        if betas[-1] <= rounding or stop(krylov):
            break
    return krylov


@functools.partial(jax.jit, donate_argnums=0)
def _extend(
    basis: jax.Array, step: jax.Array, vector: jax.Array, product: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Adds a vector to the basis.

    Args:
      basis: f[M, n], whose first `step` rows are orthonormal and others zero; it is
        overwritten in place.
      step: i32[], number of the row to fill.
      vector: f[n], the vector to add, of norm one and orthogonal to the basis.
      product: f[n], its product with the matrix.

    Returns:
      The basis; the next vector f[n]; alpha f[] and beta f[] of this step.
    """
    basis = basis.at[step].set(vector)
    alpha = _dot(vector, product)
    # In exact arithmetic it would suffice to subtract the last two rows. In float32 the
    # others come back, and converged eigenvalues then appear several times. So all rows
    # are subtracted, and twice: once leaves rounding errors that grow with the steps.
    for _ in range(2):
        product = product - _dot(_dot(basis, product), basis)
    beta = jnp.linalg.norm(product)
    return basis, product / jnp.where(beta > 0, beta, 1), alpha, beta


class Power(NamedTuple):
    """What a power iteration finds.

    Attributes:
      value: The estimate of the eigenvalue that is returned.
      vector: f[n], the estimate of its eigenvector.
      trace: All estimates of the eigenvalue, one for each product.
    """

    value: float
    vector: jax.Array
    trace: list[float]


def power(
    matvec: Matvec,
    start: jax.Array,
    *,
    found: Iterable[jax.Array] = (),
    tol: float = 1e-3,
    max_steps: int = 100,
) -> Power:
    """Power iteration by the rule of PyHessian, which the paper used.

    It stops when an estimate differs from the one before by less than `tol` of it, and
    returns the one before. An early stop underestimates the magnitude.

    Args:
      matvec: Product of the symmetric matrix and a vector, f[n] to f[n].
      start: f[n], the first vector, not zero.
      found: Eigenvectors f[n] that were found earlier; the iteration stays orthogonal
        to them, and so finds the next eigenvalue.
      tol: Relative change between two estimates below which it stops.
      max_steps: Largest number of products, at least 1.

    Returns:
      The eigenvalue of largest magnitude, of either sign, among those not found yet.

    Raises:
      FloatingPointError: if a product is not finite.

    Source: Yao et al., PyHessian, 2019; Park & Kim, ICML 2022, appendix C.1.
    """
    found = list(found)
    vector = _unit(start)
    trace: list[float] = []
    for _ in range(max_steps):
        # Rounding brings back what was found earlier; so it is taken out every time.
        for known in found:
            vector = vector - _dot(vector, known) * known
        vector = _unit(vector)
        product = matvec(vector)
        trace.append(float(_dot(vector, product)))
        _check_finite(trace[-1], step=len(trace), method="power iteration")
        vector = _unit(product)
        if len(trace) > 1:
            previous, value = trace[-2:]
            # PyHessian adds 1e-6 here and in `_unit`, against divisions by zero.
            if abs(previous - value) / (abs(previous) + 1e-6) < tol:
                return Power(previous, vector, trace)
    return Power(trace[-1], vector, trace)


def _check_finite(value: float, *, step: int, method: str) -> None:
    """Raises FloatingPointError if a number of a step is infinite or NaN."""
    if not np.isfinite(value):
        raise FloatingPointError(
            f"product {step} of {method} is not finite; the loss has no Hessian"
        )


@jax.jit
def _unit(vector: jax.Array) -> jax.Array:
    """Scales a vector to norm one, as PyHessian does it."""
    return vector / (jnp.linalg.norm(vector) + 1e-6)


def _by_lanczos(
    key: jax.Array,
    matvec: Matvec,
    size: int,
    dtype: Any,
    *,
    k: int,
    tol: float,
    max_steps: int,
) -> tuple[np.ndarray, int]:
    """`top_eigenvalues` by the Ritz values of a random vector."""

    def largest(krylov: Krylov) -> tuple[np.ndarray, np.ndarray]:
        """The k Ritz values of largest magnitude, and their error bounds."""
        values, _, bounds = krylov.ritz()
        order = np.argsort(-np.abs(values), kind="stable")[:k]
        return values[order], bounds[order]

    def converged(krylov: Krylov) -> bool:
        values, bounds = largest(krylov)
        return len(values) == k and bool(np.all(bounds <= tol * np.abs(values)))

    start = jax.random.normal(key, (size,), dtype)
    krylov = lanczos(matvec, start, num_steps=max_steps, stop=converged)
    values, _ = largest(krylov)
    if len(values) < k:
        raise ValueError(
            f"Lanczos sees {len(values)} of the {k} eigenvalues: others are equal to "
            "them, or max_steps is too small; use method='power'"
        )
    return values, len(krylov.alpha)


def _by_power(
    key: jax.Array,
    matvec: Matvec,
    size: int,
    dtype: Any,
    *,
    k: int,
    tol: float,
    max_steps: int,
) -> tuple[np.ndarray, int]:
    """`top_eigenvalues` by power iterations, one after the other."""
    runs: list[Power] = []
    for number in range(k):
        start = jax.random.normal(jax.random.fold_in(key, number), (size,), dtype)
        found = [run.vector for run in runs]
        runs.append(power(matvec, start, found=found, tol=tol, max_steps=max_steps))
    return np.array([run.value for run in runs]), sum(len(run.trace) for run in runs)


# Name -> function, which `top_eigenvalues` calls.
METHODS = {"lanczos": _by_lanczos, "power": _by_power}


def top_eigenvalues(
    key: jax.Array,
    matvec: Matvec,
    size: int,
    *,
    k: int = 1,
    method: str = "lanczos",
    tol: float = 1e-3,
    max_steps: int = 100,
    dtype: Any = jnp.float32,
) -> tuple[np.ndarray, int]:
    """Returns the k eigenvalues of largest magnitude, and the number of products.

    Args:
      key: PRNG key of the random start vectors.
      matvec: Product of the symmetric matrix and a vector, f[n] to f[n].
      size: Number n of rows of the matrix.
      k: Number of eigenvalues, in [1, n].
      method: "lanczos" needs far fewer products, but sees only one of several equal
        eigenvalues. "power" is the paper's power iteration; see `power`.
      tol: Relative error at which the search stops, positive. "lanczos" bounds the
        error of each eigenvalue by it; "power" compares two estimates.
      max_steps: Largest number of products, at least 1; with "power" for each
        eigenvalue.
      dtype: Floating-point type of the vectors, at least float32.

    Returns:
      Eigenvalues f64[k], of decreasing magnitude, and the number of products, an int.

    Raises:
      ValueError: for an unknown method, k outside [1, n], or if Lanczos cannot see k.

    Source: Park & Kim, ICML 2022, appendix C.1.
    """
    if not 1 <= k <= size:
        raise ValueError(f"k must be in [1, {size}], got {k}")
    function = lookup(METHODS, method, "method")
    return function(key, matvec, size, dtype, k=k, tol=tol, max_steps=max_steps)


def quadrature(
    key: jax.Array,
    matvec: Matvec,
    size: int,
    *,
    num_steps: int = 80,
    dtype: Any = jnp.float32,
) -> tuple[np.ndarray, np.ndarray]:
    """Stochastic Lanczos quadrature: the spectral measure that a random vector sees.

    A vector v of random signs has E[v' f(H) v] / n = tr f(H) / n, the mean of f over
    all eigenvalues. Lanczos from v gives the Gauss quadrature of v' f(H) v: its nodes
    are the Ritz values, its weights the squared first components of the eigenvectors
    of T. It is exact for polynomials f of degree less than 2 m.

    Args:
      key: PRNG key of the random vector.
      matvec: Product of the symmetric matrix H and a vector, f[n] to f[n].
      size: Number n of rows of the matrix.
      num_steps: Number m of products, at least 1; memory grows as m times n.
      dtype: Floating-point type of the vectors, at least float32.

    Returns:
      Nodes, increasing, and their weights, whose sum is one: f64[m], or fewer where
      the vector is in a smaller invariant subspace. The mean over many vectors of the
      weights times f(nodes) estimates tr f(H) / n.

    Source: Ghorbani et al., ICML 2019, section 2; Golub & Van Loan, section 10.2.
    """
    # `jax.random.rademacher` would draw other signs where float64 is enabled.
    is_positive = jax.random.bernoulli(key, jnp.float32(0.5), (size,))
    start = jnp.where(is_positive, 1, -1).astype(dtype)
    values, vectors, _ = lanczos(matvec, start, num_steps=num_steps).ritz()
    return values, vectors[0] ** 2


def density(
    nodes: np.ndarray,
    weights: np.ndarray,
    *,
    width: float | None = None,
    num_points: int = 1000,
) -> tuple[np.ndarray, np.ndarray]:
    """Turns weighted nodes into a density: each becomes a Gaussian of its weight.

    Args:
      nodes: f64[...], eigenvalues or Ritz values.
      weights: f64[...], of the same shape and not negative; they are scaled to the sum
        1. Those of a list of eigenvalues are all equal.
      width: Standard deviation of the Gaussian, positive, in units of the nodes; None
        for 1 % of the range of the nodes.
      num_points: Number G of points at which the density is computed.

    Returns:
      Points f64[G], from 5 widths below the nodes to 5 above, and the density there,
      f64[G].

    Raises:
      ValueError: if the width is not positive.

    Source: Ghorbani et al., ICML 2019, section 2.
    """
    if width is not None and not width > 0:
        raise ValueError(f"width must be positive, or None for 1 %, got {width}")
    nodes, weights = np.ravel(nodes), np.ravel(weights)
    # What has no weight must not widen the range of the points.
    nodes, weights = nodes[weights > 0], weights[weights > 0]
    if width is None:
        # Nodes that are all equal have no range; their magnitude sets the scale.
        extent = np.ptp(nodes) or np.abs(nodes).max() or 1.0
        width = 0.01 * extent
    low, high = nodes.min() - 5 * width, nodes.max() + 5 * width
    points = np.linspace(low, high, num_points)
    total = np.zeros_like(points)
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        total += weight * np.exp(-0.5 * ((points - node) / width) ** 2)
    return points, total / (width * np.sqrt(2 * np.pi))


def bandwidth(values: np.ndarray) -> float | None:
    """Returns the width for `density` of a sample, by Silverman's rule.

    Args:
      values: f64[R], the sample, such as the largest eigenvalues of R mini-batches.

    Returns:
      The width, in units of the values; None if all of them are equal.

    Source: Silverman, Density Estimation, 1986, equation 3.31.
    """
    spread = np.std(values)
    upper, lower = np.quantile(values, (0.75, 0.25))
    middle = (upper - lower) / 1.34  # the deviation of a normal sample of that range
    # The smaller of the two is robust against outliers; it must not be zero.
    smaller = min(spread, middle) or spread
    return 0.9 * smaller * len(values) ** -0.2 or None
