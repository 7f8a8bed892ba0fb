"""A chapter of a report: how the rows of one suite are shown.

A row of a chapter has "suite", "label" and what its suite says; "arrays", name ->
array, is stored beside the report. Rows of one label that differ in "run" are shown
one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from spatial_smoothing.report.columns import column
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.pictures import Picture
from spatial_smoothing.report.rows import Row, text
from spatial_smoothing.report.tables.cells import (
    Table,
    heading_of,
    score_cell,
    series_table,
)


class Chapter(NamedTuple):
    """How the rows of a suite are shown.

    Attributes:
      headings: Of its sections on the page, in order.
      tables: Rows to tables, each under one of the headings.
      pictures: Rows to file name -> picture, each under one of the headings.
      files: The names that `pictures` may give.
      lines: Rows to the lines of the terminal's table, heading -> text.
    """

    headings: Sequence[str]
    tables: Callable[[Sequence[Row]], Sequence[Table]]
    pictures: Callable[[Sequence[Row]], Mapping[str, Picture]]
    files: Sequence[str]
    lines: Callable[[Sequence[Row]], Sequence[Mapping[str, str]]]


def by_label(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each label, in order."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["label"], []).append(row)
    return groups


def table(
    rows: Sequence[Row],
    keys: Sequence[str],
    *,
    each: str,
    heading: str,
    caption: str,
    notes: Sequence[str] = (),
) -> Table:
    """A line for each row, grouped by label.

    Args:
      rows: Of a chapter.
      keys: Scores, one for each column; see `columns`.
      each: What tells the rows of a label apart, such as "run".
      heading: Of the section.
      caption: Of the table.
      notes: Below the table, after those of `columns`.
    """
    explained = [
        f"{column(key).heading}: {column(key).note}."
        for key in keys
        if column(key).note
    ]
    return series_table(
        by_label([{**row, "run": _run(row)} for row in rows]),
        lambda row: [score_cell(row, key) for key in keys],
        section=heading,
        caption=caption,
        headings=[heading_of(key) for key in keys],
        each=each,
        notes=[*explained, *notes],
    )


def lines(rows: Sequence[Row], keys: Sequence[str]) -> list[dict[str, str]]:
    """The lines of the terminal's table, each value under its heading with the unit.

    A label is said once.
    """

    def head(key: str) -> str:
        heading, unit, *_ = column(key)
        return f"{heading} %" if unit == "%" else heading

    found = []
    for group in by_label(rows).values():
        for row in group:
            again = {"label": ""} if row is not group[0] else {}
            found.append({head(key): text({**row, **again}, key) for key in keys})
    return found


def names(rows: Sequence[Row]) -> list[str]:
    """What each row is called: its label, with the run where others share it."""
    return [
        row["label"]
        if len(by_label(rows)[row["label"]]) == 1
        else f"{row['label']} ({_run(row)})"
        for row in rows
    ]


def curves(rows: Sequence[Row]) -> list[tuple[dict[str, Any], list[Row]]]:
    """The rows of each run of each label, with the label and looks of their curve."""
    found = []
    for (label, group), look in zip(
        by_label(rows).items(), canvas.looks(), strict=False
    ):
        runs: dict[Any, list[Row]] = {}
        for row in group:
            runs.setdefault(row.get("run"), []).append(row)
        found += [({"label": label, **look}, run) for run in runs.values()]
    return found


def _run(row: Row) -> str:
    """The name of a row's workdir."""
    return epath.Path(str(row.get("run"))).name
