"""Random masks, drawn where they are used.

Contract of this file: results are those of `jax.random`, bit for bit. On CPUs the
library draws its bits in rolled loops, which pass over memory twenty times; here the
rounds are written out, so that the compiler fuses them with what the mask is for.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_MANTISSA = 23  # bits of a float32 that are random in a uniform number


def bernoulli(key: jax.Array, p: float, shape: Sequence[int]) -> jax.Array:
    """Draws True with probability `p`: `jax.random.bernoulli`, several times faster.

    Args:
      key: A key. Others than of threefry, JAX's default, are left to `jax.random`.
      p: In [0, 1], rounded to float32.
      shape: Of the result.

    Returns:
      bool[*shape]. Source of the bits: Salmon et al., "Parallel Random Numbers: As
      Easy as 1, 2, 3", SC 2011.
    """
    shape = tuple(shape)
    if not _is_ours(key, shape):
        return jax.random.bernoulli(key, np.float32(p), shape)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    index = sum(
        jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride)
        for axis, stride in enumerate(strides)
    )
    first, second = _threefry(jax.random.key_data(key), jnp.zeros_like(index), index)
    bits = (first ^ second) >> np.uint32(32 - _MANTISSA)
    return bits < np.uint32(math.ceil(np.float32(p) * 2.0**_MANTISSA))


def _is_ours(key: jax.Array, shape: Sequence[int]) -> bool:
    threefry = str(jax.random.key_impl(key)) == "threefry2x32"
    countable = len(shape) > 0 and math.prod(shape) < 2**32
    return threefry and countable and jax.config.jax_threefry_partitionable


def _threefry(
    key: jax.Array, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Encrypts the counters (x, y), u32, with a key u32[2]: Threefry-2x32-20."""
    words = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x, y = x + words[0], y + words[1]
    for turn in range(5):
        for distance in _ROTATIONS[turn % 2]:
            x = x + y
            y = (y << np.uint32(distance)) | (y >> np.uint32(32 - distance))
            y = x ^ y
        x = x + words[(turn + 1) % 3]
        y = y + words[(turn + 2) % 3] + np.uint32(turn + 1)
    return x, y
