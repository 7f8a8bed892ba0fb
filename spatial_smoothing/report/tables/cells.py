"""The plain data of a table: headings, lines grouped by series, cells and notes.

A table holds texts and no markup. The templates of the page turn it into HTML, and
escape every text while they do.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from spatial_smoothing.report.columns import column
from spatial_smoothing.report.rows import (
    Row,
    band,
    conditional_count,
    shared,
    text,
    written,
)


@dataclasses.dataclass(frozen=True)
class Heading:
    """The heading of one column or of several.

    Attributes:
      text: What the column holds.
      unit: Unit of the values, "" for none.
      better: "lower" or "higher" where that side is better, else "".
      columns: int >= 1, the number of columns below the heading.
      rows: int >= 1, the number of lines of headings that it fills.
      is_name: Whether the column holds names, which stand on the left.
    """

    text: str
    unit: str = ""
    better: str = ""
    columns: int = 1
    rows: int = 1
    is_name: bool = False


@dataclasses.dataclass(frozen=True)
class Cell:
    """A value.

    Attributes:
      text: The value as it is shown.
      below: Smaller lines below the value, such as its interval.
      is_best: Whether the value is the best of its column or line.
      is_name: Whether the cell holds a name.
    """

    text: str
    below: tuple[str, ...] = ()
    is_best: bool = False
    is_name: bool = False


@dataclasses.dataclass(frozen=True)
class Name:
    """The name that stands in front of one line or of several.

    Attributes:
      text: The name.
      code: An identifier below the name, "" for none.
      lines: int >= 1, the number of lines that the name stands for.
    """

    text: str
    code: str = ""
    lines: int = 1


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
      name: The name in front of the line; None where the name of an earlier line
        stands for this one too.
      size: What tells the lines of one name apart, None for nothing.
      cells: The values.
    """

    name: Name | None
    size: str | None
    cells: Sequence[Cell]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
      heading: Heading of the section in which the table stands.
      caption: What the table shows.
      head: Lines of headings; none for a table of which only `lead` is shown.
      groups: Lines, in groups that are set apart by a rule.
      notes: What the scores mean; each is a line below the table.
      lead: A paragraph in front of the table.
    """

    heading: str
    caption: str = ""
    head: Sequence[Sequence[Heading]] = ()
    groups: Sequence[Sequence[Line]] = ()
    notes: Sequence[str] = ()
    lead: str = ""


def heading_of(key: str, *, rows: int = 1) -> Heading:
    """The heading of the score `key`, with its unit and its better side."""
    known = column(key)
    return Heading(known.heading, known.unit, known.better, rows=rows)


def heading_above(text: str, *, columns: int, key: str = "") -> Heading:
    """A heading above several columns, with the unit of the score `key`, if given."""
    known = column(key)
    better, unit = (known.better, known.unit) if key else ("", "")
    return Heading(text, unit, better, columns)


@dataclasses.dataclass(frozen=True)
class SeriesHead:
    """The headings of a table of series.

    Attributes:
      headings: Headings of the values.
      above: Headings above `headings`, if there are any. One that fills two lines
        stands above nothing.
      first: Heading of the names.
      each: Key of the rows that tells the rows of a series apart.
    """

    headings: Sequence[Heading]
    above: Sequence[Heading] = ()
    first: str = "Model"
    each: str = "num_samples"


def series_table(
    groups: Mapping[str, Sequence[Row]],
    cells: Callable[[Row], Sequence[Cell]],
    head: SeriesHead,
    *,
    section: str,
    caption: str,
    notes: Sequence[str] = (),
    lead: str = "",
) -> Table:
    """A table with the name of a series and a line for each of its rows.

    Where a row is the mean over several runs, a column says how many each row has.

    Args:
      groups: Series -> its rows; a series without rows is left out.
      cells: Function of a row that returns the values of its line.
      head: The headings.
      section: Heading of the section.
      caption: What the table shows.
      notes: Lines below the table.
      lead: A paragraph in front of the table.
    """
    height = 2 if head.above else 1
    left = [
        Heading(head.first, rows=height, is_name=True),
        Heading(column(head.each).heading, rows=height),
    ]
    counts_runs = any("num_runs" in row for group in groups.values() for row in group)
    if counts_runs:
        left.append(Heading("Runs", rows=height))

    def all_cells(row: Row) -> list[Cell]:
        """The values of a line, with the number of runs where it is shown."""
        runs = [Cell(str(row.get("num_runs", 1)))] if counts_runs else []
        return [*runs, *cells(row)]

    if head.above:
        lines_of_headings = [[*left, *head.above], head.headings]
    else:
        lines_of_headings = [[*left, *head.headings]]
    return Table(
        heading=section,
        caption=caption,
        head=lines_of_headings,
        groups=[
            _lines(name, group, all_cells, head.each)
            for name, group in groups.items()
            if group
        ],
        notes=notes,
        lead=lead,
    )


def _lines(
    name: str, rows: Sequence[Row], cells: Callable[[Row], Sequence[Cell]], each: str
) -> list[Line]:
    """The lines of a series; the first one has its name."""
    first = Name(name, str(shared(rows, "model") or ""), len(rows))
    return [
        Line(first if index == 0 else None, text(row, each), cells(row))
        for index, row in enumerate(rows)
    ]


def cell(value: str, *, is_best: bool = False, below: Sequence[str] = ()) -> Cell:
    """The cell of a value as `rows.text` writes it, with typographic signs."""
    return Cell(_with_minus(value), tuple(map(_with_minus, below)), is_best)


def score_cell(row: Row, key: str, *, best: str | None = None) -> Cell:
    """The value of a row under `key`, with its band below.

    Below a conditional score is the number of images that it is of, too.

    Args:
      row: A row.
      key: The score.
      best: The best value of the column as it is shown, None for none.
    """
    value, bounds = text(row, key), band(row, key)
    below = []
    if bounds:
        below.append(in_brackets(key, *bounds, is_range="num_runs" in row))
    count = conditional_count(row, key)
    if count is not None:
        # The mean over runs may be no whole number.
        digits = 0 if abs(count - round(count)) < 0.01 else 1
        below.append(f"n = {count:,.{digits}f}")
    return cell(value, is_best=value == best, below=below)


def in_brackets(key: str, low: float, high: float, *, is_range: bool = False) -> str:
    """The ends of a band of the score `key` as they are shown.

    A bootstrap interval is "[0.81, 0.84]", a range over runs "(0.81 … 0.84)".
    """
    ends = written(key, low), written(key, high)
    return "({} … {})".format(*ends) if is_range else "[{}, {}]".format(*ends)


def _with_minus(text: str) -> str:
    return text.replace("-", "−")
