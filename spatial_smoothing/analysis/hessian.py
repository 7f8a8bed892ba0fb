"""Hessian spectra: the largest eigenvalues of mini-batches, and the full density.

Contract of this file: the Hessian H of a loss with respect to all n parameters is known
through its products H v alone. Vectors are f32[n], the parameters flattened in the
order of `jax.flatten_util.ravel_pytree`. Everything random in the loss of a batch,
augmentation and dropout, is fixed by a key, or there would be no Hessian.

Source: Park & Kim, ICML 2022, section 3 and appendix C.1.
"""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from spatial_smoothing.analysis.directions import norms
from spatial_smoothing.analysis.lanczos import Matvec, quadrature, top_eigenvalues
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.models.network import Network
from spatial_smoothing.training.steps import Prepare, training_loss

# (variables, key, batch) -> f32[], what `objective` returns.
Loss = Callable[[dict[str, Any], jax.Array, Batch], jax.Array]
Row = dict[str, Any]


def objective(model: Network, *, prepare: Prepare, weight_decay: float = 0.0) -> Loss:
    """Returns `loss(variables, key, batch)`, what training by the paper minimises.

    It is the mean cross-entropy of the examples in the mask, in nats, of one augmented
    batch and one dropout mask, both fixed by the key, + weight_decay / 2 |p|^2 over all
    parameters, which the optimiser adds in training. Batch normalisation uses its
    running statistics: those of the batch would make the loss of one image depend on
    all others.

    Args:
      model: The network, a Linen module.
      prepare: `prepare(key, images)` augments and normalises u8[B, H, W, 3] to
        f32[B, H, W, 3].
      weight_decay: Factor of the L2 term, at least 0, as training used it.

    Returns:
      A function of Flax variables, a PRNG key and a batch to f32[]. Dropout is on.

    Source: Park & Kim, ICML 2022, appendix C.1.
    """

    def loss(variables: dict[str, Any], key: jax.Array, batch: Batch) -> jax.Array:
        prepare_key, dropout_key = jax.random.split(key)
        prepared = {**batch, "image": prepare(prepare_key, batch["image"])}
        mean, _ = training_loss(
            model, variables, prepared, dropout_key=dropout_key, train=False
        )
        return mean + weight_decay / 2 * norms(variables["params"])["sqnorm"]

    return loss


def hvp(loss: Callable[[Any], jax.Array], params: Any, vector: Any) -> Any:
    """Returns the product of the Hessian of a loss and a vector.

    It is computed forward over reverse, as the derivative of the gradient along the
    vector: no matrix is formed, and it costs two to three gradients.

    Args:
      loss: Function of the parameters to f[].
      params: Parameters at which the Hessian is taken, a pytree.
      vector: The vector, a pytree with the structure, shapes and dtypes of `params`.

    Returns:
      The product, a pytree like `params`.

    Source: Pearlmutter, Neural Computation 6, 1994.
    """
    return jax.jvp(jax.grad(loss), (params,), (vector,))[1]


def compile_hvp(loss: Loss) -> Callable[..., jax.Array]:
    """Compiles `product(variables, key, batch, vector)`.

    Args:
      loss: Function of Flax variables, a PRNG key and a batch to f[], such as that of
        `objective`. The Hessian is with respect to `variables["params"]`.

    Returns:
      A function whose last argument and result are f[n], the flattened parameters. It
      is compiled once for all batches of one shape.
    """

    @jax.jit
    def product(
        variables: dict[str, Any], key: jax.Array, batch: Batch, vector: jax.Array
    ) -> jax.Array:
        flat, unravel = ravel_pytree(variables["params"])

        def loss_of_flat(flat: jax.Array) -> jax.Array:
            return loss({**variables, "params": unravel(flat)}, key, batch)

        return hvp(loss_of_flat, flat, vector)

    return product


def mean_matvec(
    product: Callable[..., jax.Array],
    variables: dict[str, Any],
    data: Iterable[Batch],
    *,
    key: jax.Array,
) -> Matvec:
    """Returns the products of the loss over all examples of several batches.

    Args:
      product: What `compile_hvp` returns.
      variables: Flax variables of the network, `{"params", "batch_stats"}`.
      data: Batches, which are held in memory. Batch i draws from `fold_in(key, i)`.
      key: PRNG key of augmentation and dropout.

    Returns:
      `matvec`, f[n] to f[n]. A batch counts by its examples, padding not included.
    """
    data = list(data)
    counts = [int(batch["mask"].sum()) for batch in data]
    num_examples = sum(counts)

    def matvec(vector: jax.Array) -> jax.Array:
        total = 0.0
        for index, (batch, count) in enumerate(zip(data, counts, strict=True)):
            part = product(variables, jax.random.fold_in(key, index), batch, vector)
            total = total + part * (count / num_examples)
        return total

    return matvec


