"""Noise: each value of the image changes independently of the others.

Contract of this file: functions of (key, image f32[H, W, C] in [0, 1], constants) to an
image that the caller clips to [0, 1].
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.data.corruption.transforms import draws, linear


def gaussian_noise(key: jax.Array, image: jax.Array, sigma: float) -> jax.Array:
    """Adds normal noise of standard deviation `sigma`, in units of the image."""
    return image + sigma * draws.normal(key, image.shape)


def speckle_noise(key: jax.Array, image: jax.Array, sigma: float) -> jax.Array:
    """Adds normal noise of standard deviation `sigma` times the value."""
    return image + image * sigma * draws.normal(key, image.shape)


def impulse_noise(key: jax.Array, image: jax.Array, amount: float) -> jax.Array:
    """Replaces the share `amount` of the values, half of them by 1 and half by 0."""
    draw = draws.uniform(key, image.shape)
    return jnp.where(draw < amount, (draw < amount / 2).astype(image.dtype), image)


def shot_noise(key: jax.Array, image: jax.Array, photons: int) -> jax.Array:
    """Draws Poisson(photons * value) / photons; values are multiples of 1/255.

    Poisson numbers are slow to draw by rejection. With 256 possible means they come
    from tables, one uniform number each, by Walker's alias method.

    Args:
      key: Key of the random numbers.
      image: f32[H, W, C] in [0, 1], multiples of 1/255.
      photons: Mean count of a value of 1, at least 1.
    """
    level = jnp.round(255 * image.ravel()).astype(jnp.int32)
    # One uniform number gives both a slot of the table and the share that decides
    # whether the slot's own count or its alias is taken.
    slot_and_share = (photons + 1) * draws.uniform(key, (image.size,))
    slot = slot_and_share.astype(jnp.int32)
    tables = poisson_tables(photons)
    keep, alias = (linear.entries(table, level, slot) for table in tables)
    kept = slot_and_share - slot.astype(jnp.float32) < keep
    count = jnp.where(kept, slot.astype(jnp.float32), alias)
    return count.reshape(image.shape) / photons


@functools.cache
def poisson_tables(photons: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns alias tables, one row per grey level, as `_alias_table` makes them.

    Args:
      photons: Mean count of the grey level 255. All counts above are one entry, because
        they give the same image.

    Returns:
      Shares and aliases, both f32[256, photons + 1].
    """
    counts = np.arange(photons)
    log_factorial = np.array([math.lgamma(count + 1) for count in counts])
    keep = np.ones((256, photons + 1), np.float32)
    alias = np.zeros((256, photons + 1), np.float32)
    for level in range(1, 256):
        mean = photons * level / 255
        below = np.exp(counts * math.log(mean) - mean - log_factorial)
        masses = np.append(below, max(0.0, 1 - below.sum()))
        keep[level], alias[level] = _alias_table(masses / masses.sum())
    keep[0] = 0  # every slot of the grey level 0 leads to its alias, the count 0
    return keep, alias


def _alias_table(masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Makes the table of Walker's alias method for a distribution of n values.

    A slot drawn uniformly gives its own number with probability `keep[slot]`, and the
    number `alias[slot]` otherwise.

    Args:
      masses: [n], probabilities of 0 to n - 1.

    Returns:
      `keep` f64[n] in [0, 1], and `alias` i64[n].

    Source: Walker (1977); construction of Vose (1991).
    """
    share = (masses * len(masses)).tolist()
    alias = list(range(len(masses)))
    small = [i for i, value in enumerate(share) if value < 1]
    large = [i for i, value in enumerate(share) if value >= 1]
    keep = np.ones(len(masses))
    while small and large:
        # The slot that is not full is filled up from one that has more than it holds.
        low, high = small.pop(), large[-1]
        keep[low], alias[low] = share[low], high
        share[high] -= 1 - share[low]
        if share[high] < 1:
            small.append(large.pop())
    return keep, np.array(alias)
