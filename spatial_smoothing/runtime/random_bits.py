"""Random bits, drawn where they are used.

Contract of this file: results are those of `jax.random`, bit for bit. On CPUs the
library draws its bits in rolled loops, which pass over memory twenty times; here the
rounds are written out, so that the compiler fuses them with what the bits are for.
"""

import math
from collections.abc import Sequence

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_THREEFRY = jax.extend.random.threefry_prng_impl


def fused(key: jax.Array) -> jax.Array:
    """Returns a key from which the same numbers are drawn, several times faster.

    Args:
      key: Of threefry, JAX's default; any other is returned as it is.

    Source of the bits: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3",
    SC 2011.
    """
    threefry = str(jax.random.key_impl(key)) == "threefry2x32"
    if not threefry or not jax.config.jax_threefry_partitionable:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_FUSED)


def _bits(key: jax.Array, width: int, shape: Sequence[int]) -> jax.Array:
    """Draws u32[*shape] from a key u32[2]; other widths as threefry draws them."""
    if width != 32 or not shape or math.prod(shape) >= 2**32:
        return _THREEFRY.random_bits(key, width, shape)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    index = sum(
        jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride)
        for axis, stride in enumerate(strides)
    )
    first, second = _threefry(key, jnp.zeros_like(index), index)
    return first ^ second


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


_FUSED = jax.extend.random.define_prng_impl(
    key_shape=_THREEFRY.key_shape,
    seed=_THREEFRY.seed,
    split=_THREEFRY.split,
    random_bits=_bits,
    fold_in=_THREEFRY.fold_in,
    name="fused_threefry2x32",
    tag="fused",
)
