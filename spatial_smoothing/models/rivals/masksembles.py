"""Masksembles: M fixed masks of channels, in the places of dropout.

Source: Durasov et al., CVPR 2021, and its code. A mask of member m keeps the same
number of channels as those of the others; `scale` says how much masks overlap: 1 makes
them equal, so that the members are, and with a large one they hardly share a channel.
The batch is repeated M times, in training too; the published code divides the batch
among the members in training.
"""

import dataclasses
import functools
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.layers import Layers
from spatial_smoothing.models.rivals.rival import Tiled, by_member

_MOST_SCALE = 6.0  # of the published code, which finds no masks beyond
_MOST_DRAWS = 1000  # of masks of the expected size, before a scale is given up


class Masks(nn.Module):
    """Multiplies the channels of each member by its mask.

    Masks depend on the place in the network and on the number of channels alone, so
    that they are constants of the network and not among its variables.

    Attributes:
      size: Number of members M.
      scale: How little the masks overlap; see `masks`.
    """

    size: int
    scale: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[M B, ..., C]` to the same shape."""
        place = zlib.crc32("/".join(self.path).encode())
        kept = masks(x.shape[-1], self.size, self.scale, seed=place)
        members = by_member(x, self.size)
        factors = jnp.asarray(kept, x.dtype)
        factors = jnp.expand_dims(factors, tuple(range(1, members.ndim - 1)))
        return (members * factors).reshape(x.shape)


@dataclasses.dataclass(frozen=True)
class Masksembles(Tiled):
    """M members that share all weights, and see other channels of some maps.

    Attributes:
      scale: How little the masks overlap; see `masks`.
    """

    scale: float = 2.0

    def layers(self, layers: Layers) -> Layers:
        """Puts masks where the network may have dropout, and in front of it."""

        def dropout(**options):
            mask = Masks(self.size, self.scale)
            drop = layers.dropout(**options)
            return lambda x: drop(mask(x))

        return layers._replace(dropout=dropout)


@functools.lru_cache(maxsize=1024)
def masks(channels: int, size: int, scale: float, *, seed: int) -> np.ndarray:
    """Draws masks by the published algorithm.

    M masks with m ones each are drawn at random in m s places. Places that no mask has
    are taken out, which leaves about `m s (1 - (1 - 1/s)^M)` of them. m follows from
    the number of channels C, and s is varied until C places are left.

    Args:
      channels: Number of channels C, at least 10.
      size: Number of masks M.
      scale: s, in [1, 6]. Of two masks, about 1 / s of the ones are shared.
      seed: Seed of the draw.

    Returns:
      bool[M, C]. Each mask has the same number of ones, and each channel is in a mask.

    Raises:
      ValueError: for numbers out of range, or where there are no such masks.
    """
    if channels < 10:
        raise ValueError(
            f"Masksembles needs at least 10 channels, got {channels}; take a larger "
            "width"
        )
    if not 1 <= scale <= _MOST_SCALE:
        raise ValueError(f"scale must be in [1, {_MOST_SCALE:g}], got {scale}")
    rng = np.random.default_rng(seed)
    ones = int(channels / (scale * (1 - (1 - 1 / scale) ** size)))
    # As published: a coarse search for the first scale with enough places, then a fine
    # one for a scale with just as many as there are channels.
    upper = 1.5 * scale
    for steps in (300, 1000):
        for value in np.linspace(max(0.8 * scale, 1.0), upper, steps):
            found = _draw(rng, ones, size, value)
            if found.shape[1] == channels:
                return found
            if found.shape[1] > channels:
                upper = value
                break
    # Few channels leave few numbers of ones: any draw of the right size will do.
    for more in range(ones, channels + 1):
        for value in np.linspace(1.0, _MOST_SCALE, 200):
            if int(more * value) < channels:
                continue
            found = _draw(rng, more, size, value)
            if found.shape[1] == channels:
                return found
    raise ValueError(
        f"there are no {size} masks of {channels} channels with the scale {scale:g}; "
        "take another scale"
    )


def _draw(rng: np.random.Generator, ones: int, size: int, scale: float) -> np.ndarray:
    """Draws masks until they have the expected number of places, bool[M, places]."""
    places = int(ones * scale)
    expected = int(ones * scale * (1 - (1 - 1 / scale) ** size))
    for _ in range(_MOST_DRAWS):
        drawn = np.zeros((size, places), bool)
        for mask in drawn:
            mask[rng.choice(places, ones, replace=False)] = True
        drawn = drawn[:, drawn.any(0)]
        if drawn.shape[1] == expected:
            return drawn
    return drawn
