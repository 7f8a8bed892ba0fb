"""What a rival is: M members in one network, whose single pass makes M predictions.

Contract of this package: a rival never changes a topology. A network asks it for three
things: what becomes of the images in front of the first layer, which layers its blocks
are made of, and how the output of the last layer is read as M predictions. A member is
an output of the same kind as that of a network without a rival.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from spatial_smoothing.layers import Layers


class Arranged(NamedTuple):
    """A batch as a rival trains on it.

    Attributes:
      batch: `image` as the network takes it, `label` i32[B'] or i32[M, B'], and `mask`
        bool[B'], where B' is the number of places of the batch.
      order: i32[B'], the example of the original batch that the first member sees at
        each place; None where the places are those of the original batch.
    """

    batch: dict[str, Any]
    order: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Rival:
    """A method by which one network makes M predictions in a pass.

    Attributes:
      size: Number of members M, at least 2.
    """

    size: int

    def spread(self, images: jax.Array) -> jax.Array:
        """Returns what the first layer is given.

        Args:
          images: f[B, H, W, 3], the same images for all members.
        """
        raise NotImplementedError

    def mask(self, mask: jax.Array | None) -> jax.Array | None:
        """Returns the mask of the maps that normalisation sees.

        Args:
          mask: bool[B], the examples that are not padding; None for all.
        """
        return mask

    def layers(self, layers: Layers) -> Layers:
        """Returns the layer constructors for the blocks of the network.

        Args:
          layers: Those of a network without a rival.
        """
        return layers

    def collect(self, logits: jax.Array) -> jax.Array:
        """Returns the logits of each member, f[M, B, K].

        Args:
          logits: What the last layer returns.
        """
        raise NotImplementedError

    def arrange(self, key: jax.Array, batch: Mapping[str, Any]) -> Arranged:
        """Returns a batch as the rival trains on it.

        Args:
          key: PRNG key of what is drawn.
          batch: `image` f32[B, H, W, 3], `label` i32[B] and `mask` bool[B]. Other
            arrays [B] are arranged as the labels are.
        """
        return Arranged(dict(batch), None)


@dataclasses.dataclass(frozen=True)
class Tiled(Rival):
    """A rival whose members are M copies of the batch, one behind the other."""

    def spread(self, images: jax.Array) -> jax.Array:
        """Repeats the batch, to f[M B, H, W, 3]."""
        return jnp.tile(images, (self.size, 1, 1, 1))

    def mask(self, mask: jax.Array | None) -> jax.Array | None:
        """Repeats the mask, to bool[M B]."""
        return None if mask is None else jnp.tile(mask, self.size)

    def collect(self, logits: jax.Array) -> jax.Array:
        """Parts the copies."""
        return by_member(logits, self.size)


def by_member(x: jax.Array, size: int) -> jax.Array:
    """Returns f[M B, ...] as f[M, B, ...].

    Args:
      x: Values of the members, one behind the other.
      size: Number of members M.
    """
    return x.reshape(size, -1, *x.shape[1:])
