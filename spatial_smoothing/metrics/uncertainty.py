"""Uncertainty of single predictions.

Contract of this file: `probs` are class probabilities, each row sums to one; entropies
are in nats; high is uncertain everywhere. NaN gives NaN.
"""

import chex
import jax
import jax.numpy as jnp


def entropy(probs: jax.Array) -> jax.Array:
    """Entropy -sum p log p, in [0, log K] nats: of a mean, the total uncertainty.

    Args:
      probs: f[..., K].

    Returns:
      f[...].
    """
    return jax.scipy.special.entr(probs).sum(-1)


def mutual_information(probs: jax.Array) -> jax.Array:
    """Disagreement of samples, H(mean p_s) - mean H(p_s), in [0, log min(S, K)] nats.

    Args:
      probs: f[S, B, K], of S samples or members.

    Returns:
      f[B], which rounding does not make negative. Source: Houlsby et al. 2011,
      equation 2; "BALD".
    """
    chex.assert_rank(probs, 3)
    return jnp.maximum(entropy(probs.mean(0)) - entropy(probs).mean(0), 0)


def variation_ratio(probs: jax.Array) -> jax.Array:
    """Share of the samples that do not vote for the most voted class, in [0, 1).

    Args:
      probs: f[S, B, K]; a sample votes for its most probable class, the lowest of
        equal ones.

    Returns:
      f[B]. Source: Freeman 1965.
    """
    chex.assert_rank(probs, 3)
    votes = jax.nn.one_hot(probs.argmax(-1), probs.shape[-1], dtype=probs.dtype)
    ratio = 1 - votes.mean(0).max(-1)
    return jnp.where(jnp.isnan(probs).any((0, 2)), jnp.nan, ratio)


def energy(logits: jax.Array, *, temperature: float = 1.0) -> jax.Array:
    """Free energy -t log sum exp(logits / t); high for what the network knows little.

    Args:
      logits: f[..., K], as the network gives them: of log-probabilities it is 0.
      temperature: t > 0.

    Returns:
      f[...]. Source: Liu et al., NeurIPS 2020, equation 4.
    """
    return -temperature * jax.nn.logsumexp(logits / temperature, axis=-1)
