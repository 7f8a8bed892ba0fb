"""Ensembles of predictions: Monte Carlo dropout, deep ensembles, every size at once.

Contract of this file: `images` are f32[B, H, W, 3], normalised; the members of an
ensemble lie along the first axis, S; averages are of probabilities, in at least
float32. The mean of the first N of S samples is the ensemble of size N, so that all
sizes come from one pass.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spatial_smoothing import draws
from spatial_smoothing.models.network import Network

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
            variables, images, train=False, rngs={"dropout": draws.fused(key)}, **half
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


def deep_ensemble(
    model: nn.Module,
    stacked_variables: Variables,
    images: jax.Array,
    *,
    key: jax.Array | None = None,
) -> jax.Array:
    """Class probabilities of each member of a deep ensemble.

    Args:
      model: The network that all members share.
      stacked_variables: Variables with a leading axis of M members; see `stack`.
      images: f32[B, H, W, 3].
      key: Key of one dropout sample of each member; None for the mean networks.

    Returns:
      f32[M, B, K]. Source: Lakshminarayanan et al., NeurIPS 2017.
    """

    def member(variables: Variables, index: jax.Array) -> jax.Array:
        rngs = {}
        if key is not None:
            rngs["dropout"] = draws.fused(jax.random.fold_in(key, index))
        return model.apply(variables, images, train=False, rngs=rngs)

    return jax.nn.softmax(map_members(member, stacked_variables))


def map_members(function: Callable[[Variables, jax.Array], Any], stacked: Variables):
    """Stacks `function(variables, index)` of all members.

    Members are looped over, not vectorised: a convolution with a kernel for each member
    would become a grouped one, which XLA runs more slowly.
    """
    count = jax.tree.leaves(stacked)[0].shape[0]
    return jax.lax.map(lambda args: function(*args), (stacked, jnp.arange(count)))


def stack(variables: Sequence[Variables]) -> Variables:
    """Stacks the variables of members along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)


@jax.jit
def unstack(stacked: Variables) -> list[Variables]:
    """Returns the variables of each member."""
    count = jax.tree.leaves(stacked)[0].shape[0]
    return [jax.tree.map(lambda leaf, m=m: leaf[m], stacked) for m in range(count)]


def prefix_means(probs: jax.Array, *, sizes: Sequence[int]) -> jax.Array:
    """Means of the first N samples, for all N at once.

    Args:
      probs: f[S, B, K], probabilities.
      sizes: Increasing ensemble sizes N, in [1, S].

    Returns:
      f32[len(sizes), B, K].

    Raises:
      ValueError: for sizes that do not increase or lie outside [1, S].
    """
    wide = probs.astype(jnp.promote_types(probs.dtype, jnp.float32))
    total, means = 0.0, []
    for start, stop in segments(sizes, len(probs)):
        total = total + wide[start:stop].sum(0)
        means.append(total / stop)
    return jnp.stack(means)


def prefix_log_means(log_probs: jax.Array, *, sizes: Sequence[int]) -> jax.Array:
    """Logarithms of `prefix_means`, without underflow: a log-mean-exp.

    Args:
      log_probs: f[S, B, K], log-probabilities.
      sizes: As in `prefix_means`.

    Returns:
      f32[len(sizes), B, K]; finite wherever one of the samples is.
    """
    wide = log_probs.astype(jnp.promote_types(log_probs.dtype, jnp.float32))
    total, means = -jnp.inf, []
    for start, stop in segments(sizes, len(log_probs)):
        part = jax.nn.logsumexp(wide[start:stop], axis=0)
        total = jnp.logaddexp(total, part)
        means.append(total - jnp.log(float(stop)))
    return jnp.stack(means)


def segments(sizes: Sequence[int], num_samples: int) -> list[tuple[int, int]]:
    """Returns what each size adds to the one before it, as (start, stop)."""
    edges = [0, *(int(size) for size in sizes)]
    segments = list(itertools.pairwise(edges))
    if not segments or any(start >= stop for start, stop in segments):
        raise ValueError(f"sizes must be at least 1 and increase, got {tuple(sizes)}")
    if edges[-1] > num_samples:
        raise ValueError(
            f"an ensemble of size {edges[-1]} needs as many samples, got {num_samples}"
        )
    return segments
