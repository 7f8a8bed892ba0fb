"""MIMO: one network reads M images at once and classifies all of them.

Source: Havasi et al., ICLR 2021. The images of a place are M times 3 channels of the
first layer; the last layer has M K values. In training the images of a place are
different ones (section 2, and algorithm 1 of the appendix); in evaluation they are M
copies of one image, so that the network predicts it M times.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from spatial_smoothing.layers import Layers
from spatial_smoothing.models.rivals.rival import Arranged, Rival


@dataclasses.dataclass(frozen=True)
class Mimo(Rival):
    """M members that share all layers but the first and the last.

    Attributes:
      repetition: Probability, in [0, 1], that a place of a training batch has the same
        image for all members.
      batch_repetitions: How often a training batch has each image; at least 1. The
        network is given this times as many places.
    """

    repetition: float = 0.0
    batch_repetitions: int = 1

    def spread(self, images: jax.Array) -> jax.Array:
        """Gives the network M copies of each image, or what `arrange` has joined."""
        if images.shape[-1] == 3:
            return jnp.tile(images, (1, 1, 1, self.size))
        return images

    def layers(self, layers: Layers) -> Layers:
        """Gives the last dense layer the values of all members."""

        def dense(features, *, last=False, name=None):
            return layers.dense(
                features * self.size if last else features, last=last, name=name
            )

        return layers._replace(dense=dense)

    def collect(self, logits: jax.Array) -> jax.Array:
        """Parts f[B, M K] to f[M, B, K]."""
        return logits.reshape(len(logits), self.size, -1).swapaxes(0, 1)

    def arrange(self, key: jax.Array, batch: Mapping[str, Any]) -> Arranged:
        """Gives each member an order of the images of its own; labels follow.

        The first `1 - repetition` of the places are drawn anew for each member, as in
        the published code. Padding stays at the end, where all members have it.
        """
        mask = jnp.tile(batch["mask"], self.batch_repetitions)
        count, places = mask.sum(), jnp.arange(len(mask))
        keys = jax.random.split(key, self.size + 1)

        def draw(key: jax.Array) -> jax.Array:
            # The type is said, so that JAX_ENABLE_X64 does not change what is drawn.
            return jax.random.uniform(key, mask.shape, jnp.float32)

        # One order for all: images in random order, then padding.
        main = jnp.argsort(jnp.where(mask, draw(keys[0]), 2))
        main = main % len(batch["mask"])
        num_drawn = jnp.round((1 - self.repetition) * count)

        def of_member(key: jax.Array) -> jax.Array:
            # Places that are not drawn have values above 1 that keep their order.
            values = jnp.where(places < num_drawn, draw(key), 1.0 + places)
            return main[jnp.argsort(values)]

        orders = jax.vmap(of_member)(keys[1:])
        images = jnp.take(batch["image"], orders, axis=0)  # [M, B', H, W, 3]
        joined = jnp.concatenate(list(images), axis=-1)
        arranged = {
            name: jnp.take(value, orders, axis=0)
            for name, value in batch.items()
            if name not in ("image", "mask")
        }
        arranged |= {"image": joined, "mask": places < count}
        return Arranged(arranged, orders[0])
