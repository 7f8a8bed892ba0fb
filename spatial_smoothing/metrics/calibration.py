"""Calibration beyond fixed bins: bins of equal mass, and temperature scaling.

Contract of this file: `weights` f[n] >= 0, how often each example counts (None for
once). NaN gives NaN.
"""

import chex
import jax
import jax.numpy as jnp

from spatial_smoothing.metrics.ranking import (
    Ranking,
    nan_if_nan,
    rank,
    ratio,
    total,
    weights_of,
)

TEMPERATURES = (1 / 20, 20.0)
_LOWEST = -1e4  # a log-probability that is 0 at any temperature allowed
_STEPS = 100
_TOLERANCE = 1e-6


def adaptive_ece(
    confidence: jax.Array,
    correct: jax.Array,
    weights: jax.Array | None = None,
    *,
    num_bins: int = 15,
) -> jax.Array:
    """Expected calibration error by bins of equal mass.

    The mean over bins of |mean confidence - accuracy|. Every bin holds exactly the same
    weight: an example on the edge of two is divided between them, and examples of equal
    confidence are divided alike, so that their order plays no part.

    Args:
      confidence: f[n], in [0, 1].
      correct: bool[n].
      weights: f[n].
      num_bins: At least 1.

    Returns:
      f[], in [0, 1]. Source: Nguyen & O'Connor 2015; Nixon et al. 2019, section 4.

    Raises:
      ValueError: if `num_bins` is less than 1.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}")
    chex.assert_rank([confidence, correct], 1)
    weights = weights_of(confidence, weights)
    chex.assert_equal_shape([confidence, correct, weights])
    ranking = rank(confidence)
    values = jnp.stack([weights, weights * (confidence - correct)])
    result = equal_mass_error(ranking, *ranking.prefixes(values), num_bins=num_bins)
    return nan_if_nan(result, confidence, weights)


def equal_mass_error(
    ranking: Ranking, accepted: jax.Array, gaps: jax.Array, *, num_bins: int
) -> jax.Array:
    """`adaptive_ece` from the prefixes f[n + 1] of weights and gaps.

    The sum of gaps as a function of the weight is linear between the thresholds.
    """
    mass = jnp.pad(ranking.until(accepted), (1, 0))
    gap = jnp.pad(ranking.until(gaps), (1, 0))
    edges = accepted[-1] * jnp.arange(1, num_bins) / num_bins
    at_edges = jnp.concatenate([gap[:1], jnp.interp(edges, mass, gap), gap[-1:]])
    return ratio(jnp.abs(jnp.diff(at_edges)).sum(), accepted[-1], empty=jnp.nan)


def scale_temperature(log_probs: jax.Array, temperature: jax.Array) -> jax.Array:
    """Log of softmax(log_probs / T): softer for T > 1, sharper for T < 1.

    Args:
      log_probs: f[..., K], log-probabilities or logits.
      temperature: f[], T > 0.

    Returns:
      f[..., K], log-probabilities. Source: Guo et al., ICML 2017, equation 9.
    """
    return jax.nn.log_softmax(log_probs / temperature)


def fit_temperature(
    log_probs: jax.Array, labels: jax.Array, weights: jax.Array | None = None
) -> jax.Array:
    """The temperature T of least NLL, for examples that are not those of the test.

    The NLL of softmax(log_probs / T) is convex in 1 / T. Newton's method finds its
    minimum, with bisection where a step leaves the bracket. For an ensemble, give the
    log of the mean probabilities: pool, then calibrate (Rahaman & Thiery 2021).

    Args:
      log_probs: f[n, K], log-probabilities or logits; less than -1e4 counts as -1e4.
      labels: i32[n].
      weights: f[n].

    Returns:
      f[], the minimum in [1/20, 20]. The bound itself is returned where it lies beyond:
      1/20 when all examples are classified correctly, where the best T would be 0, and
      20 for predictions worse than chance. NaN for a label outside [0, K).
      Source: Guo et al., ICML 2017, section 4.2.
    """
    chex.assert_rank([log_probs, labels], [2, 1])
    chex.assert_equal_shape_prefix([log_probs, labels], 1)
    log_probs = log_probs.astype(jnp.promote_types(log_probs.dtype, jnp.float32))
    scores = jnp.maximum(log_probs, _LOWEST)
    labels = jnp.where(labels < 0, scores.shape[-1], labels)  # -1 is not the last class
    of_label = jnp.take_along_axis(scores, labels[:, None], axis=-1)[:, 0]
    weights = weights_of(of_label, weights)
    chex.assert_equal_shape([labels, weights])

    def slope(inverse: jax.Array) -> tuple[jax.Array, jax.Array]:
        """First and second derivative of the sum of NLL by 1 / T."""
        probs = jax.nn.softmax(inverse * scores)
        mean = (probs * scores).sum(-1)
        variance = (probs * jnp.square(scores - mean[:, None])).sum(-1)
        return total(weights * (mean - of_label)), total(weights * variance)

    low = jnp.asarray(1 / TEMPERATURES[1], scores.dtype)
    high = jnp.asarray(1 / TEMPERATURES[0], scores.dtype)
    inverse = _root(slope, low, high)
    inverse = jnp.where(slope(low)[0] >= 0, low, inverse)
    inverse = jnp.where(slope(high)[0] <= 0, high, inverse)
    return nan_if_nan(1 / inverse, of_label, log_probs, weights)


def _root(slope, low: jax.Array, high: jax.Array) -> jax.Array:
    """Where an increasing function in [low, high] is 0, given with its derivative."""

    def unfinished(state) -> jax.Array:
        step, previous, current, _, _ = state
        moved = jnp.abs(current - previous) > _TOLERANCE * current
        return (step < _STEPS) & moved

    def improve(state):
        step, _, current, low, high = state
        first, second = slope(current)
        low = jnp.where(first < 0, current, low)
        high = jnp.where(first < 0, high, current)
        newton = current - first / jnp.where(second > 0, second, jnp.nan)
        inside = (low <= newton) & (newton <= high)  # not where it is NaN
        following = jnp.where(inside, newton, (low + high) / 2)
        return step + 1, current, following, low, high

    start = (jnp.int32(0), high, jnp.ones_like(low), low, high)
    return jax.lax.while_loop(unfinished, improve, start)[2]
