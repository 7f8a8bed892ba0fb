"""HTML of tables: headings, lines grouped by series, caption and notes.

Every text from outside goes through `html.escape`.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from spatial_smoothing.report.columns import column
from spatial_smoothing.report.rows import Row, band, shared, text, written

_ARROWS = {"lower": "↓", "higher": "↑"}


class Table(NamedTuple):
    """A table of the page; without `head` it is its lead alone."""

    heading: str  # of the section that it stands in
    caption: str = ""
    head: Sequence[str] = ()  # lines of heading cells, HTML
    body: str = ""  # groups of lines, HTML
    notes: Sequence[str] = ()
    lead: str = ""


def html(table: Table, number: int) -> str:
    """The table with its caption above and its notes below, scrolling sideways."""
    lead = f"<p>{escape(table.lead)}</p>\n" if table.lead else ""
    if not table.head:
        return lead
    label, key = f"Table {number}", f"table-{number}"
    lines = "".join(f"<tr>{line}</tr>\n" for line in table.head)
    notes = "".join(f"<li>{escape(note)}</li>\n" for note in table.notes)
    return (
        f'{lead}<p class="caption" id="{key}">{label}. {escape(table.caption)}</p>\n'
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">\n'
        f'<table aria-labelledby="{key}">\n<thead>\n{lines}</thead>\n'
        f"{table.body}</table>\n</div>\n"
        + (f'<ul class="notes">\n{notes}</ul>\n' if notes else "")
    )


def name_heads(*names: str, size: str = "N", rowspan: int = 1) -> str:
    """The headings of what a line is: names, "Model" by default, and the size."""
    span = f' rowspan="{rowspan}"' if rowspan > 1 else ""
    left = "".join(
        f'<th scope="col" class="name"{span}>{name}</th>' for name in names or ["Model"]
    )
    return f'{left}<th scope="col"{span}>{size}</th>'


def heads(keys: Sequence[str]) -> str:
    """One heading for each key, with its unit and the better side below."""
    return "".join(
        f'<th scope="col">{escape(column(key).heading)}<small>{_unit(key)}</small></th>'
        for key in keys
    )


def over(heading: str, *, columns: int, key: str = "") -> str:
    """A heading above several columns, with the unit of `key` beside it."""
    unit = f" <small>{_unit(key)}</small>" if key and _unit(key) != "&nbsp;" else ""
    return (
        f'<th scope="colgroup" colspan="{columns}" class="over">'
        f"{escape(heading)}{unit}</th>"
    )


def under(*names: str) -> str:
    """Headings of single columns below those of `over`."""
    return "".join(f'<th scope="col">{escape(name)}</th>' for name in names)


def lines(
    groups: Mapping[str, Sequence[Row]],
    cells: Callable[[Row], str],
    *,
    each: str = "num_samples",
) -> str:
    """A group of lines per series: its name once, then `each` and `cells` of a row."""
    bodies = []
    for name, group in groups.items():
        if not group:
            continue
        code = shared(group, "model")
        code = f"<code>{escape(str(code))}</code>" if code else ""
        first = (
            f'<th scope="rowgroup" class="name" rowspan="{len(group)}">'
            f"{escape(name)}{code}</th>"
        )
        body = ""
        for row in group:
            size = f'<th scope="row">{escape(text(row, each))}</th>'
            body += f"<tr>{first}{size}{cells(row)}</tr>\n"
            first = ""
        bodies.append(f"<tbody>\n{body}</tbody>\n")
    return "".join(bodies)


def cell(value: str, *, strong: bool = False, below: str = "") -> str:
    """A value, bold if it is the best, with a smaller line below."""
    shown = "–" if value == "-" else _minus(value)
    if strong:
        shown = f"<strong>{shown}</strong>"
    return f"<td>{shown}{f'<small>{_minus(below)}</small>' if below else ''}</td>"


def score_cell(
    row: Row, key: str, *, best: str | None = None, banded: bool = True
) -> str:
    """The value of a row under `key` with its band, if wanted, below."""
    value, bounds = text(row, key), band(row, key) if banded else None
    below = brackets(key, *bounds) if bounds else ""
    return cell(value, strong=value == best, below=below)


def brackets(key: str, low: float, high: float) -> str:
    """An interval of `key` as it is shown: "[0.81, 0.84]"."""
    return f"[{written(key, low)}, {written(key, high)}]"


def _unit(key: str) -> str:
    _, unit, _, _, better, *_ = column(key)
    if not better:
        return escape(unit) or "&nbsp;"
    says = f'role="img" aria-label="{better} is better"'
    return f"{escape(unit) or '&nbsp;'} <span {says}>{_ARROWS[better]}</span>"


def _minus(text: str) -> str:
    return escape(text).replace("-", "−")
