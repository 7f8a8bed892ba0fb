"""The table of scores of a set of examples, a function of how often each counts.

Contract of this file: `weights` are f[n], at least 0. Whole weights give the scores of
the set in which each example is there that often, so that a `vmap` over weights scores
subsets, resamples and padded sets alike.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spatial_smoothing.metrics import formulas
from spatial_smoothing.metrics.bins import (
    BINS,
    CUTOFFS,
    above,
    checked_bins,
    checked_cutoffs,
    inside,
)
from spatial_smoothing.metrics.calibration import equal_mass_error
from spatial_smoothing.metrics.examples import Examples
from spatial_smoothing.metrics.formulas import Sums
from spatial_smoothing.metrics.inputs import check_lengths, clipped
from spatial_smoothing.metrics.ranking import (
    nan_if_nan,
    rank,
    total,
    weights_of,
)
from spatial_smoothing.metrics.selective import (
    area,
    curve,
    generalised_area,
    largest_coverage,
)

_NUM_BINS = 15  # of equal mass
_RISK = 0.05  # of `coverage_at_risk_5`
_UNCERTAINTIES = ("entropy", "mutual_information", "variation_ratio")


def table(
    examples: Examples,
    weights: jax.Array | None = None,
    *,
    num_classes: int,
    cutoffs: Sequence[float] = CUTOFFS,
    bins: Sequence[float] = BINS,
) -> dict[str, jax.Array]:
    """All scores that follow from `Examples`; they are sorted once, by confidence.

    Args:
      examples: At least one.
      weights: f[n], how often each counts; None for once.
      num_classes: K, the number of classes.
      cutoffs: Confidences above which a prediction counts as certain, in (0, 1).
      bins: Edges of the calibration bins, increasing from 0 to 1.

    Returns:
      The scores of `summary`, from `nll` to `mce`, by its definition "fixed"; the means
      of `entropy`, `mutual_information` and `variation_ratio`; `adaptive_ece` of 15
      bins; and, of the loss that is 1 for a wrong prediction, `aurc`, `excess_aurc`,
      `augrc` and `coverage_at_risk_5`, at a risk of 5 %. Each is f[]. All are NaN where
      a score of an example, its energy excepted, or a weight is NaN. A score that is a
      share of nothing, such as `accuracy_90` without a certain prediction, is NaN.

    Raises:
      ValueError: for shapes that do not fit, or unusable bins or cut-offs.
    """
    cutoffs, bins = checked_cutoffs(cutoffs), checked_bins(bins)
    check_lengths(label=examples.label, confidence=examples.confidence, weights=weights)
    weights = weights_of(examples.confidence, weights)
    counted = _Counted(
        jnp.asarray(examples.label),
        jnp.asarray(examples.prediction),
        clipped(examples.confidence),  # that of files of version 0.1 may exceed 1
        weights,
    )
    added = _added(examples, weights)
    sums = Sums(
        count=total(weights),
        **{name: added[name] for name in ("nll", "top5", "brier")},
        **_by_class(counted, cutoffs, num_classes),
        **_by_bin(counted, bins),
    )
    scores = formulas.scores(sums, cutoffs=cutoffs, xp=jnp)
    scores |= {name: added[name] / sums.count for name in _UNCERTAINTIES}
    scores |= _ranked(counted)
    # A score of nothing may be NaN alone; NaN that came in is in all of them.
    inputs = (*jax.tree.leaves(examples.replace(energy=None)), weights)
    checked = nan_if_nan(jnp.stack(list(scores.values())), *inputs)
    return dict(zip(scores, checked, strict=True))


class _Counted(NamedTuple):
    """What of the examples is counted, and how often.

    Attributes:
      label: i32[n].
      prediction: i32[n].
      confidence: f[n], in [0, 1].
      weights: f[n].
    """

    label: jax.Array
    prediction: jax.Array
    confidence: jax.Array
    weights: jax.Array

    @property
    def correct(self) -> jax.Array:
        """1 for a right prediction, 0 for a wrong one, f[n]."""
        return (self.prediction == self.label).astype(self.weights.dtype)

    @property
    def gap(self) -> jax.Array:
        """Confidence minus `correct`, f[n]."""
        return self.confidence.astype(self.weights.dtype) - self.correct


def _added(examples: Examples, weights: jax.Array) -> dict[str, jax.Array]:
    """Weighted sums of the scores of single examples, by name."""
    names = ("nll", "top5", "brier", *_UNCERTAINTIES)
    fields = [getattr(examples, name) for name in names]
    values = jnp.stack([jnp.asarray(x).astype(weights.dtype) for x in fields])
    # What does not count may be infinite, and 0 times infinity is NaN.
    sums = total(jnp.where(weights[None] == 0, 0, weights[None] * values))
    return dict(zip(names, sums, strict=True))


def _by_class(
    counted: _Counted, cutoffs: Sequence[float], num_classes: int
) -> dict[str, jax.Array]:
    """The sums f[cutoffs + 1, K] of `Sums`: one product for all cut-offs."""
    is_certain = above(counted.confidence, cutoffs)
    certain = jnp.where(is_certain, counted.weights[None], 0)
    rows = jnp.concatenate([counted.weights[None], certain])

    def sums(rows: jax.Array, classes: jax.Array) -> jax.Array:
        one_hot = jax.nn.one_hot(classes, num_classes, dtype=rows.dtype)
        return jnp.dot(rows, one_hot, precision="highest")

    return {
        "true": sums(rows * counted.correct[None], counted.label),
        "labelled": sums(rows, counted.label),
        "predicted": sums(rows, counted.prediction),
    }


def _by_bin(counted: _Counted, bins: Sequence[float]) -> dict[str, jax.Array]:
    """The sums f[bins] of `Sums`.

    Differences of prefixes would be cheaper, and inexact in bins of few examples.
    """
    in_bin = jnp.where(inside(counted.confidence, bins), counted.weights[None], 0)
    return {"bin_count": total(in_bin), "bin_gap": total(in_bin * counted.gap[None])}


def _ranked(counted: _Counted) -> dict[str, jax.Array]:
    """The scores that depend on the order of confidences."""
    ranking = rank(counted.confidence)
    weights = counted.weights
    values = jnp.stack([weights, weights * counted.correct, weights * counted.gap])
    accepted, right, gaps = ranking.prefixes(values)
    wrong = accepted - right
    error = wrong[-1] / accepted[-1]
    # The area of the best order, in closed form for losses of 0 and 1.
    best = error - jax.scipy.special.entr(1 - error)
    aurc = area(ranking, accepted, wrong)
    return {
        "adaptive_ece": equal_mass_error(ranking, accepted, gaps, num_bins=_NUM_BINS),
        "aurc": aurc,
        "excess_aurc": aurc - best,
        "augrc": generalised_area(ranking, accepted, wrong),
        "coverage_at_risk_5": largest_coverage(
            *curve(ranking, accepted, wrong), risk=_RISK
        ),
    }