def spectrum(
    model: Network,
    variables: dict[str, Any],
    data: Iterable[Batch],
    *,
    key: jax.Array,
    prepare: Prepare,
    weight_decay: float = 0.0,
    k: int = 1,
    method: str = "lanczos",
    tol: float = 1e-3,
    max_steps: int = 100,
    done: Collection[int] = (),
) -> Iterator[Row]:
    """Yields the largest Hessian eigenvalues of each mini-batch as they are found.

    Args:
      model: The network, a Linen module.
      variables: Flax variables of the network, `{"params", "batch_stats"}`.
      data: Batches of training images, u8. Batch i draws from `fold_in(key, i)`.
      key: PRNG key of augmentation, dropout and start vectors.
      prepare: `prepare(key, images)` augments and normalises u8[B, H, W, 3] to
        f32[B, H, W, 3].
      weight_decay: Factor of the L2 term of the loss, at least 0. The term shifts every
        eigenvalue by this factor.
      k: Number of eigenvalues of each batch, those of largest magnitude; at least 1.
      method: "lanczos" or "power", which `lanczos.top_eigenvalues` describes.
      tol: Relative error of an eigenvalue at which the search for it stops, positive.
      max_steps: Largest number of products for each batch, at least 1; with "power" for
        each eigenvalue.
      done: Numbers of batches to leave out, such as those of an earlier call.

    Yields:
      `batch`, its number; `eigenvalues`, k floats of decreasing magnitude; `products`,
      the number of Hessian-vector products that they took.

    Source: Park & Kim, ICML 2022, appendix C.1.
    """
    product = compile_hvp(objective(model, prepare=prepare, weight_decay=weight_decay))
    size = num_parameters(variables)
    for index, batch in enumerate(data):
        if index in done:
            continue
        loss_key, start_key = jax.random.split(jax.random.fold_in(key, index))
        values, products = top_eigenvalues(
            start_key,
            functools.partial(product, variables, loss_key, batch),
            size,
            k=k,
            method=method,
            tol=tol,
            max_steps=max_steps,
        )
        yield {"batch": index, "eigenvalues": values.tolist(), "products": products}


def spectral_density(
    model: Network,
    variables: dict[str, Any],
    data: Iterable[Batch],
    *,
    key: jax.Array,
    prepare: Prepare,
    weight_decay: float = 0.0,
    num_probes: int = 1,
    num_steps: int = 80,
    done: Collection[int] = (),
    on_product: Callable[[], Any] = lambda: None,
) -> Iterator[Row]:
    """Yields what random vectors see of the spectrum of the loss over all of `data`.

    The density is that of all nodes and weights together; `lanczos.density` makes it.

    Args:
      model: The network, a Linen module.
      variables: Flax variables of the network, `{"params", "batch_stats"}`.
      data: Batches of training images, u8, which are held in memory. Batch i draws from
        `fold_in(loss_key, i)`, `loss_key` being the first of `jax.random.split(key)`.
      key: PRNG key of augmentation, dropout and random vectors.
      prepare: `prepare(key, images)` augments and normalises u8[B, H, W, 3] to
        f32[B, H, W, 3].
      weight_decay: Factor of the L2 term of the loss, at least 0. The term shifts every
        eigenvalue by this factor.
      num_probes: Number of random vectors, at least 1.
      num_steps: Number m of products for each of them, at least 1. Memory grows as m
        times the number of parameters.
      done: Numbers of random vectors to leave out, such as those of an earlier call.
      on_product: Callback without arguments, called after every product.

    Yields:
      `probe`, the number of the random vector; `nodes` and `weights`, m floats each.

    Source: Ghorbani et al., ICML 2019; Park & Kim, ICML 2022, section 3.
    """
    loss_key, probe_key = jax.random.split(key)
    product = compile_hvp(objective(model, prepare=prepare, weight_decay=weight_decay))
    matvec = mean_matvec(product, variables, data, key=loss_key)

    def reported(vector: jax.Array) -> jax.Array:
        # JAX returns before the device has computed. Progress would run ahead of it.
        result = jax.block_until_ready(matvec(vector))
        on_product()
        return result

    for probe in range(num_probes):
        if probe in done:
            continue
        nodes, weights = quadrature(
            jax.random.fold_in(probe_key, probe),
            reported,
            num_parameters(variables),
            num_steps=num_steps,
        )
        yield {"probe": probe, "nodes": nodes.tolist(), "weights": weights.tolist()}


def num_parameters(variables: dict[str, Any]) -> int:
    """Returns n, the size of the flattened parameters `variables["params"]`."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def proportions(eigenvalues: Sequence[float]) -> dict[str, float]:
    """Sums up a list of eigenvalues in two numbers.

    Args:
      eigenvalues: Eigenvalues, floats of any shape.

    Returns:
      `negative`, the share of negative values, in [0, 1]; `positive_mean`, the mean of
      the positive ones (NaN if there are none).

    Source: Park & Kim, ICLR 2022, who call them NEP and APE.
    """
    values = np.ravel(np.asarray(eigenvalues, np.float64))
    positive = values[values > 0]
    return {
        "negative": float(np.mean(values < 0)),
        "positive_mean": float(positive.mean()) if positive.size else float("nan"),
    }


def arrays(rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """Arranges rows of `spectrum` to store.

    Args:
      rows: R rows, in any order, with k eigenvalues each.

    Returns:
      `batch` i64[R], increasing; `eigenvalues` f64[R, k]; `products` i64[R].
    """
    rows = sorted(rows, key=lambda row: row["batch"])
    names = ("batch", "eigenvalues", "products")
    return {name: np.array([row[name] for row in rows]) for name in names}
