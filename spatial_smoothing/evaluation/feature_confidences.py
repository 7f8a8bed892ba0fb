"""A pass over data that returns confidences of features for each image.

Contract of this file: features are those of passes without dropout, so that what is
kept of an image is a few numbers for each network, whatever the number of samples.
"""

import functools
from collections.abc import Callable, Iterable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from spatial_smoothing.data.batches import Batch
from spatial_smoothing.evaluation.confidences import (
    FEATURES,
    WRONG,
    Confidence,
    kept,
)
from spatial_smoothing.evaluation.feature_bank import PART, Fitted
from spatial_smoothing.evaluation.features import Prepare, Variables, features_of
from spatial_smoothing.metrics import feature_confidences as confidences

NAMES = ("knn", "mahalanobis", "relative_mahalanobis", "react", "vim", "ddu")
NEIGHBOURS = 50  # of the training features, that is published


def compile_feature_confidences(
    model: nn.Module,
    prepare: Prepare,
    names: Sequence[str],
    *,
    mesh: Mesh,
    neighbours: Sequence[int] = (NEIGHBOURS,),
) -> Callable[[Variables, Fitted, Iterable[Batch]], dict[Confidence, np.ndarray]]:
    """Compiles `confidences(variables, fitted, data)`.

    Args:
      model: A network whose last layer is dense.
      prepare: Raw images u8[B, H, W, 3] to those that the network takes.
      names: Some of `NAMES`.
      mesh: Devices, over which batches and the bank are split.
      neighbours: Numbers k of the neighbour whose distance is taken, G of them.

    Returns:
      A function to `Confidence` -> f32[G', n] on the host, where G' is G for "knn", the
      number of thresholds for "react", and 1 for all others. `Confidence(WRONG,
      FEATURES)` is among them. It raises ValueError if there are no batches.
    """
    of_batch = jax.jit(
        batch_confidences(model, prepare, names, mesh=mesh, neighbours=neighbours)
    )

    def of_data(
        variables: Variables, fitted: Fitted, data: Iterable[Batch]
    ) -> dict[Confidence, np.ndarray]:
        return kept(of_batch(variables, fitted, batch) for batch in data)

    return of_data


def batch_confidences(
    model: nn.Module,
    prepare: Prepare,
    names: Sequence[str],
    *,
    mesh: Mesh,
    neighbours: Sequence[int] = (NEIGHBOURS,),
) -> Callable[
    [Variables, Fitted, Batch], tuple[dict[Confidence, jax.Array], jax.Array]
]:
    """Returns the function of one batch that `compile_feature_confidences` compiles.

    Args:
      model: A network whose last layer is dense.
      prepare: Raw images u8[B, H, W, 3] to those that the network takes.
      names: Some of `NAMES`.
      mesh: Devices, over which batches and the bank are split.
      neighbours: Numbers k of the neighbour whose distance is taken, G of them.

    Returns:
      `(variables, fitted, batch)` to confidences f32[G', B], and the mask bool[B] of
      the batch.
    """

    def of_batch(variables: Variables, fitted: Fitted, batch: Batch):
        features = features_of(model, variables, prepare(batch["image"]))
        found = {
            name: _OF_FEATURES[name](features, fitted)
            for name in names
            if name in _OF_FEATURES
        }
        if "knn" in names:
            found["knn"] = nearest_neighbours(
                features, fitted.bank, neighbours=neighbours, mesh=mesh
            )
        wrong = fitted.last(features).argmax(-1) != batch["label"]
        found[WRONG] = wrong.astype(jnp.float32)[None]
        keys = (*names, WRONG)
        return {Confidence(key, FEATURES): found[key] for key in keys}, batch["mask"]

    return of_batch


def nearest_neighbours(
    features: jax.Array, bank: jax.Array, *, neighbours: Sequence[int], mesh: Mesh
) -> jax.Array:
    """Confidences by the distance to neighbours in a bank that the devices share.

    Each device searches its part of the bank, piece by piece; then the best of all
    devices are searched.

    Args:
      features: f32[B, D].
      bank: f32[n', D], of `split_bank`.
      neighbours: Numbers k of the neighbours, counted from 1, the nearest; at most the
        number of rows of the bank that are no padding.
      mesh: Devices.

    Returns:
      f32[len(neighbours), B].
    """
    axes = mesh.axis_names
    count = max(neighbours)

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(axes)),
        out_specs=PartitionSpec(),
        check_vma=False,  # what `all_gather` returns is the same on all devices
    )
    def search(queries: jax.Array, part: jax.Array) -> jax.Array:
        pieces = part.reshape(-1, min(len(part), PART), part.shape[-1])

        def better(best: jax.Array, piece: jax.Array) -> tuple[jax.Array, None]:
            found = confidences.most_similar(
                queries, piece, count=min(count, len(piece))
            )
            return _largest(jnp.concatenate([best, found], axis=1), count), None

        none = jnp.full((len(queries), count), -jnp.inf, queries.dtype)
        best, _ = jax.lax.scan(better, none, pieces)
        return _largest(jax.lax.all_gather(best, axes, axis=1, tiled=True), count)

    best = search(confidences.normalised(features), bank)
    chosen = best[:, np.asarray(neighbours) - 1]
    return confidences.nearest_neighbour(chosen).T


def _largest(values: jax.Array, count: int) -> jax.Array:
    """The largest values of each row, f[B, count], the largest first."""
    return jax.lax.top_k(values, count)[0]


# Confidences f32[G', B] of features f32[B, D].
_OF_FEATURES: dict[str, Callable[[jax.Array, Fitted], jax.Array]] = {
    "mahalanobis": lambda features, fitted: confidences.mahalanobis(
        features, fitted.classes
    )[None],
    "relative_mahalanobis": lambda features, fitted: confidences.relative_mahalanobis(
        features, fitted.classes, fitted.everything
    )[None],
    "ddu": lambda features, fitted: confidences.log_density(features, fitted.densities)[
        None
    ],
    "react": lambda features, fitted: jax.lax.map(
        lambda threshold: confidences.react(features, fitted.last, threshold=threshold),
        fitted.thresholds,
    ),
    "vim": lambda features, fitted: confidences.virtual_logit(
        features, fitted.last, fitted.residual
    )[None],
}
