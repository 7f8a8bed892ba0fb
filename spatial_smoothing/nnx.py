"""Spatial smoothing as a Flax NNX module.

Contract of this file: the same layer as `layers.SpatialSmoothing`, for NNX networks.
"""

from collections.abc import Callable, Sequence

import jax
from flax import nnx

from spatial_smoothing import ops


class SpatialSmoothing(nnx.Module):
    """Spatial smoothing as a layer without parameters; see `ops.smooth`.

    Args:
      temperature: Scale t > 0 of the squashing function; None for its own default.
      squash: "tanh", "sigmoid", "softmax", "clip", "scale" or "none".
      taps: One-dimensional blur kernel; None for no blur.
      padding: "full" (the paper's), or "zero", "reflect", "edge", "wrap", which
        preserve the size and make a different model.
      norm: A normalisation layer to apply first; None for none.
    """

    def __init__(
        self,
        temperature: float | None = None,
        *,
        squash: str = "tanh",
        taps: Sequence[float] | None = (1, 1),
        padding: str = "full",
        norm: Callable[[jax.Array], jax.Array] | None = None,
    ):
        self.temperature = temperature
        self.squash = squash
        self.taps = None if taps is None else tuple(taps)
        self.padding = padding
        self.norm = norm

    def __call__(self, x: jax.Array) -> jax.Array:
        """Smooths a map `[..., H, W, C]`."""
        return ops.smooth(
            x if self.norm is None else self.norm(x),
            self.temperature,
            squash=self.squash,
            taps=self.taps,
            padding=self.padding,
        )
