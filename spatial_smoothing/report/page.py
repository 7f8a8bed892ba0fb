"""The HTML page: rows, provenance and pictures -> one self-contained document.

The functions here turn rows into the plain data of a page (`Page`), and the templates
in `templates/` turn that into HTML. The templates escape every text. The page needs
nothing else: images and style are part of it; it has no script and loads nothing.
"""

import base64
import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from spatial_smoothing.report import summary, tables
from spatial_smoothing.report.chapters import CHAPTERS
from spatial_smoothing.report.figures.pictures import Picture
from spatial_smoothing.report.provenance import Provenance
from spatial_smoothing.report.provenance import provenance as describe
from spatial_smoothing.report.rows import Row, listed, shared
from spatial_smoothing.report.tables.cells import Table

if TYPE_CHECKING:
    from jinja2 import Template

_HEADINGS = (
    "Results",
    "Paired differences",
    "Equivalent ensemble size",
    "Number of samples",
    "Accuracy and NLL",
    "Time",
    "Cost",
    "Calibration",
    "Confidence",
    "Temperature",
    "Uncertainty and selective prediction",
    "Prediction sets",
    "Out-of-distribution detection",
    "Streams",
    "Two definitions",
)
# What a reader needs to know of rows -> how the page calls it.
_DESCRIBED = {
    "dataset": "their data set (dataset)",
    "split": "their split (split)",
    "num_examples": "their number of images (num_examples)",
}
_PIXELS_PER_INCH = 96  # of CSS
# A figure that is made smaller than this part of its size has letters that are too
# small to read. It scrolls instead.
_SMALLEST = 0.7


@dataclasses.dataclass(frozen=True)
class NumberedTable:
    """A table with its number on the page; None for a paragraph without a table."""

    table: Table
    number: int | None


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of the page.

    Attributes:
      number: int >= 1, its number on the page.
      data: The PNG file in Base64.
      narrow_data: The PNG file for narrow windows in Base64, "" for none.
      width: Width in CSS pixels.
      min_width: Width in CSS pixels below which the figure scrolls.
      alt: Text in place of the image.
      caption: What the figure shows.
    """

    number: int
    data: str
    narrow_data: str
    width: int
    min_width: int
    alt: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
      anchor: The name by which links point to the section.
      heading: Its heading.
      paragraphs: Texts at its beginning.
      tables: Its tables.
      figures: Its figures, which follow the tables.
    """

    anchor: str
    heading: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[NumberedTable] = ()
    figures: Sequence[Figure] = ()


@dataclasses.dataclass(frozen=True)
class Page:
    """What the page says.

    Attributes:
      title: The heading of the page.
      facts: What was evaluated, a short text each.
      missing: A sentence that says what the rows do not name, "" for nothing.
      generated: When the page was made, UTC.
      sections: The sections that have content, in order.
      provenance: Where the numbers come from.
    """

    title: str
    facts: Sequence[str]
    missing: str
    generated: datetime
    sections: Sequence[Section]
    provenance: Provenance


def html(page: Page) -> str:
    """The document.

    Args:
      page: What it says.

    Returns:
      HTML.
    """
    return _template().render(page=page)


@functools.cache
def _template() -> "Template":
    import jinja2  # late, for those who read rows only

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spatial_smoothing.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,  # a misspelt name is an error
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _unbroken
    return environment.get_template("report.html")


