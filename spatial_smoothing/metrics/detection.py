"""How well a score tells positives from negatives.

Contract of this file: `scores` are [n] of any real type, high for positive, in any
monotone scale; `positives` are bool[n]; `weights` are f[n], at least 0, how often each
example counts (None for once). Equal scores have one threshold. In out-of-distribution
(OOD) detection, OOD examples are the positives and scores are uncertainties; in the
detection of errors, wrong predictions are the positives. NaN in scores or weights gives
NaN, and so does the lack of a class that the definition needs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from spatial_smoothing.metrics.inputs import Values, check_lengths
from spatial_smoothing.metrics.ranking import (
    Ranking,
    joined,
    nan_if_nan,
    rank,
    ratio,
    sortable,
    total,
    weights_of,
)


class _Curve(NamedTuple):
    """Weights of positives (first row) and negatives (second row), along a ranking.

    Attributes:
      added: f[2, n], weight of the example of each rank.
      before: f[2, n], weight above the score of each rank.
      until: f[2, n], weight at or above the score of each rank.
      all: f[2], weight of all examples.
    """

    added: jax.Array
    before: jax.Array
    until: jax.Array
    all: jax.Array


def auroc(
    scores: Values, positives: Values, weights: Values | None = None
) -> jax.Array:
    """Area under the ROC curve: the chance that a positive scores above a negative.

    Ties count half.

    Args:
      scores: [n], high for positives.
      positives: bool[n], whether each example is a positive.
      weights: f[n], how often each example counts; None for once.

    Returns:
      f[], in [0, 1]; NaN without a positive or a negative. Source: Hanley &
      McNeil 1982.

    Raises:
      ValueError: for shapes that do not fit.
    """
    curve, inputs = _prepared(scores, positives, weights)
    return nan_if_nan(_auroc(curve), *inputs)


def aupr(scores: Values, positives: Values, weights: Values | None = None) -> jax.Array:
    """Average precision: the precision at each threshold, by the recall it adds.

    It is a step function's area, without the optimism of interpolation.

    Args:
      scores: [n], high for positives.
      positives: bool[n], whether each example is a positive.
      weights: f[n], how often each example counts; None for once.

    Returns:
      f[], in [0, 1], the share of positives for random scores; NaN without a positive.
      Source: Davis & Goadrich 2006.

    Raises:
      ValueError: for shapes that do not fit.
    """
    curve, inputs = _prepared(scores, positives, weights)
    return nan_if_nan(_aupr(curve), *inputs)


def trapezoidal_aupr(
    scores: Values, positives: Values, weights: Values | None = None
) -> jax.Array:
    """Area under the precision-recall curve whose points are joined by straight lines.

    The curve begins at recall 0 with precision 1. Straight lines are optimistic, so
    that `aupr` is the better choice; benchmarks such as OpenOOD publish this one.

    Args:
      scores: [n], high for positives.
      positives: bool[n], whether each example is a positive.
      weights: f[n], how often each example counts; None for once.

    Returns:
      f[], in [0, 1]; NaN without a positive. Source: Davis & Goadrich 2006, section 4;
      scikit-learn's `auc` of `precision_recall_curve`.

    Raises:
      ValueError: for shapes that do not fit.
    """
    curve, inputs = _prepared(scores, positives, weights)
    return nan_if_nan(_trapezoidal_aupr(curve), *inputs)


def fpr_at_tpr(
    scores: Values,
    positives: Values,
    weights: Values | None = None,
    *,
    tpr: float = 0.95,
) -> jax.Array:
    """Lowest false positive rate of a threshold that finds the share `tpr`.

    Args:
      scores: [n], high for positives.
      positives: bool[n], whether each example is a positive.
      weights: f[n], how often each example counts; None for once.
      tpr: True positive rate to reach, in (0, 1].

    Returns:
      f[], in [0, 1]; NaN without a positive or a negative.

    Raises:
      ValueError: if `tpr` lies outside (0, 1], or for shapes that do not fit.
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must be in (0, 1], got {tpr}")
    curve, inputs = _prepared(scores, positives, weights)
    return nan_if_nan(_fpr_at_tpr(curve, tpr), *inputs)


