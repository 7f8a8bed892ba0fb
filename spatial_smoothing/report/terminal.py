"""The terminal table: rows -> `rich.table.Table`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spatial_smoothing.lookup import unknown
from spatial_smoothing.report.columns import COLUMNS, column
from spatial_smoothing.report.rows import (
    Row,
    band,
    band_meaning,
    best,
    number,
    series,
    text,
    written,
)
from spatial_smoothing.report.runs import averaged

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

DEFAULT_COLUMNS = ("label", "num_samples", "nll", "accuracy", "ece", "brier")


def table(rows: Sequence[Row], *, columns: Sequence[str] = DEFAULT_COLUMNS) -> "Table":
    """The rows by label, the best of a column in bold; 80 characters wide by default.

    Behind a value stands half of its interval or, for an average, of its range.

    Args:
      rows: report rows.
      columns: keys of the rows.

    Returns:
      A table for `rich.print`.

    Raises:
      ValueError: a key of `columns` is unknown.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = averaged(rows)
    known = dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)])
    if columns is DEFAULT_COLUMNS:
        columns = [
            *columns[:2],
            *(k for k in columns[2:] if any(number(r, k) is not None for r in rows)),
        ]
    for key in columns:
        if key not in known:
            raise unknown("column", key, known)
    meaning = band_meaning(rows, columns)
    result = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0) if meaning else (0, 1),  # four bands fit 80 columns
        pad_edge=False,
        caption=f"±: half of {meaning}" if meaning else None,
        caption_justify="left",
    )
    for key in columns:
        numeric = any(number(row, key) is not None for row in rows)
        result.add_column(
            _head(key),
            justify="right" if numeric else "left",
            no_wrap=numeric,
            overflow="fold",
        )
    top = {key: best(rows, key) for key in columns}
    widths = {
        key: [max(len(part(row, key)) for row in rows) for part in (text, _half)]
        for key in columns
    }
    for name, group in series(rows).items():
        for row in group:
            label = Text(name if row is group[0] else "")
            cells = (
                label if key == "label" else _cell(row, key, top[key], *widths[key])
                for key in columns
            )
            result.add_row(*cells, end_section=row is group[-1])
    return result


def _head(key: str) -> "Text":
    from rich.text import Text

    heading, unit, *_ = column(key)
    return Text(f"{heading} %" if unit == "%" else heading)


def _cell(
    row: Row, key: str, best_value: str | None, width: int, half_width: int
) -> "Text":
    """The value of a row and half its band, in columns of these widths."""
    from rich.text import Text

    value = text(row, key)
    cell = Text(value, style="bold" if value == best_value else "")
    if half_width:  # aligned here, as Rich drops the spaces where a band is missing
        cell.append(_half(row, key).ljust(half_width), style="not bold")
        cell.pad_left(max(width + half_width, len(_head(key))) - len(cell))
        cell.justify = "left"
    return cell


def _half(row: Row, key: str) -> str:
    """Half the width of a value's band: "±0.021"; empty where there is none."""
    bounds = band(row, key)
    return f"±{written(key, (bounds[1] - bounds[0]) / 2)}" if bounds else ""


def print_table(
    rows: Sequence[Row], *, columns: Sequence[str] = DEFAULT_COLUMNS
) -> None:
    """Prints `table(rows)` in the width of the terminal."""
    from rich.console import Console

    Console().print(table(rows, columns=columns))


def print_lines(lines: Sequence[Mapping[str, str]], *, title: str) -> None:
    """Prints lines, heading -> text, as a table under a title."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    result = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False
    )
    for index, heading in enumerate(lines[0] if lines else ()):
        result.add_column(heading, justify="right" if index else "left")
    for line in lines:
        result.add_row(*line.values())
    Console().print(result)
