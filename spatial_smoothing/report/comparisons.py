"""Comparisons between models: smoothed and unsmoothed ones, and paired differences.

A difference is a dict {"label": "A minus B", "num_samples": ..., "num_examples": ...,
"values": {score: [estimate, low, high]}} of two models on the same test images, with a
95 % interval of a bootstrap that resamples the images of both alike.
"""

import difflib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from spatial_smoothing.report.columns import COLUMNS, column
from spatial_smoothing.report.rows import (
    Row,
    number,
    plain,
    series,
    shared,
    text,
    written,
)
from spatial_smoothing.report.tables import cells as markup
from spatial_smoothing.report.tables.cells import Table

_MATCHED = ("nll", "accuracy", "ece")


def checked_differences(differences: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A plain copy of `differences`.

    Raises:
      ValueError: one lacks its label, its number of samples or its values, or a value
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
    """(smoothed, baseline) for every series whose model differs only in smoothing.

    Those whose "recipe" differs make no pair: what else differs would be credited to
    smoothing. Where a model has several series (deterministic and deep ensemble, say),
    that with the most similar name, smoothing apart, is the baseline.
    """
    kinds = {name: _kind(row) for name, (row, *_) in groups.items()}
    pairs = []
    for smoothed, (has_smoothing, *kind) in kinds.items():
        baselines = [name for name in groups if kinds[name] == (False, *kind)]
        if has_smoothing and baselines:
            name = smoothed.replace(" + smoothing", "", 1)
            (alike,) = difflib.get_close_matches(name, baselines, n=1, cutoff=0)
            pairs.append((smoothed, alike))
    return pairs


def _kind(row: Row) -> tuple:
    """Whether a row is of a network with smoothing, and what it is of apart from it."""
    model = str(row.get("model"))
    smoothed = row.get("smoothed", "_smoothing" in model)
    same = (row.get(key) for key in ("recipe", "dataset", "split"))
    return smoothed, model.replace("_smoothing", ""), *same


def difference(
    differences: Sequence[Row], first: str, second: str, size: int
) -> Row | None:
    """The paired difference of two series at a number of samples, if it is there."""
    wanted = f"{first} minus {second}", size
    found = [d for d in differences if (d["label"], d["num_samples"]) == wanted]
    return found[0] if found else None


def excludes_zero(value: Sequence[float | None]) -> bool:
    """Whether the interval of [estimate, low, high] lies on one side of zero."""
    _, low, high = value
    return None not in (low, high) and (low > 0 or high < 0)


def differences_table(differences: Sequence[Row]) -> Table | None:
    """Every paired difference with its interval; those that exclude zero marked."""
    present = dict.fromkeys(key for d in differences for key in d["values"])
    keys = [
        *(k for k in COLUMNS if k in present),
        *(k for k in present if k not in COLUMNS),
    ]
    if not keys:
        return None
    groups: dict[str, list[Row]] = {}
    for each in differences:
        groups.setdefault(each["label"], []).append(each)
    images = shared(differences, "num_examples")

    def cells(each: Row) -> str:
        return "".join(_difference_cell(key, each["values"].get(key)) for key in keys)

    return Table(
        "Paired differences",
        "Differences between two models on the same "
        f"{f'{images:,.0f} ' if images else ''}test images. In brackets, the 95 % "
        "interval of a paired bootstrap over these images; an asterisk marks an "
        "interval that excludes zero.",
        [markup.name_heads("Difference") + markup.heads(keys)],
        markup.lines(groups, cells),
        [
            "Differences of values in % are percentage points. The arrow points to the "
            "side on which the first model is better.",
            "The intervals say how far other test images could move a difference, not "
            "how far another seed could; where there is no difference, one in twenty "
            "excludes zero.",
        ],
    )


def _difference_cell(key: str, value: Sequence[float | None] | None) -> str:
    if value is None or value[0] is None:
        return markup.cell("-")
    estimate, low, high = value
    mark = "*" if excludes_zero(value) else ""
    below = "" if None in (low, high) else markup.brackets(key, low, high)
    sign = "+" if estimate > 0 else ""
    return markup.cell(f"{sign}{written(key, estimate)}{mark}", below=below)


def equivalents_table(rows: Sequence[Row]) -> Table | None:
    """The smallest N at which smoothing reaches the unsmoothed model's largest N."""
    groups = series(rows)
    pairs = smoothing_pairs(groups)
    keys = [
        key
        for key in _MATCHED
        if any(number(groups[baseline][-1], key) is not None for _, baseline in pairs)
    ]
    if not keys:
        return None
    head = markup.name_heads(
        "Smoothed model", "Unsmoothed model", size="at N", rowspan=2
    )
    for key in keys:
        head += markup.over(column(key).heading, columns=2, key=key)
    body = ""
    for smoothed, baseline in pairs:
        target = groups[baseline][-1]
        body += (
            f'<tr><th scope="row" class="name">{escape(smoothed)}</th>'
            f'<td class="name">{escape(baseline)}</td>'
            f"<td>{target['num_samples']}</td>"
        )
        for key in keys:
            needed = _size_needed(groups[smoothed], target, key)
            body += markup.cell(text(target, key)) + markup.cell(needed)
        body += "</tr>\n"
    return Table(
        "Equivalent ensemble size",
        "The smallest number of samples N at which a smoothed model is at least as "
        "good as the unsmoothed one at its largest N, by the values of Table 1.",
        [head, markup.under(*["target", "N needed"] * len(keys))],
        f"<tbody>\n{body}</tbody>\n",
    )


def _size_needed(group: Sequence[Row], target: Row, key: str) -> str:
    goal = number(target, key)
    if goal is None:
        return "-"
    sign = 1 if column(key).better == "lower" else -1
    for row in group:
        value = number(row, key)
        if value is not None and sign * value <= sign * goal:
            return str(row["num_samples"])
    return "not reached"
