"""Random numbers, drawn flat, in float32.

The numbers are those of `jax.random`, but XLA takes three times as long to compile a
draw of two or three dimensions as one of a single dimension, and the corruptions have
many to compile. The type is given explicitly, so that JAX_ENABLE_X64 changes nothing.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns standard normal numbers, f32[*shape]."""
    return jax.random.normal(key, (math.prod(shape),), jnp.float32).reshape(shape)


def uniform(
    key: jax.Array, shape: tuple[int, ...], *, low: float = 0.0, high: float = 1.0
) -> jax.Array:
    """Returns uniform numbers in [low, high), f32[*shape]."""
    bounds = {"minval": np.float32(low), "maxval": np.float32(high)}
    flat = jax.random.uniform(key, (math.prod(shape),), jnp.float32, **bounds)
    return flat.reshape(shape)
