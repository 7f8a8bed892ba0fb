"""Mean corruption errors, of any score that is lower where a network is better.

Contract of this file: scores are f[C, S], of C corruptions at S severities; a baseline
has the same shape. A corruption counts by the sum over its severities, and all
corruptions count the same. Source: Hendrycks & Dietterich, ICLR 2019, section 4; for
NLL and ECE, Park & Kim, ICML 2022, appendix E.
"""

import numpy as np


def mean_corruption(scores: np.ndarray, *, baseline: np.ndarray | None = None) -> float:
    """Returns mCE of error rates, mCNLL of NLLs, mCECE of ECEs.

    Args:
      scores: f[C, S].
      baseline: f[C, S], the scores of another network; None for no division.

    Returns:
      mean_c(sum_s scores[c, s] / sum_s baseline[c, s]), a fraction; NaN where a sum of
      the baseline is not positive. Without a baseline it is the mean of the scores, in
      their unit.

    Raises:
      ValueError: for scores and a baseline of different shapes.
    """
    return _mean(np.asarray(scores, np.float64), baseline)


def relative_mean_corruption(
    scores: np.ndarray,
    clean: float,
    *,
    baseline: np.ndarray | None = None,
    baseline_clean: float | None = None,
) -> float:
    """Returns the relative mCE: what corruption adds to the score on clean images.

    Args:
      scores: f[C, S].
      clean: The score on clean images.
      baseline: f[C, S], the scores of another network; None for no division.
      baseline_clean: The score of that network on clean images; None if unknown.

    Returns:
      mean_c(sum_s (scores[c, s] - clean) / sum_s (baseline[c, s] - baseline_clean));
      NaN where the baseline's clean score is not known, or a corruption does not make
      the baseline worse. Without a baseline it is the mean of the differences, in the
      unit of the score.

    Raises:
      ValueError: for scores and a baseline of different shapes.
    """
    added = np.asarray(scores, np.float64) - clean
    if baseline is None:
        return _mean(added, None)
    if baseline_clean is None:
        return float("nan")
    return _mean(added, np.asarray(baseline, np.float64) - baseline_clean)


def _mean(scores: np.ndarray, baseline: np.ndarray | None) -> float:
    if baseline is None:
        return float(scores.mean())
    baseline = np.asarray(baseline, np.float64)
    if baseline.shape != scores.shape:
        raise ValueError(
            "scores and their baseline must have one shape, got "
            f"{list(scores.shape)} and {list(baseline.shape)}"
        )
    sums = baseline.sum(axis=1)
    if not np.all(sums > 0):
        return float("nan")
    # One division for each corruption: the severities of one have the same weight.
    return float((scores.sum(axis=1) / sums).mean())
