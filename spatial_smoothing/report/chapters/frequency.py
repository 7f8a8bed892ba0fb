"""The chapter of robustness to noise of one frequency."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spatial_smoothing.report.chapters import chapter
from spatial_smoothing.report.chapters.chapter import Chapter
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.axes import scaled, with_unit
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.figures.pictures import Picture, picture
from spatial_smoothing.report.rows import Row, number, text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADING = "Noise of one frequency"
_KEYS = ("num_samples", "accuracy", "nll", "ece")


def figure(
    rows: Sequence[Row], *, looks: Looks | None = None, columns: int = 2
) -> "Figure":
    """Accuracy and NLL against the frequency of the noise; dashed: without noise.

    Args:
      rows: Rows with `frequency`, None for no noise, `accuracy` and `nll`.
      looks: Colours and markers of the models.
      columns: Most panels side by side.

    Returns:
      A figure with two panels.
    """
    with canvas.style():
        figure, panels = canvas.strip(2, columns=columns)
        for axes, key in zip(panels, ("accuracy", "nll"), strict=True):
            for look, group in chapter.curves(rows, looks=looks):
                noisy = [row for row in group if row["frequency"] is not None]
                values = scaled(key, [number(row, key) for row in noisy])
                frequencies = [row["frequency"] for row in noisy]
                axes.plot(frequencies, values, **look, **canvas.OUTLINE)
                clean = [row for row in group if row["frequency"] is None]
                for value in scaled(key, [number(row, key) for row in clean]):
                    axes.axhline(value, color=look["color"], **canvas.DASHED)
            axes.set(title=with_unit(key), xlabel="Frequency (π)")
            axes.set_xlim(0, 1)
        canvas.panel_legend(figure)
    return figure


def _unlike(rows: Sequence[Row]) -> str:
    """Says that rows are of different noise, "" where they are not."""
    return chapter.unlike(rows, ("epsilon", "half_width"), "The noise")


def _pictures(rows: Sequence[Row], looks: Looks) -> dict[str, Picture]:
    usable = [row for row in rows if None not in (row.get("accuracy"), row.get("nll"))]
    noisy = [row for row in usable if row["frequency"] is not None]
    if not noisy:
        return {}
    worst = [
        min(group, key=lambda row: row["accuracy"])
        for _, group in chapter.curves(noisy)
    ]
    values = "; ".join(
        f"{name}: {text(row, 'accuracy')} % at {text(row, 'frequency')} π"
        for name, row in zip(chapter.names(worst), worst, strict=True)
    )
    return {
        "frequency.png": picture(
            functools.partial(figure, usable, looks=looks),
            heading=_HEADING,
            alt=f"Accuracy and NLL against frequency. Lowest accuracy, {values}.",
            caption="Accuracy and NLL under noise limited to a ring of frequencies. "
            f"Dashed: without noise.{_unlike(rows)}",
        )
    }


CHAPTER = Chapter(
    headings=(_HEADING,),
    tables=lambda rows: [
        chapter.table(
            rows,
            _KEYS,
            each="frequency",
            heading=_HEADING,
            caption="Scores under noise limited to a ring of frequencies; the first "
            f"line of a model is without noise.{_unlike(rows)}",
        )
    ],
    pictures=_pictures,
    files=("frequency.png",),
    lines=lambda rows: chapter.lines(rows, ("label", "frequency", *_KEYS)),
    required=("frequency",),
)
