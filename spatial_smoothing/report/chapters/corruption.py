"""The chapter of robustness to corruptions.

A row is a label's scores on one corruption at one `severity`, 0 being clean images, or
the means over corruptions, which name their `normalizer`. The first row's "arrays" has
one image of each corruption at every severity.
"""

import functools
from collections.abc import Sequence

from spatial_smoothing.report.chapters import corruption_figures
from spatial_smoothing.report.chapters.chapter import Chapter, table
from spatial_smoothing.report.chapters.chapter import lines as terminal_lines
from spatial_smoothing.report.chapters.robustness import (
    CHECKED,
    images,
    largest,
    prepared,
    shown,
    side_by_side,
    sized,
)
from spatial_smoothing.report.columns import in_sentence
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.figures.pictures import Picture, bands, picture
from spatial_smoothing.report.rows import Row, number, shared
from spatial_smoothing.report.tables.cells import Table

_HEADING = "Robustness to corruptions"
_DIVIDED = ("mean_cnll", "mean_ce", "mean_cece")
_PLAIN = ("mean_nll", "mean_error", "mean_ece")
_SCORES = ("accuracy", "nll", "ece")
_SCOPE = {"num_corruptions", "severities"}  # what means are over
# What tells which rows may be ranked; see `rows.likeness`.
_DESCRIBED = ("num_runs", "dataset", "split", "num_examples")
_DEVIATING = (
    "(procedural): textures made by noise in place of photographs of frost. "
    "(emulated): motion blur by the formula of ImageMagick, not by ImageMagick."
)


def _means(rows: Sequence[Row]) -> list[Row]:
    """The means; labels say what they are over, where that differs."""
    means = [
        {**row, "scope": _scope(row)} if row.keys() >= _SCOPE else row
        for row in rows
        if "normalizer" in row
    ]
    return prepared(means, ["normalizer"], checked=(*CHECKED, "scope"))


def _scope(row: Row) -> str:
    """What the means of a row are over."""
    return f"{row['num_corruptions']} corruptions at severities {row['severities']}"


def _scores(rows: Sequence[Row]) -> list[Row]:
    found = [row for row in rows if "severity" in row]
    return prepared(found, ["corruption", "severity", "deviation"])


def _keys(means: Sequence[Row]) -> tuple[str, ...]:
    """The means to show: divided by a normaliser where all are."""
    divided = [
        key for key in _DIVIDED if all(number(row, key) is not None for row in means)
    ]
    return tuple(divided) or _PLAIN


def _about(rows: Sequence[Row], means: Sequence[Row]) -> str:
    """What was measured, and what means are divided by."""
    words = f"Measured on {images(rows)} of each corruption and severity."
    if not means:
        return words
    count, severities = (
        shared(means, key) for key in ("num_corruptions", "severities")
    )
    if count and severities:
        words += f" Means are over {count:.0f} corruptions at severities {severities}"
    else:
        words += " Means are over the corruptions that were evaluated"
    names = list(dict.fromkeys(row["normalizer"] for row in means))
    if names == ["none"]:
        return f"{words}, not normalised."
    return f"{words}, divided by those of: {'; '.join(names)}."


def _tables(rows: Sequence[Row]) -> list[Table]:
    means, scores = _means(rows), _scores(rows)
    found = []
    if means:
        keys = (*_keys(means), "relative_mean_ce", "mean_error", "mean_added_error")
        keys = [
            key
            for key in dict.fromkeys(keys)
            if any(number(row, key) is not None for row in means)
        ]
        found.append(
            table(
                means,
                keys,
                each="num_samples",
                heading=_HEADING,
                caption=f"Means over corruptions. {_about(rows, means)}",
            )
        )
    if scores:
        found.append(_by_corruption(scores))
    return found


def _by_corruption(scores: Sequence[Row]) -> Table:
    """A line for each corruption, the scores of each label side by side."""
    names = shown(scores, "corruption")
    groups = largest(scores)
    severities = {label: _severities(rows) for label, rows in groups.items()}
    are_alike = len(set(severities.values())) == 1
    averages = {}
    for label, rows in groups.items():
        heading = sized(label, rows)
        if not are_alike:
            heading += f", severities {severities[label]}"
        averages[heading] = {name: _average(rows, name) for name in names}
    return side_by_side(
        averages,
        names,
        _SCORES,
        section=_HEADING,
        caption="Each corruption, averaged over its severities, at the largest number "
        "of samples N; "
        + (
            "the best of a line is bold."
            if are_alike
            else "averages over other severities do not compare, and none is bold."
        ),
        first="Corruption",
        are_ranked=are_alike,
        notes=[_DEVIATING] if any("(" in words for words in names.values()) else [],
    )


