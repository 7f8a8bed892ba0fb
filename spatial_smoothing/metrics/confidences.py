"""Confidences of predictions, from logits and probabilities.

Contract of this file: `logits` and `log_probs` are f[..., K]; a confidence is f[...] in
at least float32, and high for certain, so that its negative is the score by which
out-of-distribution (OOD) examples are detected. NaN gives NaN. Names and constants are
those of OpenOOD v1.5 (Zhang et al. 2023). The free energy and the entropy, which are
uncertainties, are in `uncertainty`.
"""

import jax
import jax.numpy as jnp

from spatial_smoothing.metrics.inputs import (
    Values,
    check_log_probs,
    checked_temperature,
    clipped_logs,
    widened,
)

GAMMA = 0.1  # of `generalised_entropy`
ODIN_TEMPERATURE = 1000.0


def max_probability(log_probs: Values) -> jax.Array:
    """Probability of the most probable class (MSP).

    Args:
      log_probs: f[..., K], log-probabilities.

    Returns:
      f[...], in [1 / K, 1]. Source: Hendrycks & Gimpel, ICLR 2017.

    Raises:
      ValueError: for rows that are no logarithms of probabilities.
    """
    check_log_probs(log_probs)
    return jnp.exp(clipped_logs(log_probs).max(-1))


def max_logit(logits: Values) -> jax.Array:
    """Largest logit (MLS).

    Args:
      logits: f[..., K], as the network gives them.

    Returns:
      f[...]. Source: Hendrycks et al., ICML 2022.
    """
    return widened(logits).max(-1)


def generalised_entropy(
    log_probs: Values, *, gamma: float | jax.Array = GAMMA, top: int = 100
) -> jax.Array:
    """Minus the generalised entropy (GEN): -sum p^g (1 - p)^g.

    Args:
      log_probs: f[..., K], log-probabilities.
      gamma: f[], the exponent g, positive.
      top: M, how many of the most probable classes the sum is over; all if there are
        fewer.

    Returns:
      f[...], at most 0. Source: Liu et al., CVPR 2023, equation 2.

    Raises:
      ValueError: if `top` is less than 1, or for rows that are no logarithms of
        probabilities.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    check_log_probs(log_probs)
    log_probs = clipped_logs(log_probs)
    # 1 - p of the most probable class is the sum of the others. As a difference it
    # would round to 0 for predictions above 1 - 1e-7, where its power is still large.
    is_first = jax.nn.one_hot(log_probs.argmax(-1), log_probs.shape[-1], dtype=bool)
    of_others = jnp.where(is_first, -jnp.inf, log_probs)
    rest = jax.nn.logsumexp(of_others, axis=-1, keepdims=True)
    complements = jnp.where(is_first, rest, jnp.log1p(-jnp.exp(of_others)))
    if top < log_probs.shape[-1]:
        log_probs, chosen = jax.lax.top_k(log_probs, top)
        complements = jnp.take_along_axis(complements, chosen, axis=-1)
    return -jnp.exp(gamma * (log_probs + complements)).sum(-1)


def odin(logits: Values, *, temperature: float = ODIN_TEMPERATURE) -> jax.Array:
    """Largest probability at a high temperature: ODIN without its input gradient.

    Args:
      logits: f[..., K], as the network gives them.
      temperature: T, by which the logits are divided; positive and finite.

    Returns:
      f[...], the logarithm of K times the probability, which ranks examples as the
      probability does and does not round to one value. At least 0. Source: Liang et
      al., ICLR 2018, equation 1.

    Raises:
      ValueError: for a temperature that is not positive and finite.
    """
    logits = widened(logits)
    t = checked_temperature(temperature, logits.dtype)
    below = (logits - logits.max(-1, keepdims=True)) / t
    # The sum of exp(below) / K is close to 1, so that only its distance is summed.
    return -jnp.log1p(jnp.expm1(below).mean(-1))
