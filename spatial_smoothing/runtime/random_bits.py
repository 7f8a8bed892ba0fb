"""PRNG keys that no setting of the process changes, and random bits drawn fast.

Contract of this file: results are those of `jax.random` with threefry, JAX's default
generator, bit for bit. On CPUs JAX draws these bits in rolled loops, which pass over
memory twenty times. Here the rounds are written out, so that the compiler fuses them
with the operation that uses the bits.
"""

import math
from collections.abc import Sequence

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

# Rotation distances of Threefry-2x32, in alternating groups of four rounds.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA  # the constant of the key schedule
_THREEFRY = jax.extend.random.threefry_prng_impl
_NUM_SEEDS = 2**32


def check_seed(seed: int, *, name: str = "seed") -> None:
    """Raises ValueError unless a seed is an integer in [0, 2**32).

    JAX keeps the lowest 32 bits of a seed where 64-bit types are off: 2**32 + 1 would
    silently be 1.

    Args:
      seed: The seed.
      name: What the caller calls it, for the message.
    """
    if not 0 <= seed < _NUM_SEEDS:
        raise ValueError(
            f"{name} must be in [0, {_NUM_SEEDS}), got {seed}; choose a smaller one"
        )


def key(seed: int) -> jax.Array:
    """Returns a PRNG key that is the same whatever the process is set to.

    `jax.random.key` follows `jax_default_prng_impl`: with another generator than
    threefry, a run that continues would draw other numbers than before.

    Args:
      seed: Seed in [0, 2**32).

    Raises:
      ValueError: if the seed is out of range.
    """
    check_seed(seed)
    return jax.random.key(seed, impl="threefry2x32")


def fused(key: jax.Array) -> jax.Array:
    """Returns a key from which the same numbers are drawn, several times faster.

    Args:
      key: PRNG key. One that is not of threefry is returned as it is, and so is any
        where `jax_threefry_partitionable` is off, which gives other bits.

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
    # Each number is the encryption of its own index, as partitionable threefry has it:
    # the high word of the index is zero, the low word is counted along the axes. With
    # a product for each axis, a GPU would have a kernel for each of them.
    index = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        position = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        index = index * np.uint32(size) + position
    first, second = _threefry(key, jnp.zeros_like(index), index)
    return first ^ second


def _threefry(
    key: jax.Array, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Encrypts the counters (x, y), u32, with a key u32[2]: Threefry-2x32-20."""
    words = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(_PARITY))
    x, y = x + words[0], y + words[1]
    for group in range(5):  # of four rounds each, with a key word added after each
        for distance in _ROTATIONS[group % 2]:
            x = x + y
            y = (y << np.uint32(distance)) | (y >> np.uint32(32 - distance))
            y = x ^ y
        x = x + words[(group + 1) % 3]
        y = y + words[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


# A generator is registered once; its name is what `jax.random.key_impl` shows.
_FUSED = jax.extend.random.define_prng_impl(
    key_shape=_THREEFRY.key_shape,
    seed=_THREEFRY.seed,
    split=_THREEFRY.split,
    random_bits=_bits,
    fold_in=_THREEFRY.fold_in,
    name="fused_threefry2x32",
    tag="fused",
)
