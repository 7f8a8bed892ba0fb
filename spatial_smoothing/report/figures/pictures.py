"""The pictures of a report: rows -> PNG files with caption and alternative text."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from spatial_smoothing.report.columns import DETECTORS, column
from spatial_smoothing.report.figures import canvas, curves
from spatial_smoothing.report.figures import reliability as bins
from spatial_smoothing.report.published import SOURCE
from spatial_smoothing.report.rows import (
    Row,
    band_meaning,
    detected,
    detectors,
    number,
    series,
    text,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Picture(NamedTuple):
    """A PNG file, its width in inches, and its texts."""

    png: bytes
    width: float
    heading: str
    alt: str
    caption: str


FILES = (
    "ensemble_size.png",
    "accuracy_nll.png",
    "time.png",
    "reliability.png",
    "confidence.png",
    "risk_coverage.png",
    "detection.png",
)


def pictures(
    rows: Sequence[Row], *, published: Sequence[Row] = ()
) -> dict[str, Picture]:
    """File name -> picture, for every figure that the rows have the values for.

    Curves against the number of samples, and paths over it, need more than one number;
    reliability and confidence need bins.

    Args:
      rows: report rows, averaged over runs.
      published: rows to draw beside them; see `published`.
    """
    return {**_over_sizes(rows, published), **_of_bins(rows), **_of_rankings(rows)}


def _over_sizes(rows: Sequence[Row], published: Sequence[Row]) -> dict[str, Picture]:
    found = {}
    beside = (
        f" Dotted, with open markers: {SOURCE}, means of three trainings."
        if published
        else ""
    )
    if len({row["num_samples"] for row in rows}) == 1:
        return found
    found["ensemble_size.png"] = picture(
        functools.partial(curves.ensemble_size_figure, published=published),
        rows,
        heading="Number of samples",
        alt=f"Line charts of NLL, accuracy and ECE. {_values(rows, 'nll')}",
        caption="NLL, accuracy and ECE against the number of samples N, on a "
        "logarithmic axis. A dashed line is a model with one sample only."
        + _bands(rows, ("nll", "accuracy", "ece"))
        + beside,
    )
    if _has_sizes(rows, "accuracy"):
        found["accuracy_nll.png"] = picture(
            functools.partial(curves.accuracy_nll_figure, published=published),
            rows,
            heading="Accuracy and NLL",
            alt="NLL against accuracy, one path for each model over its sizes. "
            f"{_values(rows, 'accuracy')} {_values(rows, 'nll')}",
            caption="NLL against accuracy, one path for each model from its smallest "
            "number of samples N to its largest. Better is to the lower right."
            + beside,
        )
    if _has_sizes(rows, "milliseconds"):
        found["time.png"] = picture(
            curves.time_figure,
            rows,
            heading="Time",
            alt="NLL against time per image, one path for each model over its sizes, "
            f"and time against the size. {_values(rows, 'milliseconds')}",
            caption="Left, NLL against the time of computation per image, one path for "
            "each model over its numbers of samples N; better is to the lower left. "
            "Right, the time against N. Axes of time are logarithmic."
            + _bands(rows, ["nll"], bars=False),
        )
    return found


def _of_bins(rows: Sequence[Row]) -> dict[str, Picture]:
    if not any(bins.used_bins(row) for row in rows):
        return {}
    return {
        "reliability.png": picture(
            bins.reliability_figure,
            rows,
            heading="Calibration",
            alt=f"Reliability diagrams. {_values(rows, 'ece')}",
            caption="Accuracy in each confidence bin; on the dotted diagonal it equals "
            "the confidence. Bars are the largest N of a model, with the gap to the "
            "mean confidence; circles, if any, are N = 1. Bins without images are left "
            "out.",
        ),
        "confidence.png": picture(
            bins.confidence_figure,
            rows,
            heading="Confidence",
            alt=f"Histograms of the confidence. {_values(rows, 'frequency_90')}",
            caption="Share of the images in each confidence bin, at the largest N of a "
            "model (bars) and, if that is another, at N = 1 (line).",
        ),
    }


def _of_rankings(rows: Sequence[Row]) -> dict[str, Picture]:
    found = {}
    ranked = [row for row in rows if row.get("risk_coverage")]
    if ranked:
        runs = any("low" in row["risk_coverage"] for row in ranked)
        found["risk_coverage.png"] = picture(
            curves.risk_coverage_figure,
            rows,
            heading="Uncertainty and selective prediction",
            alt=f"Risk-coverage curves. {_values(ranked, 'aurc')}",
            caption="Error rate among the images answered (risk) against their share "
            "of all images (coverage), where the most confident are answered first. "
            "Lines are the largest N of a model; dashed, if that is another, N = 1."
            + (" Bands: the range over runs." if runs else ""),
        )
    names = detectors(rows)
    disagreement = "mutual_information" in names
    if len({row["num_samples"] for row in rows if detectors([row])}) > 1:
        scores = [detected(row, name) for row in rows for name in names]
        values = " ".join(
            f"{DETECTORS.get(name, (name,))[0]}: "
            + _values([detected(row, name) for row in rows], "auroc")
            for name in names
        )
        found["detection.png"] = picture(
            curves.detection_figure,
            rows,
            heading="Out-of-distribution detection",
            alt=f"Line charts of the AUROC of each score. {values}",
            caption="AUROC of out-of-distribution detection by each score, against the "
            "number of samples N. A dashed line is a model with one sample only."
            + (
                " A single prediction has no mutual information."
                if disagreement
                else ""
            )
            + _bands(scores, ["auroc"]),
        )
    return found


def _has_sizes(rows: Sequence[Row], key: str) -> bool:
    """Whether some series has a finite NLL and `key` at more than one size."""
    return any(
        sum(None not in (number(row, "nll"), number(row, key)) for row in group) > 1
        for group in series(rows).values()
    )


def _bands(rows: Sequence[Row], keys: Sequence[str], *, bars: bool = True) -> str:
    """What the bands are, and the bars that models with one sample only have."""
    meaning = band_meaning(rows, keys)
    groups = series(rows).values()
    singles = [row for g in groups if g[-1]["num_samples"] == 1 for row in g]
    what = "Bands and bars" if bars and band_meaning(singles, keys) else "Bands"
    return f" {what}: {meaning}." if meaning else ""


def picture(
    draw: Callable[[Sequence[Row]], "Figure"],
    rows: Sequence[Row],
    *,
    heading: str,
    alt: str,
    caption: str,
) -> Picture:
    """Draws rows to a PNG file, with its texts."""
    figure = draw(rows)
    return Picture(canvas.png(figure), figure.get_figwidth(), heading, alt, caption)


def _values(rows: Sequence[Row], key: str) -> str:
    """The values at the largest number of samples of each series, in words."""
    heading, unit, *_ = column(key)
    if unit.startswith("×"):
        heading, unit = f"{heading} ({unit})", ""
    unit = f" {unit}" if unit else ""
    values = [
        f"{name} (N = {group[-1]['num_samples']}) {text(group[-1], key)}{unit}"
        for name, group in series(rows).items()
        if number(group[-1], key) is not None
    ]
    return f"{heading} at the largest N: {'; '.join(values)}." if values else ""
