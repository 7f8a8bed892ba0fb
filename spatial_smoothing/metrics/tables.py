"""The table of scores of a set of examples, a function of how often each counts.

Contract of this file: `weights` f[n] >= 0. Weights that are whole give the scores of
the set in which each example is there that often, so that a `vmap` over weights scores
subsets, resamples and padded sets alike.
"""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from spatial_smoothing.metrics.calibration import equal_mass_error
from spatial_smoothing.metrics.examples import Examples
from spatial_smoothing.metrics.ranking import (
    Ranking,
    nan_if_nan,
    rank,
    ratio,
    total,
    weights_of,
)
from spatial_smoothing.metrics.selective import area, curve, largest_coverage
from spatial_smoothing.metrics.tallies import BINS, CUTOFFS

_NUM_BINS = 15  # of equal mass


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
      num_classes: K.
      cutoffs: Confidences above which a prediction counts as certain, in (0, 1).
      bins: Increasing edges of the calibration bins, from 0 to 1.

    Returns:
      The scores of `summary`, from `nll` to `mce`, by its definition "fixed"; the means
      of `entropy`, `mutual_information` and `variation_ratio`; `adaptive_ece` of 15
      bins; and, of the loss that is 1 for a wrong prediction, `aurc`, `excess_aurc` and
      `coverage_at_risk_5`, at a risk of 5 %. Each is f[]. All are NaN where a score of
      an example, its energy excepted, or a weight is NaN.
    """
    weights = weights_of(examples.confidence, weights)
    chex.assert_equal_shape([examples.label, examples.confidence, weights])
    sums = _sums(examples, weights)
    means = _means(examples, weights)
    gap, count = _bins(examples, weights, bins)
    scores = {
        "nll": means.pop("nll"),
        "accuracy": sums.right[-1] / sums.accepted[-1],
        "top5": means.pop("top5"),
        "brier": means.pop("brier"),
        "iou": _iou(examples, weights, num_classes),
        "ece": jnp.abs(gap).sum() / sums.accepted[-1],
        "signed_ece": gap.sum() / sums.accepted[-1],
    }
    for cutoff in cutoffs:
        scores |= _certain(examples, weights, sums, cutoff, num_classes)
    scores["mce"] = ratio(jnp.abs(gap), count).max()
    scores |= means
    scores |= _ranked(sums)
    inputs = (*jax.tree.leaves(examples.replace(energy=None)), weights)
    checked = nan_if_nan(jnp.stack(list(scores.values())), *inputs)
    return dict(zip(scores, checked, strict=True))


class _Sums(NamedTuple):
    """The ranking by confidence, and sums of its first 0 to n ranks, f[n + 1].

    Attributes:
      ranking: By confidence.
      accepted: Of weights.
      right: Of the weights of right predictions.
      gaps: Of weighted confidences, less those.
    """

    ranking: Ranking
    accepted: jax.Array
    right: jax.Array
    gaps: jax.Array


def _sums(examples: Examples, weights: jax.Array) -> _Sums:
    correct = _correct(examples)
    ranking = rank(examples.confidence)
    values = jnp.stack([jnp.ones_like(weights), correct, examples.confidence - correct])
    return _Sums(ranking, *ranking.prefixes(weights[None] * values))


def _correct(examples: Examples) -> jax.Array:
    correct = examples.prediction == examples.label
    return jnp.asarray(correct, examples.confidence.dtype)


def _means(examples: Examples, weights: jax.Array) -> dict[str, jax.Array]:
    names = ["nll", "top5", "brier", "entropy", "mutual_information", "variation_ratio"]
    values = jnp.stack([getattr(examples, n).astype(weights.dtype) for n in names])
    # What does not count may be infinite.
    sums = total(jnp.where(weights[None] == 0, 0, weights[None] * values))
    return dict(zip(names, sums / total(weights), strict=True))


def _bins(
    examples: Examples, weights: jax.Array, bins: Sequence[float]
) -> tuple[jax.Array, jax.Array]:
    """Sums of gaps and of weights in bins (low, high], f[bins] each.

    Differences of prefixes would be inexact in bins of few examples.
    """
    above = jnp.stack([_above(examples.confidence, edge) for edge in bins])
    inside = jnp.where(above[:-1] & ~above[1:], weights[None], 0)
    gap = examples.confidence - _correct(examples)
    return total(inside * gap[None]), total(inside)


def _above(confidence: jax.Array, edge: float) -> jax.Array:
    """Whether confidences exceed an edge, in the type of the former."""
    return confidence > jnp.asarray(edge, confidence.dtype)


def _certain(
    examples: Examples,
    weights: jax.Array,
    sums: _Sums,
    cutoff: float,
    num_classes: int,
) -> dict[str, jax.Array]:
    """The scores of one cut-off."""
    above = _above(examples.confidence, cutoff)
    count, right = sums.accepted[above.sum()], sums.right[above.sum()]
    wrong = sums.accepted[-1] - sums.right[-1]
    tag = f"{100 * cutoff:g}"
    return {
        f"accuracy_{tag}": ratio(right, count),
        f"iou_{tag}": _iou(examples, weights * above, num_classes),
        f"unconfidence_{tag}": ratio(wrong - (count - right), wrong),
        f"frequency_{tag}": count / sums.accepted[-1],
    }


def _iou(examples: Examples, weights: jax.Array, num_classes: int) -> jax.Array:
    """Intersection over union, averaged over the classes that have examples."""

    def by_class(weights: jax.Array, classes: jax.Array) -> jax.Array:
        one_hot = jax.nn.one_hot(classes, num_classes, dtype=weights.dtype)
        return jnp.dot(weights, one_hot, precision="highest")

    true = by_class(weights * _correct(examples), examples.label)
    labelled = by_class(weights, examples.label)
    predicted = by_class(weights, examples.prediction)
    iou = ratio(true, labelled + predicted - true)
    present = labelled > 0
    return ratio(jnp.where(present, iou, 0).sum(), present.sum())


def _ranked(sums: _Sums) -> dict[str, jax.Array]:
    """The scores that depend on the order of confidences."""
    ranking, accepted = sums.ranking, sums.accepted
    wrong = accepted - sums.right
    aurc = area(ranking, accepted, wrong)
    error = wrong[-1] / accepted[-1]
    best = error - jax.scipy.special.entr(1 - error)
    return {
        "adaptive_ece": equal_mass_error(
            ranking, accepted, sums.gaps, num_bins=_NUM_BINS
        ),
        "aurc": aurc,
        "excess_aurc": aurc - best,
        "coverage_at_risk_5": largest_coverage(
            *curve(ranking, accepted, wrong), risk=0.05
        ),
    }
