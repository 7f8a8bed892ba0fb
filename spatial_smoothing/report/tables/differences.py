"""The tables that compare models: paired differences, equivalent ensemble sizes."""

from collections.abc import Sequence

from spatial_smoothing.report.columns import COLUMNS, column
from spatial_smoothing.report.comparisons import (
    are_alike,
    excludes_zero,
    smoothing_pairs,
)
from spatial_smoothing.report.rows import (
    UNDEFINED,
    Row,
    number,
    series,
    shared,
    text,
    written,
)
from spatial_smoothing.report.tables.cells import (
    Cell,
    Heading,
    Line,
    Name,
    SeriesHead,
    Table,
    cell,
    heading_above,
    heading_of,
    in_brackets,
    series_table,
)

_MATCHED = ("nll", "accuracy", "ece")


def differences_table(differences: Sequence[Row]) -> Table | None:
    """Every paired difference with its interval; those that exclude zero are marked.

    Args:
      differences: Paired differences, checked; see `comparisons`.

    Returns:
      The table, None without a difference.
    """
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
    return series_table(
        groups,
        lambda row: [_difference_cell(key, row["values"].get(key)) for key in keys],
        SeriesHead([heading_of(key) for key in keys], first="Difference"),
        section="Paired differences",
        caption="Differences between two models on the same "
        f"{f'{images:,.0f} ' if images else ''}test images. In brackets, the 95 % "
        "interval of a paired bootstrap over these images; an asterisk marks an "
        "interval that excludes zero.",
        notes=[
            "Differences of values in % are percentage points. The arrow points to the "
            "side on which the first model is better.",
            "The intervals say how far other test images could move a difference, not "
            "how far another seed could; where there is no difference, one in twenty "
            "excludes zero.",
        ],
    )


def _difference_cell(key: str, value: Sequence[float | None] | None) -> Cell:
    if value is None or value[0] is None:
        return cell(UNDEFINED)
    estimate, low, high = value
    mark = "*" if excludes_zero(value) else ""
    below = [] if None in (low, high) else [in_brackets(key, low, high)]
    sign = "+" if estimate > 0 else ""
    return cell(f"{sign}{written(key, estimate)}{mark}", below=below)


def equivalents_table(rows: Sequence[Row]) -> Table | None:
    """The smallest N at which smoothing reaches the unsmoothed model's largest N.

    Args:
      rows: Report rows, averaged over runs.

    Returns:
      The table, None where no two models with equally many runs differ in smoothing
      alone.
    """
    groups = series(rows)
    pairs = [
        (smoothed, baseline)
        for smoothed, baseline in smoothing_pairs(groups)
        if are_alike(groups[smoothed], groups[baseline])
    ]
    keys = [
        key
        for key in _MATCHED
        if any(number(groups[baseline][-1], key) is not None for _, baseline in pairs)
    ]
    if not keys:
        return None
    counts_runs = any("num_runs" in row for row in rows)
    lines = []
    for smoothed, baseline in pairs:
        target = groups[baseline][-1]
        cells = [Cell(baseline, is_name=True), Cell(str(target["num_samples"]))]
        if counts_runs:
            cells.append(Cell(str(target.get("num_runs", 1))))
        for key in keys:
            cells.append(cell(text(target, key)))
            cells.append(cell(_size_needed(groups[smoothed], target, key)))
        lines.append(Line(Name(smoothed), None, cells))
    names = [
        Heading("Smoothed model", rows=2, is_name=True),
        Heading("Unsmoothed model", rows=2, is_name=True),
        Heading("at N", rows=2),
    ]
    if counts_runs:
        names.append(Heading("Runs", rows=2))
    above = [heading_above(column(key).heading, columns=2, key=key) for key in keys]
    below = [Heading(text) for text in ("target", "N needed") * len(keys)]
    return Table(
        heading="Equivalent ensemble size",
        caption="The smallest number of samples N at which a smoothed model is at "
        "least as good as the unsmoothed one at its largest N, by the values of "
        "Table 1.",
        head=[[*names, *above], below],
        groups=[lines],
    )


def _size_needed(group: Sequence[Row], target: Row, key: str) -> str:
    """The smallest size at which a series reaches the target's value of a score."""
    goal = number(target, key)
    if goal is None:
        return UNDEFINED
    sign = 1 if column(key).better == "lower" else -1
    for row in group:
        value = number(row, key)
        if value is not None and sign * value <= sign * goal:
            return str(row["num_samples"])
    return "not reached"
