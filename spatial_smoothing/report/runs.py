"""Averages over runs: rows of several seeds -> one row for each size.

Rows with the same label, number of samples, data set and split that differ in "run" are
one model trained with several seeds. Their average has "num_runs" and, for every score,
"spread": score -> [min, max]. The intervals of single runs are left out.
"""

from collections.abc import Sequence

import numpy as np

from spatial_smoothing.report.rows import (
    DESCRIPTION,
    Row,
    checked,
    number,
    plain,
    shared,
)


def averaged(rows: Sequence[Row]) -> list[Row]:
    """One row for each label, number of samples, data set and split.

    A row that is alone stays as it is.

    Args:
      rows: Report rows.

    Returns:
      Rows without two that differ in "run" only, in order of first appearance.

    Raises:
      ValueError: The rows are not report rows.
    """
    groups: dict[tuple, list[Row]] = {}
    for row in checked(rows):
        kind = (row["label"], row["num_samples"], row.get("dataset"), row.get("split"))
        groups.setdefault(kind, []).append(row)
    return [
        group[0] if len(group) == 1 else _average(group) for group in groups.values()
    ]


def _average(rows: Sequence[Row]) -> Row:
    """The mean of rows, with what they hold besides single numbers."""
    result = mean(rows)
    nested = {
        "reference": mean,
        "reliability": _reliability,
        "risk_coverage": _risk_coverage,
        "detection": _detection,
    }
    for key, average in nested.items():
        values = [row.get(key) for row in rows]
        if all(values):
            result[key] = average(values)
    return result


def mean(rows: Sequence[Row]) -> Row:
    """The means of the numbers that all rows have, and the texts that all share.

    A number that is undefined in one row is undefined in the mean, too.

    Args:
      rows: At least one row.

    Returns:
      A row with "num_runs" and "spread", score -> [min, max].
    """
    result: Row = {}
    spread = {}
    for key in rows[0]:
        values = [number(row, key) for row in rows]
        if None in values or key in DESCRIPTION:
            if not isinstance(rows[0][key], dict):
                result[key] = shared(rows, key)
        else:
            result[key] = float(np.mean(values))
            spread[key] = [min(values), max(values)]
    return {**result, "num_runs": len(rows), "spread": spread}


def _reliability(values: Sequence[Row]) -> Row | None:
    """The bins of all runs together; None where the runs have different bins."""
    edges = values[0]["edges"]
    if any(value["edges"] != edges for value in values):
        return None
    counts = np.array([value["count"] for value in values])
    total = counts.sum(axis=0)

    def pooled(key: str) -> list[float]:
        """The mean of a bin over the images of all runs."""
        means = np.array([value[key] for value in values], dtype=float)
        sums = np.where(counts > 0, counts * means, 0).sum(axis=0)
        return (sums / np.maximum(total, 1)).tolist()

    return {
        "edges": edges,
        "count": total.tolist(),
        "accuracy": pooled("accuracy"),
        "confidence": pooled("confidence"),
    }


def _risk_coverage(values: Sequence[Row]) -> Row:
    """The mean curve on the coverages of the first run, and the range over runs."""
    coverage = values[0]["coverage"]
    risks = [
        np.interp(coverage, value["coverage"], np.array(value["risk"], dtype=float))
        for value in values
    ]
    ends = {"low": np.min(risks, axis=0), "high": np.max(risks, axis=0)}
    return plain({"coverage": coverage, "risk": np.mean(risks, axis=0), **ends})


def _detection(values: Sequence[Row]) -> Row:
    """The mean of each measure of each score that all runs have."""
    first, *others = (value["scores"] for value in values)
    names = [n for n in first if first[n] and all(other.get(n) for other in others)]
    scores = {name: mean([value["scores"][name] for value in values]) for name in names}
    return {**mean(values), "scores": scores}
