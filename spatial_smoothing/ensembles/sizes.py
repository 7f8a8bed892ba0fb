"""Ensembles of every size from one pass: the first N of S samples are one of size N.

Contract of this file: the samples of an ensemble lie along the first axis, S; averages
are of probabilities, in at least float32.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def prefix_means(probs: jax.Array, *, sizes: Sequence[int]) -> jax.Array:
    """Means of the first N samples, for all N at once.

    Args:
      probs: f[S, B, ..., K], class probabilities of S samples.
      sizes: Increasing ensemble sizes N, in [1, S].

    Returns:
      f32[len(sizes), B, ..., K].

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
      log_probs: f[S, B, ..., K], log-probabilities of S samples.
      sizes: Increasing ensemble sizes N, in [1, S].

    Returns:
      f32[len(sizes), B, ..., K]; finite wherever one of the samples is.

    Raises:
      ValueError: for sizes that do not increase or lie outside [1, S].
    """
    wide = log_probs.astype(jnp.promote_types(log_probs.dtype, jnp.float32))
    total, means = -jnp.inf, []
    for start, stop in segments(sizes, len(log_probs)):
        part = jax.nn.logsumexp(wide[start:stop], axis=0)
        total = jnp.logaddexp(total, part)
        # Rounding may leave the mean of certain predictions slightly above log 1.
        means.append(jnp.minimum(total - jnp.log(float(stop)), 0))
    return jnp.stack(means)


def segments(sizes: Sequence[int], num_samples: int) -> list[tuple[int, int]]:
    """Returns which samples each size adds to the size before it.

    Args:
      sizes: Increasing ensemble sizes N, in [1, S].
      num_samples: Number of samples S.

    Returns:
      A pair (start, stop) for each size.

    Raises:
      ValueError: for sizes that do not increase or lie outside [1, S].
    """
    edges = [0, *(int(size) for size in sizes)]
    segments = list(itertools.pairwise(edges))
    if not segments or any(start >= stop for start, stop in segments):
        raise ValueError(f"sizes must be at least 1 and increase, got {tuple(sizes)}")
    if edges[-1] > num_samples:
        raise ValueError(
            f"an ensemble of size {edges[-1]} needs as many samples, got {num_samples}"
        )
    return segments
