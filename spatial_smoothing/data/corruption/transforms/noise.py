"""Noise: each value of the image changes on its own.

Contract of this file: functions of (key, image f32[H, W, C] in [0, 1], constants) to an
image that the caller clips to [0, 1].
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.data.corruption.transforms import draws


def gaussian_noise(key: jax.Array, image: jax.Array, sigma: float) -> jax.Array:
    """Adds normal noise of standard deviation `sigma`."""
    return image + sigma * draws.normal(key, image.shape)


def speckle_noise(key: jax.Array, image: jax.Array, sigma: float) -> jax.Array:
    """Adds normal noise of standard deviation `sigma` times the value."""
    return image + image * sigma * draws.normal(key, image.shape)


def impulse_noise(key: jax.Array, image: jax.Array, amount: float) -> jax.Array:
    """Replaces a share of the values, half of them by 1 and half by 0."""
    draw = draws.uniform(key, image.shape)
    return jnp.where(draw < amount, (draw < amount / 2).astype(image.dtype), image)


def shot_noise(key: jax.Array, image: jax.Array, photons: int) -> jax.Array:
    """Draws Poisson(photons * value) / photons; values are multiples of 1/255.

    Poisson numbers are slow to draw by rejection. With 256 possible means they come
    from tables, one uniform number each, by Walker's alias method.
    """
    keep, alias = _poisson_tables(photons)
    level = jnp.round(255 * image).astype(int)
    slot_and_rest = (photons + 1) * draws.uniform(key, image.shape)
    slot = slot_and_rest.astype(int)
    entry = level * (photons + 1) + slot
    kept = slot_and_rest - slot < jnp.asarray(keep)[entry]
    count = jnp.where(kept, slot, jnp.asarray(alias)[entry])
    return count.astype(image.dtype) / photons


@functools.cache
def _poisson_tables(photons: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns alias tables f32 and i32 [256 * (photons + 1)], one row per grey level.

    A count above `photons` is the same to the image as `photons`.
    """
    counts = np.arange(photons)
    log_factorial = np.array([math.lgamma(count + 1) for count in counts])
    keep = np.ones((256, photons + 1), np.float32)
    alias = np.zeros((256, photons + 1), np.int32)
    for level in range(1, 256):
        mean = photons * level / 255
        below = np.exp(counts * math.log(mean) - mean - log_factorial)
        masses = np.append(below, max(0.0, 1 - below.sum()))
        keep[level], alias[level] = _alias_table(masses / masses.sum())
    keep[0] = 0  # every slot of the mean 0 leads to its alias, the count 0
    return keep.ravel(), alias.ravel()


def _alias_table(masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each of n slots the share that is its own and who has the rest.

    Source: Walker (1977); construction of Vose (1991).
    """
    share = (masses * len(masses)).tolist()
    owner = list(range(len(masses)))
    small = [i for i, value in enumerate(share) if value < 1]
    large = [i for i, value in enumerate(share) if value >= 1]
    keep = np.ones(len(masses))
    while small and large:
        low, high = small.pop(), large[-1]
        keep[low], owner[low] = share[low], high
        share[high] -= 1 - share[low]
        if share[high] < 1:
            small.append(large.pop())
    return keep, np.array(owner)
