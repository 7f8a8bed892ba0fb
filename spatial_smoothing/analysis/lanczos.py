"""Eigenvalues and spectral densities of a symmetric matrix known by its products.

Contract of this file: `matvec` maps f[n] to f[n]. Loops over products run on the host:
for the Hessian of a network a product takes milliseconds and more, which hides the
host, and on CPUs XLA runs the gradients of convolutions many times slower inside a
compiled loop. Vectors stay on the device.

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

_dot = functools.partial(jnp.dot, precision="highest")


class Krylov(NamedTuple):
    """What m steps of Lanczos find.

    Attributes:
      alpha: f64[m], the diagonal of the tridiagonal matrix T.
      beta: f64[m], its off-diagonal; the last is the norm of what is left over.
      basis: f[M, n], M >= m; the first m rows Q are orthonormal, Q H Q' = T.
    """

    alpha: np.ndarray
    beta: np.ndarray
    basis: jax.Array

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns eigenvalues of T, increasing, eigenvectors, and error bounds.

        Within the bound of each Ritz value lies an eigenvalue of H.
        """
        off = self.beta[:-1]
        values, vectors = np.linalg.eigh(
            np.diag(self.alpha) + np.diag(off, 1) + np.diag(off, -1)
        )
        return values, vectors, np.abs(self.beta[-1] * vectors[-1])


def lanczos(
    matvec: Matvec,
    start: jax.Array,
    *,
    num_steps: int,
    stop: Callable[[Krylov], bool] = lambda found: False,
) -> Krylov:
    """Lanczos with full reorthogonalisation.

    Args:
      matvec: A symmetric product.
      start: f[n], not zero.
      num_steps: Products at most; memory grows with it, as num_steps n.
      stop: Asked after every step.

    Returns:
      The steps made: fewer where `stop` says so or the subspace is exhausted.

    Raises:
      ValueError: if `num_steps` is less than 1.
      FloatingPointError: if a product is not finite.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    num_steps = min(num_steps, start.size)
    basis = jnp.zeros((num_steps, start.size), start.dtype)
    vector, alpha, beta = start / jnp.linalg.norm(start), [], []
    for step in range(num_steps):
        basis, vector, *numbers = _extend(basis, step, vector, matvec(vector))
        for values, number in zip((alpha, beta), numbers, strict=True):
            values.append(float(number))
        if not np.isfinite(alpha[-1] + beta[-1]):
            raise FloatingPointError(
                f"product {step + 1} of Lanczos is not finite; the loss has no Hessian"
            )
        found = Krylov(np.array(alpha), np.array(beta), basis)
        # Rounding alone leaves so much of a subspace that is exhausted.
        small = 100 * np.finfo(start.dtype).eps * np.abs(alpha + beta).max()
        if beta[-1] <= small or stop(found):
            break
    return found


@functools.partial(jax.jit, donate_argnums=0)
def _extend(basis, step, vector, product):
    """Adds a vector to the basis; returns the next one, alpha and beta."""
    basis = basis.at[step].set(vector)
    alpha = _dot(vector, product)
    for _ in range(2):  # once leaves rounding errors that grow with the steps
        product = product - _dot(_dot(basis, product), basis)
    beta = jnp.linalg.norm(product)
    return basis, product / jnp.where(beta > 0, beta, 1), alpha, beta


class Power(NamedTuple):
    """What a power iteration finds: eigenvalue, eigenvector, and all estimates."""

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
      matvec: A symmetric product.
      start: f[n].
      found: Eigenvectors to deflate by.
      tol: Relative.
      max_steps: Products at most.

    Returns:
      The eigenvalue of largest magnitude, of either sign.
    """
    found = list(found)
    vector, trace = _unit(start), []
    for _ in range(max_steps):
        for other in found:
            vector = vector - _dot(vector, other) * other
        vector = _unit(vector)
        product = matvec(vector)
        trace.append(float(_dot(vector, product)))
        vector = _unit(product)
        if len(trace) > 1:
            previous, value = trace[-2:]
            if abs(previous - value) / (abs(previous) + 1e-6) < tol:
                return Power(previous, vector, trace)
    return Power(trace[-1], vector, trace)


@jax.jit
def _unit(vector: jax.Array) -> jax.Array:
    return vector / (jnp.linalg.norm(vector) + 1e-6)


def _by_lanczos(key, matvec, size, dtype, *, k, tol, max_steps):
    def largest(krylov: Krylov) -> tuple[np.ndarray, np.ndarray]:
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


def _by_power(key, matvec, size, dtype, *, k, tol, max_steps):
    runs: list[Power] = []
    for number in range(k):
        start = jax.random.normal(jax.random.fold_in(key, number), (size,), dtype)
        found = [run.vector for run in runs]
        runs.append(power(matvec, start, found=found, tol=tol, max_steps=max_steps))
    return np.array([run.value for run in runs]), sum(len(run.trace) for run in runs)


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
      key: Of the random start.
      matvec: A symmetric product.
      size: n.
      k: How many, at most n.
      method: "lanczos": far fewer products; of equal eigenvalues it sees one. "power":
        the paper's; see `power`.
      tol: Relative error that is tolerated, in the sense of the method.
      max_steps: Products at most; with "power" for each eigenvalue.
      dtype: Of the vectors.

    Returns:
      f64[k], of decreasing magnitude, and an int.

    Raises:
      ValueError: for an unknown method, k outside [1, n], or if Lanczos cannot see k.
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

    The mean over vectors of the weights times f(nodes) estimates tr f(H) / n; it is
    exact in expectation for polynomials of degree less than 2 m.

    Args:
      key: Of the probe vector, which is of random signs.
      matvec: A symmetric product.
      size: n.
      num_steps: m products.
      dtype: Of the vectors.

    Returns:
      Nodes, the Ritz values, increasing, and their weights, whose sum is one: f64[m],
      or less where the vector lies in a smaller invariant subspace.
    """
    start = jax.random.rademacher(key, (size,), dtype)
    values, vectors, _ = lanczos(matvec, start, num_steps=num_steps).ritz()
    return values, vectors[0] ** 2


def density(
    nodes: np.ndarray,
    weights: np.ndarray,
    *,
    width: float | None = None,
    num_points: int = 1000,
) -> tuple[np.ndarray, np.ndarray]:
    """Broadens weighted nodes by a Gaussian to a density.

    Args:
      nodes: f64[...].
      weights: f64[...], not negative, scaled here to the sum 1; those of a list of
        eigenvalues are all equal.
      width: Standard deviation of the Gaussian; None for 1 % of the range of the nodes.
      num_points: G.

    Returns:
      Points f64[G], from 5 widths below the nodes to 5 above, and the density there.
    """
    nodes, weights = np.ravel(nodes), np.ravel(weights)
    nodes, weights = nodes[weights > 0], weights[weights > 0]
    extent = np.ptp(nodes)
    width = width or 0.01 * (extent or np.abs(nodes).max() or 1.0)
    low, high = nodes.min() - 5 * width, nodes.max() + 5 * width
    points = np.linspace(low, high, num_points)
    total = np.zeros_like(points)
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        total += weight * np.exp(-0.5 * ((points - node) / width) ** 2)
    return points, total / (width * np.sqrt(2 * np.pi))


def bandwidth(values: np.ndarray) -> float | None:
    """Width for `density` of a sample by Silverman's rule; None for a single value."""
    spread = np.std(values)
    middle = np.subtract(*np.quantile(values, (0.75, 0.25))) / 1.34
    return 0.9 * (min(spread, middle) or spread) * len(values) ** -0.2 or None
