"""Mean corruption errors, of any score that is lower where a network is better.

Contract of this file: scores are [C, S], of C corruptions at S severities; those of a
baseline are laid out alike. A corruption counts by the sum over its severities, and all
corruptions count the same. Source: Hendrycks & Dietterich, ICLR 2019, section 4; for
NLL and ECE, Park & Kim, ICML 2022, appendix E.
"""

import numpy as np


def mean_corruption(scores: np.ndarray, *, baseline: np.ndarray | None = None) -> float:
    """Returns mCE of error rates, mCNLL of NLLs, mCECE of ECEs.

    mean_c(sum_s scores[c, s] / sum_s baseline[c, s]), a fraction; without a baseline
    the mean of the scores, in their unit.
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

    mean_c(sum_s (scores[c, s] - clean) / sum_s (baseline[c, s] - baseline_clean)).
    Without a baseline the mean of the differences, in the unit of the score. NaN where
    the baseline's clean score is not known, or a corruption does not make it worse.
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
    sums = np.asarray(baseline, np.float64).sum(axis=1)
    if not np.all(sums > 0):
        return float("nan")
    return float((scores.sum(axis=1) / sums).mean())
