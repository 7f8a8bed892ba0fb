"""Calibration beyond fixed bins: bins of equal mass, and temperature scaling.

Contract of this file: `weights` are f[n], at least 0, how often each example counts
(None for once). NaN gives NaN.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.metrics.inputs import (
    Values,
    check_batch,
    check_lengths,
    checked_temperature,
    class_labels,
    clipped,
    tolerance,
    widened,
)
from spatial_smoothing.metrics.ranking import (
    Ranking,
    nan_if_nan,
    rank,
    ratio,
    total,
    weights_of,
)
from spatial_smoothing.metrics.scores import of_label

TEMPERATURES = (1 / 20, 20.0)
_LOWEST = -1e4  # a log-probability that is 0 at any temperature allowed
_STEPS = 100  # at most, of Newton's method
_TOLERANCE = 1e-6  # relative, of 1 / T


def adaptive_ece(
    confidence: Values,
    correct: Values,
    weights: Values | None = None,
    *,
    num_bins: int = 15,
) -> jax.Array:
    """Expected calibration error by bins of equal mass.

    The mean over bins of |mean confidence - accuracy|. Every bin holds exactly the same
    weight: an example on the edge of two is divided between them, and examples of equal
    confidence are divided alike, so that their order plays no part.

    Args:
      confidence: f[n], in [0, 1].
      correct: bool[n], whether the prediction is right.
      weights: f[n], how often each example counts; None for once.
      num_bins: Number of bins, at least 1.

    Returns:
      f[], in [0, 1]. Source: Nguyen & O'Connor 2015; Nixon et al. 2019, section 4.

    Raises:
      ValueError: if `num_bins` is less than 1, for shapes that do not fit, and, outside
        of `jit`, for confidences outside [0, 1].
    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}")
    check_lengths(confidence=confidence, correct=correct, weights=weights)
    _check_confidence(confidence)
    confidence = clipped(confidence)
    weights = weights_of(confidence, weights)
    ranking = rank(confidence)
    gaps = confidence - jnp.asarray(correct).astype(confidence.dtype)
    values = jnp.stack([weights, weights * gaps])
    result = equal_mass_error(ranking, *ranking.prefixes(values), num_bins=num_bins)
    return nan_if_nan(result, confidence, weights)


def equal_mass_error(
    ranking: Ranking, accepted: jax.Array, gaps: jax.Array, *, num_bins: int
) -> jax.Array:
    """`adaptive_ece` from sums.

    The sum of gaps as a function of the weight is linear between the thresholds.

    Args:
      ranking: By confidence.
      accepted: f[n + 1], weights of the first 0 to n examples.
      gaps: f[n + 1], weighted sums of confidence minus accuracy of the same.
      num_bins: Number of bins, at least 1.

    Returns:
      f[], in [0, 1].
    """
    # Points of the curve: the mass down to each threshold, and the gaps until there.
    mass = jnp.pad(ranking.until(accepted), (1, 0))
    gap = jnp.pad(ranking.until(gaps), (1, 0))
    shares = jnp.arange(1, num_bins).astype(accepted.dtype) / num_bins
    at_edges = jnp.interp(accepted[-1] * shares, mass, gap)
    # A bin's gap is the difference between its edges.
    at_edges = jnp.concatenate([gap[:1], at_edges, gap[-1:]])
    return ratio(jnp.abs(jnp.diff(at_edges)).sum(), accepted[-1], empty=jnp.nan)


def scale_temperature(log_probs: Values, temperature: float | jax.Array) -> jax.Array:
    """Log of softmax(log_probs / T): softer for T > 1, sharper for T < 1.

    Args:
      log_probs: f[..., K], log-probabilities or logits.
      temperature: f[], T, positive and finite.

    Returns:
      f[..., K], log-probabilities, in at least float32. Source: Guo et al., ICML 2017,
      equation 9.

    Raises:
      ValueError: for a temperature that is not positive and finite, outside of `jit`.
    """
    log_probs = widened(log_probs)
    return jax.nn.log_softmax(
        log_probs / checked_temperature(temperature, log_probs.dtype)
    )