def _unbroken(text: str) -> str:
    """A text whose numbers stay on one line with their per cent signs."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def page(
    rows: Sequence[Row],
    *,
    differences: Sequence[Row],
    provenance: Mapping[str, Any],
    title: str,
    pictures: Sequence[Picture],
    generated: datetime,
    chapters: Mapping[str, tuple[Sequence[Row], Sequence[Picture]]],
    described: Sequence[Row],
) -> Page:
    """What the page says of rows.

    Args:
      rows: Report rows, averaged over runs; none for a page of chapters alone.
      differences: Paired differences, checked; see `comparisons`.
      provenance: Nested dict of JSON's types.
      title: The heading of the page.
      pictures: The figures of `rows`, in order.
      generated: When the page is made, UTC.
      chapters: Suite -> its rows and its figures.
      described: The rows whose models, images and runs are counted below the heading.
    """
    headings = list(_HEADINGS)
    found = tables.of_ensembles(rows, differences=differences) if rows else []
    drawn = list(pictures)
    for suite, (group, more) in chapters.items():
        headings += CHAPTERS[suite].headings
        found += CHAPTERS[suite].tables(group)
        drawn += more
    sections = _sections(headings, found, drawn)
    if rows:
        words = summary.paragraph(rows, differences=differences)
        sections.insert(0, Section("summary", "Summary", paragraphs=[words]))
    return Page(
        title=title,
        facts=_facts(described),
        missing=_missing(described),
        generated=generated,
        sections=sections,
        provenance=describe(provenance),
    )


def default_title(rows: Sequence[Row]) -> str:
    """A title that names what was scored: "Evaluation on shapes (test split)".

    Args:
      rows: The rows of ensembles or, if there is none, of the chapters.
    """
    names = []
    for row in rows:
        dataset = str(row.get("dataset") or "")
        split = f"({row['split']} split)" if row.get("split") else ""
        names.append(" ".join(word for word in (dataset, split) if word))
    named = listed([name for name in dict.fromkeys(names) if name])
    return f"Evaluation on {named}" if named else "Evaluation"


def _sections(
    headings: Sequence[str], tables: Sequence[Table], pictures: Sequence[Picture]
) -> list[Section]:
    """The sections that have content, with tables and figures numbered throughout."""
    sections = []
    table_number = figure_number = 0
    for heading in headings:
        numbered_tables, figures = [], []
        for table in tables:
            if table.heading == heading:
                table_number += bool(table.head)
                number = table_number if table.head else None
                numbered_tables.append(NumberedTable(table, number))
        for picture in pictures:
            if picture.heading == heading:
                figure_number += 1
                figures.append(_figure(figure_number, picture))
        if numbered_tables or figures:
            anchor = re.sub(r"[^a-z0-9]+", "-", heading.lower())
            sections.append(
                Section(anchor, heading, tables=numbered_tables, figures=figures)
            )
    return sections


def _figure(number: int, picture: Picture) -> Figure:
    width = round(_PIXELS_PER_INCH * picture.width)
    return Figure(
        number=number,
        data=base64.b64encode(picture.png).decode(),
        narrow_data=base64.b64encode(picture.narrow_png or b"").decode(),
        width=width,
        min_width=round(_SMALLEST * width),
        alt=picture.alt,
        caption=picture.caption,
    )


def _facts(rows: Sequence[Row]) -> list[str]:
    """Data set, split, images and runs where all rows share them."""
    dataset, split = shared(rows, "dataset"), shared(rows, "split")
    images = shared(rows, "num_examples")
    models = len({row["label"] for row in rows})
    facts = [
        str(dataset) if dataset else "",
        f"{split} split" if split else "",
        f"{images:,.0f} images" if images else "",
        "1 model" if models == 1 else f"{models} models",
        _runs(rows),
    ]
    return [fact for fact in facts if fact]


def _runs(rows: Sequence[Row]) -> str:
    """How many runs each model has: "1 run each", "1 to 3 runs each"."""
    # Rows of chapters are not averaged yet: the runs of a model are counted.
    names: dict[str, set[Any]] = {}
    for row in rows:
        names.setdefault(row["label"], set()).add(row.get("run"))
    counts = sorted({row.get("num_runs", len(names[row["label"]])) for row in rows})
    if counts == [1]:
        return "1 run each" if any(row.get("run") for row in rows) else ""
    return f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} runs each"


def _missing(rows: Sequence[Row]) -> str:
    """A sentence that says which facts no row has."""
    absent = [
        words
        for key, words in _DESCRIBED.items()
        if all(row.get(key) is None for row in rows)
    ]
    return f"The rows do not name {listed(absent)}." if absent else ""
