"""The formulas of the scores, each written once, as functions of sums over examples.

`summary` gives them the sums of a `Tally` in NumPy float64, `table` gives them weighted
sums while JAX traces it. Contract of this file: all arrays of a call belong to one
library, `xp`, which is `numpy` or `jax.numpy`, and are floating; counts are sums of
weights. A share of nothing is undefined, and has the value `undefined`: NaN, but for
the reference's definition, which has 0.
"""

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

Array = Any  # numpy.ndarray or jax.Array


class Sums(NamedTuple):
    """Sums over examples, each of which counts by its weight.

    Attributes:
      count: f[], of the weights.
      nll: f[], of the negative log-likelihoods, in nats.
      top5: f[], weight of the examples whose label is among the five most probable.
      brier: f[], of the Brier scores.
      true: f[cutoffs + 1, K], weight of the right predictions by class; the first row
        is of all examples, the others are of those above each cut-off.
      labelled: f[cutoffs + 1, K], weight of the examples by label, in the same rows.
      predicted: f[cutoffs + 1, K], weight of the examples by predicted class.
      bin_count: f[bins], weight of the examples by calibration bin.
      bin_gap: f[bins], of confidence minus 1 for a right prediction, or minus 0.
    """

    count: Array
    nll: Array
    top5: Array
    brier: Array
    true: Array
    labelled: Array
    predicted: Array
    bin_count: Array
    bin_gap: Array


def scores(
    sums: Sums,
    *,
    cutoffs: Sequence[float],
    xp: ModuleType,
    undefined: float = math.nan,
    epsilon: float = 0.0,
) -> dict[str, Array]:
    """All scores that follow from `Sums`, in the order of a table.

    Args:
      sums: See `Sums`.
      cutoffs: Confidences above which a prediction counts as certain.
      xp: numpy or jax.numpy.
      undefined: Value of a share of nothing.
      epsilon: What the reference's definition adds to divisors of certain predictions.

    Returns:
      Name -> f[]; `summary` describes the scores.
    """
    wrong = sums.count - sums.true[0].sum()
    found = {
        "nll": sums.nll / sums.count,
        "accuracy": sums.true[0].sum() / sums.count,
        "top5": sums.top5 / sums.count,
        "brier": sums.brier / sums.count,
        "iou": mean_iou(sums, 0, xp=xp, undefined=undefined),
    }
    calibration = calibration_errors(sums, xp=xp)
    largest = calibration.pop("mce")
    found |= calibration
    for row, cutoff in enumerate(cutoffs, 1):
        certain, right = sums.labelled[row].sum(), sums.true[row].sum()
        uncertain_and_wrong = wrong - (certain - right)
        tag = f"{100 * cutoff:g}"
        found |= {
            f"accuracy_{tag}": ratio(right, certain, xp=xp, empty=undefined),
            f"iou_{tag}": mean_iou(sums, row, xp=xp, undefined=undefined),
            f"unconfidence_{tag}": ratio(
                uncertain_and_wrong, wrong + epsilon, xp=xp, empty=undefined
            ),
            f"frequency_{tag}": certain / (sums.count + epsilon),
        }
    return {**found, "mce": largest}


def calibration_errors(sums: Sums, *, xp: ModuleType) -> dict[str, Array]:
    """ECE, signed ECE and MCE from the sums of gaps in the bins.

    Args:
      sums: Sums over examples; `count`, `bin_count` and `bin_gap` are read.
      xp: numpy or jax.numpy.

    Returns:
      `ece`, the mean over examples of their bin's |mean confidence - accuracy|;
      `signed_ece`, the same with its sign; `mce`, the largest of a bin. Each f[].
    """
    return {
        "ece": xp.abs(sums.bin_gap).sum() / sums.count,
        "signed_ece": sums.bin_gap.sum() / sums.count,
        # An empty bin has no gap, and is not the largest.
        "mce": ratio(xp.abs(sums.bin_gap), sums.bin_count, xp=xp, empty=0.0).max(),
    }


def mean_iou(sums: Sums, row: int, *, xp: ModuleType, undefined: float) -> Array:
    """Intersection over union, averaged over the classes that have examples.

    Args:
      sums: Sums over examples; `true`, `labelled` and `predicted` are read.
      row: Row of these sums: 0 for all examples, i for those above the i-th cut-off.
      xp: numpy or jax.numpy.
      undefined: Value where no class has examples.

    Returns:
      f[], in [0, 1].
    """
    true, labelled = sums.true[row], sums.labelled[row]
    union = labelled + sums.predicted[row] - true
    present = xp.where(labelled > 0, 1.0, 0.0)
    iou = ratio(true, union, xp=xp, empty=0.0)  # the union has the class's examples
    return ratio((present * iou).sum(), present.sum(), xp=xp, empty=undefined)


def brier_terms(
    class_count: Array,
    class_gap: Array,
    class_labelled: Array,
    *,
    count: Array,
    brier: Array,
    xp: ModuleType,
) -> dict[str, Array]:
    """Calibration of the probabilities of all classes, and what the Brier score is of.

    Args:
      class_count: f[bins, K], examples by the probability of each class.
      class_gap: f[bins, K], sums of probabilities minus `class_labelled`.
      class_labelled: f[bins, K], examples of them with that label.
      count: f[], examples.
      brier: f[], sum of the Brier scores.
      xp: numpy or jax.numpy.

    Returns:
      `classwise_ece`, `brier_reliability`, `brier_resolution`, `brier_uncertainty`; f[]
      each. Source: Nixon et al. 2019; Stephenson et al. 2008.
    """
    frequency = class_labelled.sum(0) / count
    squares = ratio(class_gap * class_gap, class_count, xp=xp, empty=0.0)
    reliability = squares.sum() / count
    uncertainty = (frequency * (1 - frequency)).sum()
    return {
        "classwise_ece": xp.abs(class_gap).sum(0).mean() / count,
        "brier_reliability": reliability,
        # What is left over when the other two explain the Brier score.
        "brier_resolution": reliability + uncertainty - brier / count,
        "brier_uncertainty": uncertainty,
    }


def ratio(part: Array, whole: Array, *, xp: ModuleType, empty: float) -> Array:
    """`part / whole`, and `empty` where the whole is 0.

    Args:
      part: f[...].
      whole: f[...], of a shape that broadcasts with `part`.
      xp: numpy or jax.numpy.
      empty: Value where `whole` is 0.

    Returns:
      f[...].
    """
    is_empty = whole == 0
    return xp.where(is_empty, empty, part / xp.where(is_empty, 1, whole))
