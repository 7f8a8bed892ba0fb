"""Comparisons between models: smoothed and unsmoothed ones, and paired differences.

A difference is a dict {"label": "A minus B", "num_samples": ..., "num_examples": ...,
"values": {score: [estimate, low, high]}} of two models on the same test images, with a
95 % interval of a bootstrap that resamples the images of both alike.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from spatial_smoothing.report.rows import Row, plain

# What the label of a model with smoothing has more than that of the one without it.
SMOOTHED = " + smoothing"


def checked_differences(differences: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A plain copy of differences.

    Args:
      differences: Paired differences; see the module.

    Raises:
      ValueError: One lacks its label, its number of samples or its values, or a value
        is not an estimate with both ends of its interval.
    """
    differences = plain(list(differences))
    for index, difference in enumerate(differences):
        for key in ("label", "num_samples", "values"):
            if not difference.get(key):
                raise ValueError(
                    f"difference {index} has {key} {difference.get(key)!r}; "
                    "it needs label, num_samples and values"
                )
        for key, value in difference["values"].items():
            if not isinstance(value, list) or len(value) != 3:
                raise ValueError(
                    f"difference {index} ({difference['label']!r}) has {key} "
                    f"{value!r}; expected [estimate, low, high]"
                )
    return differences


def smoothing_pairs(groups: Mapping[str, Sequence[Row]]) -> list[tuple[str, str]]:
    """The pairs of series whose models differ in smoothing alone.

    Series whose "recipe" differs make no pair: what else differs would be credited to
    smoothing. Where a model has several series (deterministic and deep ensemble, say),
    the one with the most similar name, smoothing apart, is the baseline.

    Args:
      groups: Series -> its rows; see `rows.series`.

    Returns:
      Pairs (smoothed series, its baseline without smoothing).
    """
    kinds = {name: _kind(row) for name, (row, *_) in groups.items()}
    pairs = []
    for smoothed, (has_smoothing, *kind) in kinds.items():
        baselines = [name for name in groups if kinds[name] == (False, *kind)]
        if has_smoothing and baselines:
            name = smoothed.replace(SMOOTHED, "", 1)
            (alike,) = difflib.get_close_matches(name, baselines, n=1, cutoff=0)
            pairs.append((smoothed, alike))
    return pairs


def is_smoothed(row: Row) -> bool:
    """Whether the network of a row has smoothing: by "smoothed", its model or label."""
    if row.get("smoothed") is not None:
        return bool(row["smoothed"])
    return "_smoothing" in str(row.get("model")) or SMOOTHED in row["label"]


def _kind(row: Row) -> tuple:
    """Whether a row's network smooths, then what two networks of a pair share."""
    model = str(row.get("model"))
    smoothed = row.get("smoothed", "_smoothing" in model)
    same = (row.get(key) for key in ("recipe", "dataset", "split"))
    return smoothed, model.replace("_smoothing", ""), *same


def are_alike(rows: Sequence[Row], others: Sequence[Row]) -> bool:
    """Whether the rows of two series are of equally many runs and images."""
    counts = [
        {(row.get("num_runs", 1), row.get("num_examples")) for row in group}
        for group in (rows, others)
    ]
    return counts[0] == counts[1] and len(counts[0]) == 1


def difference(
    differences: Sequence[Row], first: str, second: str, size: int
) -> Row | None:
    """The paired difference of two series, None where there is none.

    Args:
      differences: Paired differences, checked.
      first: The series that the other one is taken from.
      second: The other one.
      size: int >= 1, number of samples of the first one.
    """
    wanted = f"{first} minus {second}", size
    found = [d for d in differences if (d["label"], d["num_samples"]) == wanted]
    return found[0] if found else None


def excludes_zero(value: Sequence[float | None]) -> bool:
    """Whether the interval of [estimate, low, high] is on one side of zero."""
    _, low, high = value
    return None not in (low, high) and (low > 0 or high < 0)
