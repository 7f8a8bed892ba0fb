"""The chapters of a report: suite -> how its rows are shown.

Rows without a "suite", or with one that is not listed here, are those of ensembles,
which `tables`, `pictures` and `summary` show. A row of a chapter has "suite", "label"
and what its chapter says; "arrays", name -> array, is stored beside the report.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from spatial_smoothing.report.markup import Table
from spatial_smoothing.report.pictures import Picture
from spatial_smoothing.report.rows import Row


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


CHAPTERS: dict[str, Chapter] = {}


def split(rows: Sequence[Row]) -> tuple[list[Row], dict[str, list[Row]]]:
    """Parts the rows of ensembles from those of each chapter, in the order of these.

    Raises:
      ValueError: a row of a chapter has no label.
    """
    chapters = {
        suite: [row for row in rows if row.get("suite") == suite] for suite in CHAPTERS
    }
    for suite, group in chapters.items():
        for row in group:
            if not isinstance(row.get("label"), str) or not row["label"].strip():
                raise ValueError(
                    f"a row of suite {suite!r} has label {row.get('label')!r}; "
                    "give it the model's name"
                )
    ensembles = [row for row in rows if row.get("suite") not in CHAPTERS]
    return ensembles, {suite: group for suite, group in chapters.items() if group}
