"""Features of images: what the last dense layer of a network is given.

Contract of this file: features are f32[B, D], of passes without dropout; logits are
`features @ kernel + bias`. Passes are streamed.
"""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import layers
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.evaluation.confidences import kept
from spatial_smoothing.metrics.feature_confidences import LastLayer

Variables = dict[str, Any]
Prepare = Callable[[jax.Array], jax.Array]
_LABEL = "label"


def features_of(model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
    """Returns the features of images.

    Args:
      model: A network whose last layer is dense, such as those of `models`.
      variables: Flax variables of the network, `{"params", "batch_stats"}`.
      images: f32[B, H, W, 3], normalised.

    Returns:
      f32[B, D].

    Raises:
      ValueError: if the network has no such layer.
    """
    return _last_dense(model, variables, images)[1]


def last_layer(model: nn.Module, variables: Variables, images: Any) -> LastLayer:
    """Returns the last dense layer of a network, without computing anything.

    Args:
      model: A network whose last layer is dense, such as those of `models`.
      variables: Flax variables of the network, `{"params", "batch_stats"}`.
      images: f32[B, H, W, 3], or their `jax.ShapeDtypeStruct`.

    Raises:
      ValueError: if the network has no such layer.
    """
    paths = []

    def trace(variables: Variables, images: jax.Array) -> None:
        paths.append(_last_dense(model, variables, images)[0])

    jax.eval_shape(trace, variables, images)
    found = variables["params"]
    for name in paths[0]:
        found = found[name]
    return LastLayer(found["kernel"], found["bias"])


def compile_features(
    model: nn.Module, prepare: Prepare
) -> Callable[[Variables, Iterable[Batch]], tuple[np.ndarray, np.ndarray]]:
    """Compiles `features(variables, data)`, to features f32[n, D] and labels i32[n].

    Args:
      model: A network whose last layer is dense.
      prepare: Raw images u8[B, H, W, 3] to those that the network takes.
    """

    @jax.jit
    def of_batch(variables: Variables, batch: Batch):
        found = features_of(model, variables, prepare(batch["image"]))
        return {"features": found.T, _LABEL: batch["label"]}, batch["mask"]

    def features(
        variables: Variables, data: Iterable[Batch]
    ) -> tuple[np.ndarray, np.ndarray]:
        found = kept(of_batch(variables, batch) for batch in data)
        return np.ascontiguousarray(found["features"].T), found[_LABEL]

    return features


def _last_dense(
    model: nn.Module, variables: Variables, images: jax.Array
) -> tuple[tuple[str, ...], jax.Array]:
    """The path of the last dense layer, and what it is given."""
    found = []

    def note(method, args, kwargs, context):
        result = method(*args, **kwargs)
        is_dense = isinstance(context.module, layers.Dense | nn.Dense)
        if is_dense and context.method_name == "__call__":
            found.append((context.module.path, args[0], result))
        return result

    with nn.intercept_methods(note):
        logits = model.apply(variables, images, train=False)
    if not found or found[-1][1].ndim != 2 or found[-1][2] is not logits:
        raise ValueError(
            f"{type(model).__name__} has no features: its logits [B, K] are not the "
            "result of a dense layer; leave out the confidences of features"
        )
    path, values, _ = found[-1]
    return path, values.astype(jnp.promote_types(values.dtype, jnp.float32))
