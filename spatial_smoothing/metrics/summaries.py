"""Scores of a `Tally`, computed once, at the end, in float64.

Two definitions exist where the paper's code has a defect:
- "fixed" (default): NLL is the mean over examples; a calibration bin (low, high] takes
  the confidences of the examples it counts, those of exactly 1 included; a share of
  nothing is NaN.
- "reference": NLL is the unweighted mean of the means of batches; a bin counts
  low < confidence <= high but sums confidences with low <= confidence < high, so that
  a confidence of exactly 1 is counted and never summed; divisors carry 1e-7; a share of
  nothing is 0.
Class-wise scores, which the paper's code lacks, are the same in both.
"""

import jax
import numpy as np

from spatial_smoothing.lookup import unknown
from spatial_smoothing.metrics import formulas
from spatial_smoothing.metrics.formulas import Sums
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
      the resolution is the generalised one of Stephenson et al. 2008. A score that is a
      share of nothing, such as `accuracy_90` without a certain prediction, is NaN
      ("fixed") or 0 ("reference").

    Raises:
      ValueError: for an unknown definition, a tally of no examples, or NaN.
    """
    if definition not in DEFINITIONS:
        raise unknown("definition", definition, DEFINITIONS)
    t = _precise(result)
    if t.count.ndim or t.count == 0:
        raise ValueError(
            f"summary takes one tally of at least one example, got counts {t.count}"
        )
    if np.isnan(t.nll + t.brier):
        raise ValueError(
            "probabilities hold NaN, or labels lie outside [0, K); values far outside "
            "of [0, 1], such as logits or percentages, count as NaN"
        )
    sums = _sums(t)
    if definition == "fixed":
        scores = formulas.scores(sums, cutoffs=t.cutoffs, xp=np)
    else:
        # The formulas divide by the count, which the reference does not.
        sums = sums._replace(
            nll=t.batch_nll / t.batches * t.count, bin_gap=_reference_gap(t)
        )
        scores = formulas.scores(
            sums, cutoffs=t.cutoffs, xp=np, undefined=0.0, epsilon=_EPSILON
        )
    scores |= formulas.brier_terms(
        t.class_count,
        t.class_probability - t.class_labelled,
        t.class_labelled,
        count=t.count,
        brier=t.brier,
        xp=np,
    )
    return {name: float(score) for name, score in scores.items()}


def reliability(result: Tally) -> dict[str, list[float]]:
    """Returns the calibration bins of a tally, for diagrams and histograms.

    Args:
      result: A tally without leading axes.

    Returns:
      `edges` [bins + 1], and for each bin `count`, `accuracy` and mean `confidence`;
      the last two are 0 in a bin whose `count` is 0, and mean nothing there.
    """
    t = _precise(result)
    return {
        "edges": list(t.bins),
        "count": t.bin_count.tolist(),
        "accuracy": _share(t.bin_correct, t.bin_count).tolist(),
        "confidence": _share(t.bin_confidence, t.bin_count).tolist(),
    }


def _precise(result: Tally) -> Tally:
    """The tally in float64."""
    return jax.tree.map(lambda value: np.asarray(value, np.float64), result)


def _sums(t: Tally) -> Sums:
    """What the formulas read of a tally, by the definition "fixed"."""
    return Sums(
        count=t.count,
        nll=t.nll,
        top5=t.top5,
        brier=t.brier,
        true=t.true,
        labelled=t.labelled,
        predicted=t.predicted,
        bin_count=t.bin_count,
        bin_gap=t.bin_confidence - t.bin_correct,
    )


def _reference_gap(t: Tally) -> np.ndarray:
    """Sums of confidence minus accuracy by bin, as the reference has them."""
    confidence = t.bin_confidence_reference / (t.bin_count + _EPSILON)
    gap = confidence - _share(t.bin_correct, t.bin_count)
    return gap * t.bin_count / (t.bin_count.sum() + _EPSILON) * t.count


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, 0 where the whole is 0."""
    return formulas.ratio(part, whole, xp=np, empty=0.0)
