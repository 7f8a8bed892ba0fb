"""Scores of a `Tally`, computed once, at the end, in float64.

Two definitions exist where the paper's code has a defect:
- "fixed" (default): NLL is the mean over examples; a calibration bin (low, high] takes
  the confidences of the examples it counts, those of exactly 1 included.
- "reference": NLL is the unweighted mean of the means of batches; a bin counts
  low < confidence <= high but sums confidences with low <= confidence < high, so that
  a confidence of exactly 1 is counted and never summed; divisors carry 1e-7.
Class-wise scores, which the paper's code lacks, are the same in both.
"""

import jax
import numpy as np

from spatial_smoothing.lookup import unknown
from spatial_smoothing.metrics.tallies import Tally

DEFINITIONS = ("fixed", "reference")
_EPSILON = 1e-7  # of the reference


def summary(result: Tally, *, definition: str = "fixed") -> dict[str, float]:
    """Turns sums into scores.

    Args:
      result: A tally without leading axes, of at least one example.
      definition: "fixed" or "reference"; see the module.

    Returns:
      `nll` (nats), `accuracy`, `top5`, `brier`, `iou` (mean over classes), `ece`,
      `signed_ece` (positive when overconfident), and for each cut-off, 90 standing for
      0.9: `accuracy_90` and `iou_90` of the certain predictions, `unconfidence_90` (the
      share of wrong predictions that are uncertain), `frequency_90` (the share of
      certain ones). Then `mce` (the largest gap between confidence and accuracy of a
      bin), `classwise_ece` (the mean over classes of the calibration error of their
      probabilities, the static calibration error of Nixon et al. 2019; Kull et al.
      2019), and `brier_reliability`, `brier_resolution` and `brier_uncertainty` by the
      bins of each class, with brier = reliability - resolution + uncertainty exactly:
      the resolution is the generalised one of Stephenson et al. 2008. A share of
      nothing is 0.

    Raises:
      ValueError: for an unknown definition, a tally of no examples, or NaN.
    """
    if definition not in DEFINITIONS:
        raise unknown("definition", definition, DEFINITIONS)
    t = jax.tree.map(lambda value: np.asarray(value, np.float64), result)
    if t.count.ndim or t.count == 0:
        raise ValueError(
            f"summary takes one tally of at least one example, got counts {t.count}"
        )
    if np.isnan(t.nll + t.brier):
        raise ValueError("probabilities hold NaN, or labels lie outside [0, K)")
    epsilon = _EPSILON if definition == "reference" else 0.0
    gap = _calibration_gap(t, definition)
    scores = {
        "nll": t.nll / t.count if definition == "fixed" else t.batch_nll / t.batches,
        "accuracy": t.true[0].sum() / t.count,
        "top5": t.top5 / t.count,
        "brier": t.brier / t.count,
        "iou": _mean_iou(t, 0),
        "ece": np.abs(gap).sum(),
        "signed_ece": gap.sum(),
    }
    wrong = t.count - t.true[0].sum()
    for row, cutoff in enumerate(t.cutoffs, 1):
        certain, right = t.labelled[row].sum(), t.true[row].sum()
        tag = f"{100 * cutoff:g}"
        scores[f"accuracy_{tag}"] = _share(right, certain)
        scores[f"iou_{tag}"] = _mean_iou(t, row)
        scores[f"unconfidence_{tag}"] = _share(
            wrong - (certain - right), wrong + epsilon
        )
        scores[f"frequency_{tag}"] = certain / (t.count + epsilon)
    scores["mce"] = np.abs(_share(gap * t.count, t.bin_count)).max()
    scores |= _classwise(t)
    return {name: float(score) for name, score in scores.items()}


def reliability(result: Tally) -> dict[str, list[float]]:
    """Returns the calibration bins of a tally, for diagrams and histograms.

    Args:
      result: A tally without leading axes.

    Returns:
      `edges` [bins + 1], and per bin `count`, `accuracy` and mean `confidence`; the
      last two are 0 in empty bins.
    """
    count, correct, confidence = (
        np.asarray(value, np.float64)
        for value in (result.bin_count, result.bin_correct, result.bin_confidence)
    )
    return {
        "edges": list(result.bins),
        "count": count.tolist(),
        "accuracy": _share(correct, count).tolist(),
        "confidence": _share(confidence, count).tolist(),
    }


def _classwise(t: Tally) -> dict[str, np.ndarray]:
    """Calibration of the probabilities of all classes, and what the Brier score is."""
    gap = t.class_probability - t.class_labelled
    frequency = t.class_labelled.sum(0) / t.count
    reliability = _share(np.square(gap), t.class_count).sum() / t.count
    uncertainty = (frequency * (1 - frequency)).sum()
    return {
        "classwise_ece": np.abs(gap).sum(0).mean() / t.count,
        "brier_reliability": reliability,
        "brier_resolution": reliability + uncertainty - t.brier / t.count,
        "brier_uncertainty": uncertainty,
    }


def _calibration_gap(t: Tally, definition: str) -> np.ndarray:
    """(Confidence - accuracy) of each bin times its share of the examples."""
    if definition == "fixed":
        return (t.bin_confidence - t.bin_correct) / t.count
    confidence = t.bin_confidence_reference / (t.bin_count + _EPSILON)
    gap = confidence - _share(t.bin_correct, t.bin_count)
    return gap * t.bin_count / (t.bin_count.sum() + _EPSILON)


def _mean_iou(t: Tally, row: int) -> np.ndarray:
    """Intersection over union, averaged over the classes that have examples."""
    true, labelled, predicted = t.true[row], t.labelled[row], t.predicted[row]
    present = labelled > 0
    iou = _share(true, labelled + predicted - true)
    return _share(iou[present].sum(), present.sum())


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, 0 where both are 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole != 0)
