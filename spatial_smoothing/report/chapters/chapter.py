"""A chapter of a report: how the rows of one suite are shown.

A row of a chapter has "suite", "label" and what its suite says; "arrays", name ->
array, is stored beside the report. Rows of one label that differ in "run" are shown
one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from spatial_smoothing.report.columns import column
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.figures.pictures import Picture
from spatial_smoothing.report.rows import Row, text
from spatial_smoothing.report.tables.cells import (
    Heading,
    SeriesHead,
    Table,
    heading_of,
    score_cell,
    series_table,
)


class Chapter(NamedTuple):
    """How the rows of a suite are shown.

    Attributes:
      headings: The headings of its sections on the page, in order.
      tables: Function of rows that returns tables, each under one of the headings.
      pictures: Function of rows and of the looks of models that returns file name ->
        picture, each under one of the headings.
      files: The names that `pictures` may return.
      lines: Function of rows that returns the lines of the table in the terminal,
        heading -> text.
      required: Keys that every row needs besides "label"; "a or b" is one of two.
    """

    headings: Sequence[str]
    tables: Callable[[Sequence[Row]], Sequence[Table]]
    pictures: Callable[[Sequence[Row], Looks], Mapping[str, Picture]]
    files: Sequence[str]
    lines: Callable[[Sequence[Row]], Sequence[Mapping[str, str]]]
    required: Sequence[str] = ()


def by_label(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each label, in order of appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["label"], []).append(row)
    return groups


def by_run(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each run of each label; see `names` for what a run is called."""
    groups: dict[str, list[Row]] = {}
    for name, row in zip(names(rows), rows, strict=True):
        groups.setdefault(name, []).append(row)
    return groups


def table(
    rows: Sequence[Row],
    keys: Sequence[str],
    *,
    each: str,
    heading: str,
    caption: str,
    above: Sequence[Heading] = (),
    notes: Sequence[str] = (),
) -> Table:
    """A table with a line for each row, grouped by label.

    Args:
      rows: Rows of a chapter.
      keys: Scores, one for each column; see `columns`.
      each: Key that tells the rows of a label apart, such as "run".
      heading: Heading of the section.
      caption: What the table shows.
      above: Headings above those of the scores, if there are any. A heading that fills
        two lines takes the place of the next score's own.
      notes: Lines below the table, after the notes of `columns`.
    """
    explained = [
        f"{column(key).heading}: {column(key).note}."
        for key in keys
        if column(key).note
    ]
    if each == "run":
        groups = by_label([{**row, "run": _run(row)} for row in rows])
    elif _are_means(rows):
        groups = by_label(rows)
    else:
        groups = by_run(rows)
    # So many of the first scores have their heading among those above.
    alone = len([heading for heading in above if heading.rows == 2])
    return series_table(
        groups,
        lambda row: [score_cell(row, key) for key in keys],
        SeriesHead([heading_of(key) for key in keys[alone:]], above, each=each),
        section=heading,
        caption=caption,
        notes=[*explained, *notes],
    )


def lines(rows: Sequence[Row], keys: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a table in the terminal: heading -> value.

    Only the first line of a run has its name. Where a row is the mean over several
    runs, each line says how many runs it has.

    Args:
      rows: Rows of a chapter.
      keys: Keys of the rows, one for each column.
    """

    def head(key: str) -> str:
        """The heading of a column, with its unit if that is per cent."""
        heading, unit, *_ = column(key)
        return f"{heading} %" if unit == "%" else heading

    groups = by_run(rows)
    if _are_means(rows):
        groups = by_label([{"num_runs": 1, **row} for row in rows])
        keys = [*keys[:2], "num_runs", *keys[2:]]
    found = []
    for name, group in groups.items():
        for row in group:
            label = {"label": name if row is group[0] else ""}
            found.append({head(key): text({**row, **label}, key) for key in keys})
    return found


def unlike(rows: Sequence[Row], keys: Sequence[str], what: str) -> str:
    """A sentence that says that rows do not compare, "" where they do.

    Args:
      rows: Rows of a chapter.
      keys: Options that all rows must have alike. Rows of older versions lack some.
      what: What the options are of, such as "The noise".
    """
    differing = [key for key in keys if len({row.get(key) for row in rows}) > 1]
    if not differing:
        return ""
    listed = ", ".join(differing)
    return f" {what} differs between models ({listed}), which do not compare."


def _are_means(rows: Sequence[Row]) -> bool:
    """Whether rows of several runs were averaged."""
    return any("num_runs" in row for row in rows)


def names(rows: Sequence[Row]) -> list[str]:
    """The name of each row: its label, and its run where other runs share the label."""
    runs: dict[str, set[Any]] = {}
    for row in rows:
        runs.setdefault(row["label"], set()).add(row.get("run"))
    return [
        row["label"]
        if len(runs[row["label"]]) == 1
        else f"{row['label']} ({_run(row)})"
        for row in rows
    ]


def curves(
    rows: Sequence[Row], *, looks: Looks | None = None
) -> list[tuple[dict[str, Any], list[Row]]]:
    """The rows of each run of each label, with the label and the look of its curve.

    Args:
      rows: Rows of a chapter.
      looks: Colours and markers of the models; without it, they follow from the rows.
    """
    looks = looks or Looks()
    found = []
    for label, group in by_label(rows).items():
        runs: dict[Any, list[Row]] = {}
        for row in group:
            runs.setdefault(row.get("run"), []).append(row)
        found += [({"label": label, **looks[label]}, run) for run in runs.values()]
    return found


def _run(row: Row) -> str:
    """The last part of the path of a row's workdir, "-" where the row has none."""
    return epath.Path(str(row.get("run") or "-")).name
