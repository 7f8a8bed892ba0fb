"""Monte Carlo dropout: samples of one network's predictions.

Contract of this file: `images` are f32[B, H, W, 3], normalised; samples lie along the
first axis, S.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spatial_smoothing.models.network import Network
from spatial_smoothing.runtime import random_bits

Variables = Mapping[str, Any]
CHUNK = 10  # samples at once, by default
CPU_CHUNK = 1  # the same on CPUs, whose caches are small


def mc_logits(
    key: jax.Array,
    model: nn.Module,
    variables: Variables,
    images: jax.Array,
    *,
    num_samples: int = 50,
    chunk: int | None = None,
) -> jax.Array:
    """Logits of `num_samples` passes with independent dropout.

    Vectorised over keys with shared parameters: a chunk of samples is one batch to the
    network. Sample i depends on (key, i) alone, neither on `num_samples` nor `chunk`.

    Args:
      key: Key of the dropout masks.
      model: A module whose dropout is live when given an rng named "dropout".
      variables: Its variables.
      images: f32[B, H, W, 3].
      num_samples: S, at least 1.
      chunk: Samples computed at once; peak memory grows with it, not with S. None for
        10, or on CPUs, whose caches are small, 1.

    Returns:
      f32[S, B, K].

    Raises:
      ValueError: if `num_samples` or `chunk` is less than 1.
    """
    chunk = checked_chunk(chunk, num_samples)
    keys = sample_keys(key, jnp.arange(num_samples))
    sample = sampler(model, variables, images)
    return jax.lax.map(sample, keys, batch_size=chunk)


def mc_dropout(
    key: jax.Array,
    model: nn.Module,
    variables: Variables,
    images: jax.Array,
    *,
    num_samples: int = 50,
    chunk: int | None = None,
) -> jax.Array:
    """Class probabilities of Monte Carlo dropout samples; arguments as `mc_logits`.

    Returns:
      f32[S, B, K]. Source: Gal & Ghahramani, ICML 2016.
    """
    return jax.nn.softmax(
        mc_logits(key, model, variables, images, num_samples=num_samples, chunk=chunk)
    )


def sampler(
    model: nn.Module, variables: Variables, images: jax.Array
) -> Callable[[jax.Array], jax.Array]:
    """Returns a function of a key to the logits of one sample, f32[B, K].

    What is the same for all samples is computed here, once. Arguments as `mc_logits`.
    """
    half = {}
    if isinstance(model, Network):
        images, half = model.apply(variables, images, half="fixed"), {"half": "random"}

    def sample(key: jax.Array) -> jax.Array:
        return model.apply(
            variables,
            images,
            train=False,
            rngs={"dropout": random_bits.fused(key)},
            **half,
        )

    return sample


def sample_keys(key: jax.Array, indices: jax.Array) -> jax.Array:
    """Returns the keys of samples, by their numbers i32[S]."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(indices)


def checked_chunk(chunk: int | None, num_samples: int) -> int:
    """Returns how many samples to compute at once; see `mc_logits`."""
    if chunk is None:
        chunk = CPU_CHUNK if jax.default_backend() == "cpu" else CHUNK
    for name, value in (("num_samples", num_samples), ("chunk", chunk)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    return min(chunk, num_samples)
