"""Scores that rank examples, from counts by confidence: for sets too large to sort.

Contract of this file: a histogram is u32[4096, 2], the numbers of wrong and of right
predictions by confidence. Histograms of batches, images and devices add. The bins are
of equal width in log(c / (1 - c)), so that they tell confidences of 0.999 and 0.9999
apart, and no bin is wider than 0.0015. Examples of one bin count as equally confident.
"""

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.metrics.calibration import adaptive_ece
from spatial_smoothing.metrics.selective import (
    augrc,
    aurc,
    coverage_at_risk,
)

NUM_BINS = 4096
# Log-odds of the confidence at the ends. Below is only what more than 3,000 classes
# make possible; above, float32 does not tell a confidence from 1.
_ENDS = (-8.0, 17.0)
_RISK = 0.05  # of `coverage_at_risk_5`


def histogram(
    log_confidence: jax.Array, correct: jax.Array, mask: jax.Array
) -> jax.Array:
    """Counts wrong and right predictions by confidence.

    Args:
      log_confidence: f[...], logarithms of the largest probabilities, at most 0.
      correct: bool[...], whether the prediction is right.
      mask: bool[...], the examples that count.

    Returns:
      u32[4096, 2], for each bin the numbers of wrong and of right predictions.
    """
    low, high = _ENDS
    # Rounding may leave certain predictions slightly above log 1.
    log_confidence = jnp.minimum(log_confidence, 0)
    # 1 - c, without the rounding of a difference between numbers near 1.
    rest = -jnp.expm1(log_confidence)
    log_odds = log_confidence - jnp.log(rest)
    place = (log_odds - low) * (NUM_BINS / (high - low))
    bins = jnp.clip(place, 0, NUM_BINS - 1).astype(jnp.int32)
    empty = jnp.zeros((NUM_BINS, 2), jnp.uint32)
    index = bins.reshape(-1), correct.reshape(-1).astype(jnp.int32)
    return empty.at[index].add(mask.reshape(-1).astype(jnp.uint32))


def ranked_scores(counts: np.ndarray) -> dict[str, float]:
    """The scores of `metrics.table` that depend on the order of confidences.

    Args:
      counts: int[4096, 2], a histogram of at least one example.

    Returns:
      `adaptive_ece` of 15 bins of equal mass; and of the loss that is 1 for a wrong
      prediction `aurc`, `augrc`, `coverage_at_risk_5` and `excess_aurc`. They are
      those of predictions whose confidence is the centre of their bin.

    Raises:
      ValueError: for a histogram of no examples.
    """
    counts = np.asarray(counts, np.float64)
    if not counts.sum():
        raise ValueError("the histogram has no examples: all of them are masked")
    count = counts.sum(1)
    wrong = counts[:, 0] / np.maximum(count, 1)
    error = counts[:, 0].sum() / count.sum()
    # The area of the best order, in closed form for losses of 0 and 1.
    best = error - float(jax.scipy.special.entr(1 - error))
    found = {
        name: float(score)
        for name, score in _scores(np.float32(wrong), np.float32(count)).items()
    }
    return {**found, "excess_aurc": found["aurc"] - best}


@jax.jit
def _scores(wrong: jax.Array, weights: jax.Array) -> dict[str, jax.Array]:
    """Scores of the shares of wrong examples of each bin, and their numbers."""
    # The centres of the last bins are 1 in float32; their numbers are in order.
    numbers = jnp.arange(NUM_BINS)
    return {
        "adaptive_ece": adaptive_ece(_centres(), 1 - wrong, weights),
        "aurc": aurc(numbers, wrong, weights),
        "augrc": augrc(numbers, wrong, weights),
        "coverage_at_risk_5": coverage_at_risk(numbers, wrong, weights, risk=_RISK),
    }


def _centres() -> np.ndarray:
    """The confidence in the middle of each bin, f32[4096]."""
    low, high = _ENDS
    middle = low + (high - low) * (np.arange(NUM_BINS) + 0.5) / NUM_BINS
    return np.float32(1 / (1 + np.exp(-middle)))
