"""Monte Carlo dropout: samples of one network's predictions.

Contract of this file: samples lie along the first axis, S. Sample number i depends on
the key and i alone: neither on how many samples there are, nor on how many of them are
computed at once.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from spatial_smoothing.ensembles.apply import (
    ApplyFunction,
    Variables,
    as_apply,
    check_stochastic,
    variables_of,
)

CHUNK = 10  # samples computed at once, by default
CPU_CHUNK = 1  # the same on CPUs, whose caches are small


def mc_logits(
    key: jax.Array,
    model: Any,
    variables: Variables,
    images: jax.Array,
    *,
    num_samples: int = 50,
    chunk: int | None = None,
    apply_kwargs: Mapping[str, Any] | None = None,
) -> jax.Array:
    """Logits of `num_samples` passes with independent dropout masks.

    The passes are vectorised over keys with shared parameters: a chunk of samples is
    one batch to the network.

    Args:
      key: Key of the dropout masks.
      model: A Linen module, an NNX module, or a function `(variables, images, key) ->
        logits`; see `as_apply`.
      variables: Variables of the network, such as `{"params", "batch_stats"}`; None for
        those of an NNX module itself.
      images: f[B, H, W, C], as the network takes them.
      num_samples: Number of samples S, at least 1.
      chunk: Number of samples computed at once, at least 1. Peak memory grows with
        `chunk` and not with S. None for 10, or on CPUs, whose caches are small, 1.
      apply_kwargs: Further arguments of each call of a module.

    Returns:
      f32[S, B, ..., K]; of a network that makes M predictions in a pass, f32[S M, B,
      ..., K], pass by pass.

    Raises:
      ValueError: if `num_samples` or `chunk` is less than 1, or if all samples would be
        equal because the dropout of the model is off.
    """
    chunk = checked_chunk(chunk, num_samples)
    if getattr(images, "shape", ())[:1] == (0,):
        chunk = None  # `jax.lax.map` cannot join chunks of nothing
    network, variables = _checked(key, model, variables, images, apply_kwargs)
    keys = sample_keys(key, jnp.arange(num_samples))
    sample = sampler(network, variables, images)
    logits = jax.lax.map(sample, keys, batch_size=chunk)
    # Networks may compute in fewer bits than a mean of probabilities takes.
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if network.has_members:
        return logits.reshape(-1, *logits.shape[2:])
    return logits


def mc_dropout(
    key: jax.Array,
    model: Any,
    variables: Variables,
    images: jax.Array,
    *,
    num_samples: int = 50,
    chunk: int | None = None,
    apply_kwargs: Mapping[str, Any] | None = None,
) -> jax.Array:
    """Class probabilities of Monte Carlo dropout samples.

    Args:
      key: Key of the dropout masks.
      model: A Linen module, an NNX module, or a function `(variables, images, key) ->
        logits`; see `as_apply`.
      variables: Variables of the network; None for those of an NNX module itself.
      images: f[B, H, W, C], as the network takes them.
      num_samples: Number of samples S, at least 1.
      chunk: Number of samples computed at once; see `mc_logits`.
      apply_kwargs: Further arguments of each call of a module.

    Returns:
      f32[S, B, ..., K], or f32[S M, B, ..., K] of a network that makes M predictions in
      a pass; the probabilities of a sample sum to one over K.

    Raises:
      ValueError: as `mc_logits`.

    Source: Gal & Ghahramani, ICML 2016.
    """
    logits = mc_logits(
        key,
        model,
        variables,
        images,
        num_samples=num_samples,
        chunk=chunk,
        apply_kwargs=apply_kwargs,
    )
    return jax.nn.softmax(logits)


def sampler(
    model: Any, variables: Variables, images: jax.Array
) -> Callable[[jax.Array], jax.Array]:
    """Returns a function of a key to the logits of one sample.

    What is the same for all samples is computed here, once.

    Args:
      model: A network; see `as_apply`.
      variables: Variables of the network.
      images: f[B, H, W, C], as the network takes them.

    Returns:
      A function of a key to f[B, ..., K], or to f[M, B, ..., K] of a network that makes
      M predictions in a pass.
    """
    network = as_apply(model)
    if network.precomputed is not None:
        variables = network.precomputed(variables, images)
    if network.deterministic_part is None or network.stochastic_part is None:
        return lambda key: network.apply(variables, images, key)
    features = network.deterministic_part(variables, images)
    return lambda key: network.stochastic_part(variables, features, key)


def sample_keys(key: jax.Array, indices: jax.Array) -> jax.Array:
    """Returns the keys of samples.

    Args:
      key: Key of all samples.
      indices: i32[S], the numbers of the samples.

    Returns:
      S keys of threefry, whatever the implementation of `key`: random bits of "rbg" and
      "unsafe_rbg" are others where they are drawn for several keys at once, so that
      samples would depend on the chunk.
    """
    if str(jax.random.key_impl(key)) not in ("threefry2x32", "fused_threefry2x32"):
        bits = jax.random.bits(key, (2,), jnp.uint32)
        key = jax.random.wrap_key_data(bits, impl="threefry2x32")
    return jax.vmap(functools.partial(jax.random.fold_in, key))(indices)


def checked_chunk(chunk: int | None, num_samples: int) -> int:
    """Returns how many samples to compute at once.

    Args:
      chunk: What was asked for; None for what suits the device.
      num_samples: Number of samples, which the result does not exceed.

    Raises:
      ValueError: if one of them is less than 1.
    """
    if chunk is None:
        chunk = CPU_CHUNK if jax.default_backend() == "cpu" else CHUNK
    for name, value in (("num_samples", num_samples), ("chunk", chunk)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    return min(chunk, num_samples)


def _checked(
    key: jax.Array,
    model: Any,
    variables: Variables,
    images: jax.Array,
    apply_kwargs: Mapping[str, Any] | None = None,
) -> tuple[ApplyFunction, Variables]:
    """The pure function of a network that is to be sampled, and its variables."""
    network = as_apply(model, apply_kwargs=apply_kwargs)
    variables = variables_of(model, variables)
    check_stochastic(network, variables, images, key)
    return network, variables
