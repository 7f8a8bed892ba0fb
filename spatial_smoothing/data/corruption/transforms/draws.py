"""Random numbers, drawn flat.

They are those of `jax.random`; but XLA takes three times as long to compile a draw of
two or three dimensions as one of a single dimension, and here are many to compile.
"""

import math

import jax


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns standard normal numbers, f32 of this shape."""
    return jax.random.normal(key, (math.prod(shape),)).reshape(shape)


def uniform(
    key: jax.Array, shape: tuple[int, ...], *, low: float = 0.0, high: float = 1.0
) -> jax.Array:
    """Returns uniform numbers in [low, high), f32 of this shape."""
    flat = jax.random.uniform(key, (math.prod(shape),), minval=low, maxval=high)
    return flat.reshape(shape)
