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

from spatial_smoothing.report import summary, tables
from spatial_smoothing.report.pictures import Picture
from spatial_smoothing.report.rows import Row, series, shared
from spatial_smoothing.report.style import CSS


def html(
    rows: Sequence[Row],
    *,
    provenance: Mapping[str, Any],
    title: str,
    pictures: Sequence[Picture],
    generated: datetime,
) -> str:
    """The document.

    Args:
      rows: report rows, checked.
      provenance: nested dict of plain values.
      title: the heading, plain text.
      pictures: the figures, in order.
      generated: the date, UTC.

    Returns:
      HTML.
    """
    words = summary.paragraph(rows).replace(" %", "\u00a0%")  # one unbroken word
    sections = [
        _section("Summary", f"<p>{escape(words)}</p>\n"),
        _section("Results", tables.results(rows)),
        *(_figure(number, picture) for number, picture in enumerate(pictures, start=1)),
        _section("Two definitions", tables.definitions(rows)),
        _section("Provenance", _entries(provenance)),
    ]
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
<p class="facts">{_facts(rows, generated)}</p>
</header>
{"".join(sections)}</main>
</body>
</html>
"""


def _section(heading: str, body: str) -> str:
    return f"<section>\n<h2>{escape(heading)}</h2>\n{body}</section>\n" if body else ""


def _facts(rows: Sequence[Row], generated: datetime) -> str:
    """Data set, split and images where all rows share them, and the date."""
    dataset, split = shared(rows, "dataset"), shared(rows, "split")
    images, models = shared(rows, "num_examples"), len(series(rows))
    facts = [
        str(dataset) if dataset else "",
        f"{split} split" if split else "",
        f"{images:,.0f} images" if images else "",
        "1 model" if models == 1 else f"{models} models",
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
    return _section(
        picture.heading,
        f'<figure>\n<div class="scroll" role="region" aria-label="Figure {number}" '
        f'tabindex="0">{image}</div>\n<figcaption>Figure {number}. '
        f"{escape(picture.caption)}</figcaption>\n</figure>\n",
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