def fit_temperature(
    log_probs: Values, labels: Values, weights: Values | None = None
) -> jax.Array:
    """The temperature T of least NLL, for examples that are not those of the test.

    The NLL of softmax(log_probs / T) is convex in 1 / T. Newton's method finds its
    minimum, with bisection where a step leaves the bracket. For an ensemble, give the
    log of the mean probabilities: pool, then calibrate (Rahaman & Thiery 2021).

    Args:
      log_probs: f[n, K], log-probabilities or logits; less than -1e4 counts as -1e4.
      labels: i32[n].
      weights: f[n], how often each example counts; None for once.

    Returns:
      f[], the minimum in [1/20, 20]. The bound itself is returned where it lies beyond:
      1/20 when all examples are classified correctly, where the best T would be 0, and
      20 for predictions worse than chance. NaN for a label outside [0, K).
      Source: Guo et al., ICML 2017, section 4.2.

    Raises:
      ValueError: for shapes that do not fit.
    """
    log_probs, labels = widened(log_probs), class_labels(labels)
    check_batch("log_probs", log_probs, labels=labels)
    check_lengths(labels=labels, weights=weights)
    scores = jnp.maximum(log_probs, _LOWEST)
    score_of_label = of_label(scores, labels)
    weights = weights_of(scores[:, 0], weights)

    def slope(inverse: jax.Array) -> tuple[jax.Array, jax.Array]:
        """First and second derivative of the sum of NLL by 1 / T."""
        probs = jax.nn.softmax(inverse * scores)
        mean = (probs * scores).sum(-1)
        variance = (probs * jnp.square(scores - mean[:, None])).sum(-1)
        return total(weights * (mean - score_of_label)), total(weights * variance)

    low = jnp.asarray(1 / TEMPERATURES[1], scores.dtype)
    high = jnp.asarray(1 / TEMPERATURES[0], scores.dtype)
    inverse = _root(slope, low, high)
    # The minimum lies beyond a bound where the slope has one sign up to it.
    inverse = jnp.where(slope(low)[0] >= 0, low, inverse)
    inverse = jnp.where(slope(high)[0] <= 0, high, inverse)
    return nan_if_nan(1 / inverse, score_of_label, log_probs, weights)


def _check_confidence(confidence: Values) -> None:
    """Refuses confidences outside [0, 1] where their values are known."""
    if isinstance(confidence, jax.core.Tracer):
        return  # `clipped` makes them NaN
    slack, values = tolerance(confidence), np.asarray(confidence, np.float64)
    if ((values < -slack) | (values > 1 + slack)).any():
        raise ValueError(
            "confidence must lie in [0, 1], got values from "
            f"{np.nanmin(values):g} to {np.nanmax(values):g}; are they logits or "
            "percentages?"
        )


def _root(
    slope: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    low: jax.Array,
    high: jax.Array,
) -> jax.Array:
    """Where an increasing function is 0.

    Args:
      slope: The function and its derivative, f[] -> (f[], f[]).
      low: f[], where the function is negative.
      high: f[], where it is positive.

    Returns:
      f[], between the two.
    """

    def unfinished(state) -> jax.Array:
        step, previous, current, _, _ = state
        moved = jnp.abs(current - previous) > _TOLERANCE * current
        return (step < _STEPS) & moved

    def improve(state):
        step, _, current, low, high = state
        first, second = slope(current)
        low = jnp.where(first < 0, current, low)
        high = jnp.where(first < 0, high, current)
        # NaN where the function is flat, which makes this step a bisection.
        newton = current - first / jnp.where(second > 0, second, jnp.nan)
        inside = (low <= newton) & (newton <= high)
        following = jnp.where(inside, newton, (low + high) / 2)
        return step + 1, current, following, low, high

    start = (jnp.int32(0), high, jnp.ones_like(low), low, high)
    return jax.lax.while_loop(unfinished, improve, start)[2]
