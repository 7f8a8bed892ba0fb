"""The tables in the terminal: rows -> `rich.table.Table`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spatial_smoothing.lookup import unknown
from spatial_smoothing.report.columns import COLUMNS, DETECTORS, column
from spatial_smoothing.report.rows import (
    Row,
    band,
    best,
    detected,
    detectors,
    number,
    series,
    shared,
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

    Behind a value stands half of its interval, "±0.012", or for a mean over runs half
    of its range, "↕0.012". Where rows are of several runs, a column counts these.

    Args:
      rows: Report rows.
      columns: Keys of the rows. Of the default ones, those without a value are left
        out.

    Returns:
      A table for `rich.print`.

    Raises:
      ValueError: A key of `columns` is unknown.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = averaged(rows)
    columns = _columns(rows, columns)
    legend = _legend(rows, columns)
    result = Table(
        box=box.SIMPLE_HEAD,
        # The narrow form is for bands, of which four fit into 80 columns.
        padding=(0, 1, 0, 0) if any("±" in x or "↕" in x for x in legend) else (0, 1),
        pad_edge=False,
        caption="\n".join(legend) or None,
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
        key: [max(len(part(row, key)) for row in rows) for part in (_value, _half)]
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


def _columns(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """The columns to show.

    Args:
      rows: Report rows, averaged over runs.
      columns: Keys of the rows.

    Raises:
      ValueError: A key is unknown.
    """
    known = dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)])
    for key in columns:
        if key not in known:
            raise unknown("column", key, known)
    shown = list(columns)
    if columns is DEFAULT_COLUMNS:
        shown = [
            key
            for key in columns
            if key == "label" or any(number(row, key) is not None for row in rows)
        ]
    if "num_runs" not in shown and any("num_runs" in row for row in rows):
        place = shown.index("num_samples") + 1 if "num_samples" in shown else 1
        shown.insert(place, "num_runs")
    return shown


def _legend(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """What the signs behind values mean, and how many runs there are, a line each."""
    banded = [row for row in rows if any(band(row, key) for key in columns)]
    means = [row for row in banded if "num_runs" in row]
    lines = []
    if len(means) < len(banded):
        lines.append("±: half of the 95 % bootstrap interval over the test images")
    if means:
        count = shared(means, "num_runs") or "the"
        lines.append(f"↕: half of the range over {count} runs")
    if not any("num_runs" in row for row in rows) and any(r.get("run") for r in rows):
        lines.append("1 run each")
    return lines


def _head(key: str) -> "Text":
    from rich.text import Text

    known = column(key)
    return Text(f"{known.heading} %" if known.unit == "%" else known.heading)


def _value(row: Row, key: str) -> str:
    """The value of a row as it is shown; a row that is no mean is of one run."""
    return text({"num_runs": 1, **row}, key)


def _cell(
    row: Row, key: str, best_value: str | None, width: int, half_width: int
) -> "Text":
    """The value of a row and half its band.

    Args:
      row: A row.
      key: The score.
      best_value: The best value of the column as it is shown, None for none.
      width: Characters of the longest value of the column.
      half_width: Characters of the longest band of the column, 0 without bands.
    """
    from rich.text import Text

    value = _value(row, key)
    cell = Text(value, style="bold" if value == best_value else "")
    if half_width:  # aligned here, as Rich drops the spaces where a band is missing
        cell.append(_half(row, key).ljust(half_width), style="not bold")
        cell.pad_left(max(width + half_width, len(_head(key))) - len(cell))
        cell.justify = "left"
    return cell


def _half(row: Row, key: str) -> str:
    """Half the width of a value's band: "±0.021"; empty where there is none."""
    bounds = band(row, key)
    if not bounds:
        return ""
    sign = "↕" if "num_runs" in row else "±"
    return f"{sign}{written(key, (bounds[1] - bounds[0]) / 2)}"


def print_table(
    rows: Sequence[Row], *, columns: Sequence[str] = DEFAULT_COLUMNS
) -> None:
    """Prints `table(rows)` in the width of the terminal.

    Args:
      rows: Report rows.
      columns: Keys of the rows.
    """
    from rich.console import Console

    Console().print(table(rows, columns=columns))


def detection_lines(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The lines of a table of out-of-distribution detection: heading -> text.

    Args:
      rows: Report rows, of which those with "detection" have a line.

    Returns:
      For each label and number of samples the AUROC of each score.
    """
    rows = [row for row in averaged(rows) if detectors([row])]
    names = detectors(rows)
    counts_runs = any("num_runs" in row for row in rows)
    lines = []
    for name, group in series(rows).items():
        for row in group:
            line = {"Model": name if row is group[0] else ""}
            line["N"] = str(row["num_samples"])
            if counts_runs:
                line["Runs"] = str(row.get("num_runs", 1))
            for score in names:
                # The first word tells the scores apart and leaves room for the others.
                heading = DETECTORS.get(score, (score,))[0].split()[0]
                line[heading] = text(detected(row, score), "auroc")
            lines.append(line)
    return lines


def print_lines(lines: Sequence[Mapping[str, str]], *, title: str) -> None:
    """Prints lines as a table under a title.

    Args:
      lines: Lines, heading -> text.
      title: The title.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # As `Text`: the name of a workdir may have brackets, which Rich takes for markup.
    result = Table(
        box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", pad_edge=False
    )
    for index, heading in enumerate(lines[0] if lines else ()):
        result.add_column(Text(heading), justify="right" if index else "left")
    for line in lines:
        result.add_row(*map(Text, line.values()))
    Console().print(result)
