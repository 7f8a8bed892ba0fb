"""The terminal table: rows -> `rich.table.Table`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spatial_smoothing.lookup import unknown
from spatial_smoothing.report.rows import (
    COLUMNS,
    Row,
    best,
    checked,
    column,
    number,
    series,
    text,
)

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT_COLUMNS = ("label", "num_samples", "nll", "accuracy", "ece", "brier")


def table(rows: Sequence[Row], *, columns: Sequence[str] = DEFAULT_COLUMNS) -> "Table":
    """The rows by label, the best of a column in bold; 80 characters wide by default.

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

    rows = checked(rows)
    known = dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)])
    for key in columns:
        if key not in known:
            raise unknown("column", key, known)
    result = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for key in columns:
        heading, unit, *_ = column(key)
        numeric = any(number(row, key) is not None for row in rows)
        result.add_column(
            Text(f"{heading} %" if unit == "%" else heading),
            justify="right" if numeric else "left",
            no_wrap=numeric,
            overflow="fold",
        )
    top = {key: best(rows, key) for key in columns}
    for name, group in series(rows).items():
        for row in group:
            shown = {key: text(row, key) for key in columns}
            bold = {key: "bold" if shown[key] == top[key] else "" for key in columns}
            shown["label"] = name if row is group[0] else ""
            result.add_row(
                *(Text(shown[key], style=bold.get(key, "")) for key in columns),
                end_section=row is group[-1],
            )
    return result


def print_table(
    rows: Sequence[Row], *, columns: Sequence[str] = DEFAULT_COLUMNS
) -> None:
    """Prints `table(rows)` in the width of the terminal."""
    from rich.console import Console

    Console().print(table(rows, columns=columns))
