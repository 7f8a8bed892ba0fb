"""The chapter of segmentation: scores of pixels, against N and over time, pictures.

A row is a method, a label, at one number of samples. It has the scores of all pixels,
`temporal`, whether predictions are smoothed over frames, `class_names` and `class_iou`.
Rows of a label that differ in "run" are averaged.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from spatial_smoothing.report.chapters import segmentation_pictures
from spatial_smoothing.report.chapters.chapter import Chapter, by_label
from spatial_smoothing.report.chapters.chapter import lines as terminal_lines
from spatial_smoothing.report.chapters.robustness import (
    images,
    largest,
    prepared,
    side_by_side,
    sized,
)
from spatial_smoothing.report.columns import column
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.axes import heading, size_curves
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.figures.pictures import Picture, picture
from spatial_smoothing.report.rows import (
    Row,
    band_meanings,
    best,
    listed,
    number,
    shared,
    text,
)
from spatial_smoothing.report.tables.cells import (
    SeriesHead,
    Table,
    heading_of,
    score_cell,
    series_table,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADING, _CLASSES, _PICTURES = "Segmentation", "IoU of classes", "Pictures"
_METHODS = (
    *("nll", "accuracy", "iou", "ece", "brier", "pavpu", "consistency"),
    "frames_per_second",
)
_RANKED = ("signed_ece", "adaptive_ece", "aurc", "augrc", "coverage_at_risk_5")
_CERTAIN = ("accuracy_90", "iou_90", "unconfidence_90", "frequency_90")
_DRAWN = ("nll", "accuracy", "ece", "consistency")
_LINES = ("nll", "accuracy", "iou", "ece", "consistency", "frames_per_second")
# What the notes of `columns` say of images is another thing for pixels.
_NOTES = {
    "consistency": "share of the pixels of the class that the frame before has there; "
    "of right predictions it is below 100 % where things move",
    "adaptive_ece": "ECE over bins that hold equally many pixels",
    "aurc": "area under the risk-coverage curve, the error rate of the most confident "
    "pixels averaged over how many are answered",
    "augrc": "share of the pixels that are answered and wrong, averaged over how many "
    "are answered",
    "coverage_at_risk_5": "largest share of the pixels that can be answered with an "
    "error rate of at most 5 %",
    "frames_per_second": "measured on one stream of single frames on one device, the "
    "samples of a frame one after the other",
}


def _shown(rows: Sequence[Row]) -> list[Row]:
    """The rows averaged over runs, without what single images count for."""
    kept = [
        {key: value for key, value in row.items() if key not in ("arrays", "class_iou")}
        for row in rows
    ]
    # Scores of certain predictions are of pixels, not of the images that are counted.
    means = [{**row, "num_examples": None} for row in prepared(kept, ["temporal"])]
    return _ordered(means)


def _ordered(rows: Sequence[Row]) -> list[Row]:
    """Methods beside what they become with spatial and with temporal smoothing."""

    def method(row: Row) -> str:
        return row["label"].replace(" + smoothing", "").replace(" + temporal", "")

    methods = list(dict.fromkeys(method(row) for row in rows))
    return sorted(
        rows,
        key=lambda row: (
            methods.index(method(row)),
            " + temporal" in row["label"],
            " + smoothing" in row["label"],
        ),
    )


def at_a_glance(rows: Sequence[Row]) -> list[Row]:
    """The rows of the table of methods, as the paper has it.

    These are one pass without dropout, and dropout at the largest number of samples; of
    dropout with temporal smoothing one sample a frame, which is all that it needs.

    Args:
      rows: Rows of the chapter, averaged over runs.
    """
    found = []
    for group in by_label(rows).values():
        sizes = [row["num_samples"] for row in group]
        size = min(sizes) if group[0].get("temporal") else max(sizes)
        found += [row for row in group if row["num_samples"] == size]
    return found


def _table(rows: Sequence[Row], keys: Sequence[str], *, caption: str) -> Table:
    """A table with a line for each row; the best of each column is bold."""
    keys = [key for key in keys if any(number(row, key) is not None for row in rows)]
    top = {key: best(rows, key) for key in keys}
    notes = [
        f"{column(key).heading}: {_NOTES.get(key, column(key).note)}."
        for key in keys
        if _NOTES.get(key, column(key).note)
    ]
    ranges = [words for words in band_meanings(rows, keys) if words]
    if ranges:
        notes.append(f"Below a score: {' or '.join(ranges)}.")
    return series_table(
        by_label(rows),
        lambda row: [score_cell(row, key, best=top[key]) for key in keys],
        SeriesHead([heading_of(key) for key in keys]),
        section=_HEADING,
        caption=caption,
        notes=notes,
    )


def _tables(rows: Sequence[Row]) -> list[Table]:
    shown = _shown(rows)
    pixels = shared(rows, "num_pixels")
    count = f", {pixels:,} pixels" if isinstance(pixels, int) else ""
    about = f"Measured on {images(rows)}{count}."
    short = at_a_glance(shown)
    tables = [_table(short, _METHODS, caption=f"All methods. {about}")]
    if len(short) < len(shown):
        caption = "Every number of samples N."
        tables.append(_table(shown, _METHODS, caption=caption))
    return [
        *tables,
        _table(short, _RANKED, caption="Calibration and selective prediction."),
        _table(short, _CERTAIN, caption="Pixels with a confidence above 90 %."),
        *_class_tables(rows),
    ]


def _class_tables(rows: Sequence[Row]) -> list[Table]:
    """IoU of each class, a column for each method; none where rows do not name them."""
    names = shared(rows, "class_names")
    if not names:
        return []
    methods = {
        sized(label, group): group
        for label, group in largest(
            _ordered([{**row, "num_examples": None} for row in rows])
        ).items()
    }
    found = {}
    for label, group in methods.items():
        values = np.array([row["class_iou"] for row in group], float)
        # NaN, and not a mean, where a class is absent.
        found[label] = {
            name: {"iou": None if np.isnan(value) else float(value)}
            for name, value in zip(names, values.mean(0), strict=True)
        }
    return [
        side_by_side(
            found,
            {name: name for name in names},
            ["iou"],
            section=_CLASSES,
            caption="Intersection over union of each class, at the largest number of "
            "samples N; the best of a line is bold.",
            first="Class",
        )
    ]


def size_figure(
    rows: Sequence[Row], *, looks: Looks | None = None, columns: int = 4
) -> "Figure":
    """Scores against the number of samples, a curve for each method.

    Methods with one prediction only are dashed lines.

    Args:
      rows: Rows of the chapter, averaged over runs.
      looks: Colours and markers of the methods.
      columns: Most panels side by side.
    """
    groups = {
        label: sorted(group, key=lambda row: row["num_samples"])
        for label, group in by_label(rows).items()
    }
    looks = looks or Looks(groups)
    keys = [key for key in _DRAWN if any(number(r, key) is not None for r in rows)]
    with canvas.style():
        figure, panels = canvas.panels(len(keys), columns=columns)
        for axes, key in zip(panels, keys, strict=True):
            lines = size_curves(axes, groups, key, looks=looks)
            axes.set_title(heading(key))
        canvas.legend(figure, lines, list(groups))
    return figure


def _pictures(rows: Sequence[Row], looks: Looks) -> Mapping[str, Picture]:
    shown = _shown(rows)
    found = {}
    if len({row["num_samples"] for row in shown}) > 1:
        words = listed([column(key).heading for key in _DRAWN])
        found["segmentation.png"] = picture(
            functools.partial(size_figure, shown, looks=looks),
            heading=_HEADING,
            alt=f"{words} against N. At the largest N, {_in_words(shown)}.",
            caption=f"{words} against the number of samples N of a frame.",
        )
    drawn = segmentation_pictures.pictures(_ordered(rows), heading=_PICTURES)
    return {**found, **drawn}


def _in_words(rows: Sequence[Row]) -> str:
    """The NLL of each label at its largest number of samples."""
    return "; ".join(
        f"{label}: NLL {text(group[0], 'nll')}"
        for label, group in largest(rows).items()
    )


def _lines(rows: Sequence[Row]) -> list[dict[str, str]]:
    shown = at_a_glance(_shown(rows))
    keys = [key for key in _LINES if any(number(row, key) is not None for row in shown)]
    return terminal_lines(shown, ("label", "num_samples", *keys))


CHAPTER = Chapter(
    headings=(_HEADING, _CLASSES, _PICTURES),
    tables=_tables,
    pictures=_pictures,
    files=("segmentation.png", *segmentation_pictures.FILES),
    lines=_lines,
    required=("num_samples",),
)