def _severities(rows: Sequence[Row]) -> str:
    """The severities of corrupted images, such as "1, 3, 5"."""
    found = sorted({row["severity"] for row in rows if row["severity"]})
    return ", ".join(map(str, found))


def _average(rows: Sequence[Row], name: str) -> Row:
    """The means of the scores of a corruption over its severities."""
    rows = [row for row in rows if row["corruption"] == name]
    means = {key: rows[0][key] for key in _DESCRIBED if rows and key in rows[0]}
    for key in _SCORES:
        found = [number(row, key) for row in rows]
        if found and None not in found:
            means[key] = sum(found) / len(found)
    return means


def _pictures(rows: Sequence[Row], looks: Looks) -> dict[str, Picture]:
    means, scores = _means(rows), _scores(rows)
    found = {}
    if scores:
        keys = corruption_figures.severity_scores(scores)
        names = in_sentence(keys)
        found["corruption_severity.png"] = picture(
            functools.partial(corruption_figures.severity_figure, scores, looks=looks),
            heading=_HEADING,
            alt=f"Box plots of {names} by severity. {_values(scores)}",
            caption=f"{names} by severity, at the largest number of samples N. A box "
            "is the quartiles and the median over corruptions; whiskers reach the last "
            "value within 1.5 times its length, circles lie beyond. Diamonds are "
            f"images without corruption. {_about(rows, [])}",
        )
    if len({row["num_samples"] for row in means}) > 1:
        keys = _keys(means)
        names = in_sentence(keys)
        found["corruption_size.png"] = picture(
            functools.partial(
                corruption_figures.means_figure, means, keys, looks=looks
            ),
            heading=_HEADING,
            alt=f"Line charts of {names} against the number of samples.",
            caption=f"{names} against the number of samples N, on a logarithmic axis. "
            f"A dashed line is a model with one sample only.{bands(means, keys)} "
            f"{_about(rows, means)}",
        )
    sheets = [row for row in rows if row.get("arrays")]
    if sheets:
        found["corruption_images.png"] = _sheet(sheets[0], rows)
    return found


def _sheet(first: Row, rows: Sequence[Row]) -> Picture:
    """The picture of the images that a row has."""
    alike = [row for row in rows if _model(row) == _model(first)]
    severities = sorted({row["severity"] for row in alike if row.get("severity")})
    clean = "without corruption and " if "clean" in first["arrays"] else ""
    return picture(
        functools.partial(
            corruption_figures.sheet_figure,
            first["arrays"],
            severities,
            shown(alike, "corruption"),
        ),
        heading=_HEADING,
        alt="One image under every corruption, a line each, at severities "
        f"{', '.join(map(str, severities))}.",
        caption=f"The first image of the set, {clean}under every corruption, by "
        f"severity: {images([first])}.",
    )


def _model(row: Row) -> tuple[str, str | None]:
    return row["label"], row.get("run")


def _values(scores: Sequence[Row]) -> str:
    """Mean accuracy at each severity, in words; "" where a row has none."""
    if any(number(row, "accuracy") is None for row in scores):
        return ""
    parts = []
    for label, rows in largest(scores).items():
        values: dict[int, list[float]] = {}
        for row in rows:
            values.setdefault(row["severity"], []).append(row["accuracy"])
        words = ", ".join(
            f"{100 * sum(found) / len(found):.1f}"
            for _, found in sorted(values.items())
        )
        parts.append(f"{sized(label, rows)} {words}")
    return f"Mean accuracy in % from the lowest severity up: {'; '.join(parts)}."


def _lines(rows: Sequence[Row]) -> list[dict[str, str]]:
    means = _means(rows)
    if not means:
        return terminal_lines(
            _scores(rows), ("label", "num_samples", "corruption", "severity", *_SCORES)
        )
    keys = _keys(means)
    return terminal_lines(means, ("label", "num_samples", *keys, "mean_added_error"))


CHAPTER = Chapter(
    headings=(_HEADING,),
    tables=_tables,
    pictures=_pictures,
    files=(
        "corruption_severity.png",
        "corruption_size.png",
        "corruption_images.png",
    ),
    lines=_lines,
    required=("num_samples", "severity or normalizer"),
)
