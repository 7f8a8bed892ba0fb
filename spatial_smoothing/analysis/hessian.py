"""Hessian spectra: the largest eigenvalues of mini-batches, and the full density.

Contract of this file: the Hessian H of a loss with respect to all n parameters is known
through its products H v alone. Vectors are f32[n], the parameters flattened in the
order of `jax.flatten_util.ravel_pytree`. Everything random in the loss of a batch,
augmentation and dropout, is fixed by a key, or there would be no Hessian.

Source: Park & Kim, ICML 2022, section 3 and appendix C.1.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from spatial_smoothing.analysis.lanczos import Matvec, quadrature, top_eigenvalues
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.models.network import Network
from spatial_smoothing.runtime import random_bits
from spatial_smoothing.training.steps import Prepare

Loss = Callable[[dict[str, Any], jax.Array, Batch], jax.Array]
Row = dict[str, Any]


def objective(model: Network, *, prepare: Prepare, weight_decay: float = 0.0) -> Loss:
    """Returns `loss(variables, key, batch)`, what training minimises.

    The mean cross-entropy of the examples in the mask, in nats, of one augmented batch
    and one dropout mask, both fixed by the key, + weight_decay / 2 |p|^2 over all
    parameters. Batch normalisation uses its running statistics.

    Args:
      model: The network.
      prepare: `prepare(key, images)` augments and normalises.
      weight_decay: Of training.
    """

    def loss(variables: dict[str, Any], key: jax.Array, batch: Batch) -> jax.Array:
        prepare_key, dropout_key = jax.random.split(key)
        logits = model.apply(
            variables,
            prepare(prepare_key, batch["image"]),
            train=False,
            rngs={"dropout": random_bits.fused(dropout_key)},
        )
        log_probs = jax.nn.log_softmax(logits)
        labels, mask = batch["label"], batch["mask"]
        losses = -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
        leaves = jax.tree.leaves(variables["params"])
        squares = sum(jnp.square(leaf).sum() for leaf in leaves)
        mean = jnp.where(mask, losses, 0).sum() / mask.sum()
        return mean + weight_decay / 2 * squares

    return loss


def hvp(loss: Callable[[Any], jax.Array], params: Any, vector: Any) -> Any:
    """Product of the Hessian of `loss` at `params` and a vector, both pytrees.

    Forward over reverse: the derivative of the gradient along the vector.
    """
    return jax.jvp(jax.grad(loss), (params,), (vector,))[1]


def compile_hvp(loss: Loss) -> Callable[..., jax.Array]:
    """Compiles `product(variables, key, batch, vector)`, f[n] to f[n].

    Args:
      loss: Of variables, key and batch; see `objective`.
    """

    @jax.jit
    def product(variables, key, batch, vector: jax.Array) -> jax.Array:
        flat, unravel = ravel_pytree(variables["params"])

        def of_flat(flat: jax.Array) -> jax.Array:
            return loss({**variables, "params": unravel(flat)}, key, batch)

        return hvp(of_flat, flat, vector)

    return product


def mean_matvec(
    product: Callable[..., jax.Array],
    variables: dict[str, Any],
    data: Iterable[Batch],
    *,
    key: jax.Array,
) -> Matvec:
    """Returns `matvec` of the loss over all examples of several batches.

    Args:
      product: See `compile_hvp`.
      variables: Of the network.
      data: Batches, held in memory. Batch i draws from `fold_in(key, i)`.
      key: Of augmentation and dropout.
    """
    data = list(data)
    counts = [int(batch["mask"].sum()) for batch in data]

    def matvec(vector: jax.Array) -> jax.Array:
        total = 0.0
        for index, (batch, count) in enumerate(zip(data, counts, strict=True)):
            part = product(variables, jax.random.fold_in(key, index), batch, vector)
            total = total + part * (count / sum(counts))
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
      model: The network.
      variables: `{"params", "batch_stats"}`.
      data: Training batches. Batch i draws from `fold_in(key, i)`.
      key: Of augmentation, dropout and start vectors.
      prepare: `prepare(key, images)` augments and normalises.
      weight_decay: Of the L2 term; it shifts every eigenvalue by itself.
      k: Eigenvalues of largest magnitude for each batch.
      method: "lanczos" or "power"; see `lanczos.top_eigenvalues`.
      tol: Likewise.
      max_steps: Likewise.
      done: Numbers of batches to leave out, such as those of an earlier call.

    Yields:
      `batch`, its number; `eigenvalues`, k floats of decreasing magnitude; `products`,
      the Hessian-vector products that they took.
    """
    product = compile_hvp(objective(model, prepare=prepare, weight_decay=weight_decay))
    size = num_parameters(variables)
    for index, batch in enumerate(data):
        if index in done:
            continue
        loss_key, start_key = jax.random.split(jax.random.fold_in(key, index))
        values, products = top_eigenvalues(
            start_key,
            lambda v, key=loss_key, batch=batch: product(variables, key, batch, v),
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

    The density is that of all nodes and weights together; see `lanczos.density`.

    Args:
      model: The network.
      variables: `{"params", "batch_stats"}`.
      data: Batches, held in memory. Batch i draws from `fold_in(key, i)`.
      key: Of augmentation, dropout and probe vectors.
      prepare: `prepare(key, images)` augments and normalises.
      weight_decay: Of the L2 term.
      num_probes: Random vectors.
      num_steps: m products for each; memory grows with it, as m times the parameters.
      done: Numbers of vectors to leave out, such as those of an earlier call.
      on_product: Called after every product.

    Yields:
      `probe`, the number of the vector; `nodes` and `weights`, m floats each.
    """
    loss_key, probe_key = jax.random.split(key)
    product = compile_hvp(objective(model, prepare=prepare, weight_decay=weight_decay))
    matvec = mean_matvec(product, variables, data, key=loss_key)

    def reported(vector: jax.Array) -> jax.Array:
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
    """Returns n, the size of the flattened parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def proportions(eigenvalues: Sequence[float]) -> dict[str, float]:
    """Sums up a list of eigenvalues in two numbers.

    Returns:
      `negative`, the share of negative values; `positive_mean`, the mean of the
      positive ones (NaN if there are none). Source: Park & Kim, ICLR 2022: NEP and APE.
    """
    values = np.ravel(np.asarray(eigenvalues, np.float64))
    positive = values[values > 0]
    return {
        "negative": float(np.mean(values < 0)),
        "positive_mean": float(positive.mean()) if positive.size else float("nan"),
    }


def arrays(rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """Arranges rows of `spectrum` to store.

    Returns:
      `batch` i64[R], increasing; `eigenvalues` f64[R, k]; `products` i64[R].
    """
    rows = sorted(rows, key=lambda row: row["batch"])
    names = ("batch", "eigenvalues", "products")
    return {name: np.array([row[name] for row in rows]) for name in names}