def ood(
    in_scores: Values, out_scores: Values, weights: Values | None = None
) -> dict[str, jax.Array]:
    """The usual scores of OOD detection by an uncertainty.

    Args:
      in_scores: [n], uncertainties of examples in distribution.
      out_scores: [m], uncertainties of examples out of distribution, the positives.
      weights: f[n + m], how often each example counts, in this order; None for once.

    Returns:
      `auroc`, `aupr_out`, `aupr_in` (with those in distribution as the positives, and
      certainty as the score), the same two by `trapezoidal_aupr` as
      `aupr_out_trapezoid` and `aupr_in_trapezoid`, and `fpr95`, the share of examples
      in distribution above the threshold that finds 95 % of those out of it; each f[].
      Source: Hendrycks & Gimpel, ICLR 2017; Zhang et al. 2023 (OpenOOD v1.5).

    Raises:
      ValueError: for shapes that do not fit.
    """
    check_lengths(in_scores=in_scores)
    check_lengths(out_scores=out_scores)
    scores = joined(in_scores, out_scores)
    out = jnp.arange(len(scores)) >= len(in_scores)
    curve, inputs = _prepared(scores, out, weights)
    # Certainty is the opposite order; a change of sign would wrap unsigned scores.
    reverse, _ = _prepared(scores, ~out, weights, lowest_first=True)
    result = {
        "auroc": _auroc(curve),
        "aupr_out": _aupr(curve),
        "aupr_in": _aupr(reverse),
        "aupr_out_trapezoid": _trapezoidal_aupr(curve),
        "aupr_in_trapezoid": _trapezoidal_aupr(reverse),
        "fpr95": _fpr_at_tpr(curve, 0.95),
    }
    return {name: nan_if_nan(value, *inputs) for name, value in result.items()}


def _prepared(
    scores: Values,
    positives: Values,
    weights: Values | None,
    *,
    lowest_first: bool = False,
) -> tuple[_Curve, tuple[jax.Array, jax.Array]]:
    """The curve, and the inputs that may hold NaN: scores and weights.

    Args:
      scores: [n].
      positives: bool[n].
      weights: f[n]; None for ones.
      lowest_first: Whether low scores are those of positives.

    Returns:
      The curve, from the example that is most likely a positive down, and the inputs.
    """
    check_lengths(scores=scores, positives=positives, weights=weights)
    scores, positives = sortable(scores), jnp.asarray(positives).astype(bool)
    weights = weights_of(scores, weights)
    ranking = rank(scores)
    if lowest_first:
        ranking = ranking.reversed()
    return _curve(ranking, positives, weights), (scores, weights)


def _curve(ranking: Ranking, positives: jax.Array, weights: jax.Array) -> _Curve:
    added = jnp.where(jnp.stack([positives, ~positives]), weights[None], 0)
    sums = ranking.prefixes(added)
    return _Curve(
        added[:, ranking.order], ranking.before(sums), ranking.until(sums), sums[:, -1]
    )


def _auroc(curve: _Curve) -> jax.Array:
    """`auroc` of a curve: the mean over negatives of the positives above each."""
    positives, negatives = curve.all
    above = (curve.before[0] + curve.until[0]) / 2  # ties count half
    share = ratio(above, positives, empty=jnp.nan)
    return ratio(total(curve.added[1] * share), negatives, empty=jnp.nan)


def _aupr(curve: _Curve) -> jax.Array:
    """`aupr` of a curve: the mean over positives of the precision at each."""
    precision = ratio(curve.until[0], curve.until.sum(0))
    return ratio(total(curve.added[0] * precision), curve.all[0], empty=jnp.nan)


def _trapezoidal_aupr(curve: _Curve) -> jax.Array:
    """`trapezoidal_aupr` of a curve: the mean precision of both ends of a step."""
    lower = ratio(curve.until[0], curve.until.sum(0))
    # Above the first example that counts, the precision is 1 by convention.
    upper = ratio(curve.before[0], curve.before.sum(0), empty=1.0)
    area = total(curve.added[0] * (lower + upper) / 2)
    return ratio(area, curve.all[0], empty=jnp.nan)


def _fpr_at_tpr(curve: _Curve, tpr: float) -> jax.Array:
    """`fpr_at_tpr` of a curve."""
    rates = ratio(curve.until, curve.all[:, None], empty=jnp.nan)
    # `until` increases along the ranking, so that the first to qualify is the lowest.
    lowest = jnp.where(rates[0] >= tpr, rates[1], 1).min()
    return jnp.where(curve.all[0] == 0, jnp.nan, lowest)
