"""Uncertainty of single predictions.

Contract of this file: `probs` are class probabilities, each row sums to one; entropies
are in nats; high is uncertain everywhere. Results have at least float32. NaN gives NaN.
Rows that are no probabilities are refused, see `inputs`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.metrics.inputs import (
    Values,
    check_probs,
    checked_temperature,
    class_labels,
    clipped,
    widened,
)
from spatial_smoothing.metrics.scores import of_label


def entropy(probs: Values) -> jax.Array:
    """Entropy -sum p log p of each prediction: of a mean, the total uncertainty.

    Args:
      probs: f[..., K].

    Returns:
      f[...], in [0, log K] nats.

    Raises:
      ValueError: for rows that are no probabilities.
    """
    check_probs(probs)
    return _entropy(clipped(probs))


def mutual_information(probs: Values) -> jax.Array:
    """Disagreement of samples: H(mean p_s) - mean H(p_s), "BALD".

    Args:
      probs: f[S, B, K], of S samples or members.

    Returns:
      f[B], in [0, log min(S, K)] nats; rounding does not make it negative. Source:
      Houlsby et al. 2011, equation 2.

    Raises:
      ValueError: for another rank, or rows that are no probabilities.
    """
    _check_samples(probs)
    check_probs(probs)
    probs = clipped(probs)
    return jnp.maximum(_entropy(probs.mean(0)) - _entropy(probs).mean(0), 0)


def variation_ratio(probs: Values) -> jax.Array:
    """Share of the samples that do not vote for the most voted class.

    Args:
      probs: [S, B, K]; a sample votes for its most probable class, the lowest of equal
        ones, so that logits will do.

    Returns:
      f[B], in [0, 1). Source: Freeman 1965.

    Raises:
      ValueError: for another rank.
    """
    _check_samples(probs)
    probs = jnp.asarray(probs)
    votes = jax.nn.one_hot(probs.argmax(-1), probs.shape[-1], dtype=jnp.float32)
    ratio = 1 - votes.mean(0).max(-1)
    return jnp.where(jnp.isnan(probs).any((0, 2)), jnp.nan, ratio)


def disagreement(votes: Values) -> jax.Array:
    """Chance that two different members of an ensemble vote for different classes.

    Args:
      votes: f[..., K], number of members that vote for each class.

    Returns:
      f[...], in [0, 1]; NaN for fewer than two members. Source: Skalak 1996; Kuncheva &
      Whitaker 2003, section 3.
    """
    votes = widened(votes)
    size = votes.sum(-1)
    # Of all ordered pairs of different members, those that vote alike.
    alike = (votes * (votes - 1)).sum(-1)
    pairs = jnp.where(size > 1, size * (size - 1), jnp.nan)
    return 1 - alike / pairs


def ambiguity(
    mean_log_probs: Values, log_mean_probs: Values, labels: Values
) -> jax.Array:
    """Mean NLL of the members of an ensemble minus the NLL of their mean.

    It is what averaging gains on each example, in nats.

    Args:
      mean_log_probs: f[..., K], mean over members of their log-probabilities.
      log_mean_probs: f[..., K], logarithm of the mean of their probabilities.
      labels: i32[...].

    Returns:
      f[...], at least 0 but for rounding; NaN for a label outside [0, K). Source: Krogh
      & Vedelsby, NeurIPS 1994; Wood et al. 2023, section 4.
    """
    gain = widened(log_mean_probs) - widened(mean_log_probs)
    return of_label(gain, class_labels(labels))


def energy(logits: Values, *, temperature: float = 1.0) -> jax.Array:
    """Free energy -t log sum exp(logits / t); high for what the network knows little.

    Args:
      logits: f[..., K], as the network gives them: of log-probabilities it is 0.
      temperature: t, positive and finite.

    Returns:
      f[...]. Source: Liu et al., NeurIPS 2020, equation 4.

    Raises:
      ValueError: for a temperature that is not positive and finite.
    """
    logits = widened(logits)
    t = checked_temperature(temperature, logits.dtype)
    return -t * jax.nn.logsumexp(logits / t, axis=-1)


def _entropy(probs: jax.Array) -> jax.Array:
    return jax.scipy.special.entr(probs).sum(-1)


def _check_samples(probs: Values) -> None:
    if np.ndim(probs) != 3:
        raise ValueError(
            f"samples must be [S, B, K], got shape {list(np.shape(probs))}; of one "
            "sample, give probs[None]"
        )
