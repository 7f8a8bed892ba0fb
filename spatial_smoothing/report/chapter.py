"""A chapter of a report: how the rows of one suite are shown.

A row of a chapter has "suite", "label" and what its suite says; "arrays", name ->
array, is stored beside the report. Rows of one label that differ in "run" are shown
one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from spatial_smoothing.report import markup
from spatial_smoothing.report.columns import column
from spatial_smoothing.report.markup import Table
from spatial_smoothing.report.pictures import Picture
from spatial_smoothing.report.rows import Row, text


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
    return Table(
        heading,
        caption,
        [markup.name_heads(size=column(each).heading) + markup.heads(keys)],
        markup.lines(
            by_label(rows),
            lambda row: "".join(markup.score_cell(row, key) for key in keys),
            each=each,
        ),
        [*explained, *notes],
    )


def lines(rows: Sequence[Row], keys: Sequence[str]) -> list[dict[str, str]]:
    """The lines of the terminal's table, each value under its heading with the unit."""

    def head(key: str) -> str:
        heading, unit, *_ = column(key)
        return f"{heading} %" if unit == "%" else heading

    return [{head(key): text(row, key) for key in keys} for row in rows]
