"""The HTML page: rows, provenance and pictures -> one self-contained document.

The page needs nothing else: images and style are part of it, there is no script and no
link. Every text from outside goes through `html.escape`.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from spatial_smoothing.report import comparisons, summary
from spatial_smoothing.report.chapters import CHAPTERS
from spatial_smoothing.report.figures.pictures import Picture
from spatial_smoothing.report.rows import Row, shared
from spatial_smoothing.report.style import CSS
from spatial_smoothing.report.tables import cells as markup
from spatial_smoothing.report.tables import scores as tables

_HEADINGS = (
    "Results",
    "Paired differences",
    "Equivalent ensemble size",
    "Number of samples",
    "Accuracy and NLL",
    "Time",
    "Calibration",
    "Confidence",
    "Temperature",
    "Uncertainty and selective prediction",
    "Out-of-distribution detection",
    "Streams",
    "Two definitions",
)


def html(
    rows: Sequence[Row],
    *,
    differences: Sequence[Row],
    provenance: Mapping[str, Any],
    title: str,
    pictures: Sequence[Picture],
    generated: datetime,
    chapters: Mapping[str, tuple[Sequence[Row], Sequence[Picture]]] | None = None,
) -> str:
    """The document.

    Args:
      rows: report rows, averaged over runs; none for a page of chapters alone.
      differences: paired differences, checked.
      provenance: nested dict of plain values.
      title: the heading, plain text.
      pictures: the figures, in order.
      generated: the date, UTC.
      chapters: suite -> its rows and figures.

    Returns:
      HTML.
    """
    chapters = dict(chapters or {})
    words = summary.paragraph(rows, differences=differences) if rows else ""
    words = words.replace(" %", "\u00a0%")  # one unbroken word
    headings, found = list(_HEADINGS), _tables(rows, differences) if rows else []
    for suite, (group, more) in chapters.items():
        headings += CHAPTERS[suite].headings
        found += CHAPTERS[suite].tables(group)
        pictures = [*pictures, *more]
    sections = [
        _section("Summary", f"<p>{escape(words)}</p>\n" if words else ""),
        *_numbered(headings, found, pictures),
        _section("Provenance", _entries(provenance)),
    ]
    shown = rows or [row for group, _ in chapters.values() for row in group]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<p class="facts">{_facts(shown, generated)}</p>
</header>
{"".join(sections)}</main>
</body>
</html>
"""


def _tables(rows: Sequence[Row], differences: Sequence[Row]) -> list[markup.Table]:
    """The tables that there are values for."""
    found = (
        tables.results(rows),
        comparisons.differences_table(differences),
        comparisons.equivalents_table(rows),
        tables.calibration(rows),
        tables.temperature(rows),
        tables.uncertainty(rows),
        tables.detection(rows),
        tables.streams(rows),
        tables.definitions(rows),
    )
    return [table for table in found if table]


def _numbered(
    headings: Sequence[str], tables: Sequence[markup.Table], pictures: Sequence[Picture]
) -> list[str]:
    """The sections in the order of their headings: tables if any, then figures."""
    sections, table_number, figure_number = [], 0, 0
    for heading in headings:
        body = ""
        for table in (table for table in tables if table.heading == heading):
            table_number += bool(table.head)
            body += markup.html(table, table_number)
        for picture in (picture for picture in pictures if picture.heading == heading):
            figure_number += 1
            body += _figure(figure_number, picture)
        sections.append(_section(heading, body))
    return sections


def _section(heading: str, body: str) -> str:
    return f"<section>\n<h2>{escape(heading)}</h2>\n{body}</section>\n" if body else ""


def _facts(rows: Sequence[Row], generated: datetime) -> str:
    """Data set, split and images where all rows share them, and the date."""
    dataset, split = shared(rows, "dataset"), shared(rows, "split")
    images = shared(rows, "num_examples")
    models = len({row["label"] for row in rows})
    runs = shared(rows, "num_runs")
    facts = [
        str(dataset) if dataset else "",
        f"{split} split" if split else "",
        f"{images:,.0f} images" if images else "",
        "1 model" if models == 1 else f"{models} models",
        f"{runs} runs each" if runs else "",
    ]
    date = (
        f'generated <time datetime="{generated:%Y-%m-%dT%H:%MZ}">'
        f"{generated:%Y-%m-%d %H:%M} UTC</time>"
    )
    return " · ".join([*(escape(fact) for fact in facts if fact), date])


def _figure(number: int, picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    # Below 70 % of its size the letters of a figure are too small: it scrolls instead.
    width = round(96 * picture.width)
    image = (
        f'<img src="data:image/png;base64,{data}" alt="{escape(picture.alt)}" '
        f'width="{width}" style="min-width: {round(0.7 * width)}px">'
    )
    return (
        f'<figure>\n<div class="scroll" role="region" aria-label="Figure {number}" '
        f'tabindex="0">{image}</div>\n<figcaption>Figure {number}. '
        f"{escape(picture.caption)}</figcaption>\n</figure>\n"
    )


def _entries(values: Mapping[str, Any]) -> str:
    """Single values as a list of definitions, then groups of values, opened."""
    groups = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    single = [(key, value) for key, value in values.items() if key not in groups]
    items = "".join(
        f"<dt>{escape(str(key))}</dt><dd>{escape(_shown(value))}</dd>\n"
        for key, value in single
    )
    details = "".join(
        f"<details open>\n<summary>{escape(str(key))}</summary>\n{_entries(value)}"
        "</details>\n"
        for key, value in groups.items()
    )
    return (f"<dl>\n{items}</dl>\n" if items else "") + details


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
