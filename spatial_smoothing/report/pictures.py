"""The pictures of a report: rows -> PNG files with caption and alternative text."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from spatial_smoothing.report import canvas, figures
from spatial_smoothing.report.rows import Row, column, number, series, text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Picture(NamedTuple):
    """A PNG file, its width in inches, and its texts."""

    png: bytes
    width: float
    heading: str
    alt: str
    caption: str


FILES = ("ensemble_size.png", "reliability.png", "confidence.png")


def pictures(rows: Sequence[Row]) -> dict[str, Picture]:
    """File name -> picture, for every figure that the rows have the values for.

    Curves against the number of samples need more than one number; reliability and
    confidence need bins.
    """
    found = {}
    if len({row["num_samples"] for row in rows}) > 1:
        found["ensemble_size.png"] = _picture(
            figures.ensemble_size_figure,
            rows,
            heading="Number of samples",
            alt=f"Line charts of NLL, accuracy and ECE. {_values(rows, 'nll')}",
            caption="NLL, accuracy and ECE against the number of samples N, on a "
            "logarithmic axis. A dashed line is a model with one sample only.",
        )
    if any(figures.used_bins(row) for row in rows):
        found["reliability.png"] = _picture(
            figures.reliability_figure,
            rows,
            heading="Calibration",
            alt=f"Reliability diagrams. {_values(rows, 'ece')}",
            caption="Accuracy in each confidence bin; on the dotted diagonal it equals "
            "the confidence. Bars are the largest N of a model, with the gap to the "
            "mean confidence; circles, if any, are N = 1. Bins without images are left "
            "out.",
        )
        found["confidence.png"] = _picture(
            figures.confidence_figure,
            rows,
            heading="Confidence",
            alt=f"Histograms of the confidence. {_values(rows, 'frequency_90')}",
            caption="Share of the images in each confidence bin, at the largest N of a "
            "model (bars) and, if that is another, at N = 1 (line).",
        )
    return found


def _picture(
    draw: Callable[[Sequence[Row]], "Figure"],
    rows: Sequence[Row],
    *,
    heading: str,
    alt: str,
    caption: str,
) -> Picture:
    figure = draw(rows)
    return Picture(canvas.png(figure), figure.get_figwidth(), heading, alt, caption)


def _values(rows: Sequence[Row], key: str) -> str:
    """The values at the largest number of samples of each series, in words."""
    heading, unit, *_ = column(key)
    values = [
        f"{name} (N = {group[-1]['num_samples']}) {text(group[-1], key)} {unit}"
        for name, group in series(rows).items()
        if number(group[-1], key) is not None
    ]
    return f"{heading} at the largest N: {'; '.join(values)}." if values else ""
