"""The pictures of a report: rows -> PNG files with caption and alternative text."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from spatial_smoothing.report import costs
from spatial_smoothing.report.columns import DETECTORS, column, in_sentence
from spatial_smoothing.report.figures import canvas, curves, families, reliability
from spatial_smoothing.report.figures.axes import published_of
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.figures.costs import cost_figure
from spatial_smoothing.report.published import SOURCE
from spatial_smoothing.report.rows import (
    Row,
    band_meanings,
    detected,
    detectors,
    number,
    series,
    text,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Picture(NamedTuple):
    """A figure of the report.

    Attributes:
      png: The PNG file.
      width: Its width in inches.
      heading: Heading of the section in which it stands.
      alt: Text in place of the image.
      caption: What the figure shows.
      narrow_png: The same with all panels below each other, for narrow windows; None
        where there is no other form.
      draw: Function that draws the figure again, for another file format or width.
      draw_narrow: The same with all panels below each other; None as above.
    """

    png: bytes
    width: float
    heading: str
    alt: str
    caption: str
    narrow_png: bytes | None = None
    draw: "Callable[[], Figure] | None" = None
    draw_narrow: "Callable[[], Figure] | None" = None

    def files(
        self, name: str, *, formats: Sequence[str], width: float | None
    ) -> dict[str, bytes]:
        """The figure as files: name -> content.

        Args:
          name: Name of the PNG file, such as "time.png".
          formats: Some of `canvas.FORMATS`.
          width: Width in inches, such as that of a column of a paper; None for the
            figure of the page.
        """
        if width is None and tuple(formats) == ("png",):
            return {name: self.png}
        draw = self.draw
        # Panels side by side need about 1.8 inches each.
        if width is not None and width < _WIDE and self.draw_narrow:
            draw = self.draw_narrow
        with canvas.paper_width(width):
            figure = draw()
            options = {} if width else {"bbox_inches": "tight"}
            stem = name.removesuffix(".png")
            return {
                f"{stem}.{each}": canvas.saved(figure, each, **options)
                for each in formats
            }


_WIDE = 5.0  # inches; narrower figures have their panels below each other

FILES = (
    "ensemble_size.png",
    "accuracy_nll.png",
    "time.png",
    "cost.png",
    "cost_time.png",
    "reliability.png",
    "confidence.png",
    "risk_coverage.png",
    "detection.png",
)


def picture(
    draw: Callable[..., "Figure"],
    *,
    heading: str,
    alt: str,
    caption: str,
    stacks: bool = True,
) -> Picture:
    """Draws a figure to PNG files.

    Args:
      draw: Function that returns the figure; with `columns=1`, its panels stand below
        each other.
      heading: Heading of the section in which the figure stands.
      alt: Text in place of the image.
      caption: What the figure shows.
      stacks: Whether `draw` takes `columns`.
    """
    figure = draw()
    draw_narrow = functools.partial(draw, columns=1) if stacks else None
    return Picture(
        png=canvas.png(figure),
        width=figure.get_figwidth(),
        heading=heading,
        alt=alt,
        caption=caption,
        narrow_png=canvas.png(draw_narrow()) if draw_narrow else None,
        draw=draw,
        draw_narrow=draw_narrow,
    )


def pictures(
    rows: Sequence[Row], *, looks: Looks, published: Sequence[Row] = ()
) -> dict[str, Picture]:
    """File name -> picture, for every figure that the rows have the values for.

    Curves against the number of samples, and paths over it, need more than one number;
    reliability and confidence need bins.

    Args:
      rows: Report rows, averaged over runs.
      looks: Colours and markers of the models.
      published: Rows to draw beside them; see `published`.
    """
    return {
        **_over_sizes(rows, published, looks),
        **_over_costs(rows, looks),
        **_of_bins(rows, looks),
        **_of_rankings(rows, looks),
    }


def _over_sizes(
    rows: Sequence[Row], published: Sequence[Row], looks: Looks
) -> dict[str, Picture]:
    """The figures whose curves run over the number of samples."""
    keys = curves.sized_scores(rows)
    if len({row["num_samples"] for row in rows}) == 1 or not keys:
        return {}
    found = {}
    names = in_sentence(keys)
    beside = ""
    if any(published_of(series(rows), published).values()):
        beside = f" Dotted, with open markers: {SOURCE}, means of three trainings."
    elif published:
        beside = f" {SOURCE} have published no ensemble with the name of one of these."
    options = {"published": published, "looks": looks}
    found["ensemble_size.png"] = picture(
        functools.partial(curves.ensemble_size_figure, rows, **options),
        heading="Number of samples",
        alt=f"Line charts of {names}. {_values(rows, keys[0])}",
        caption=f"{names} against the number of samples N, on a logarithmic axis. A "
        f"dashed line is a model with one sample only.{bands(rows, keys)}{beside}",
    )
    if _has_sizes(rows, "accuracy"):
        found["accuracy_nll.png"] = picture(
            functools.partial(curves.accuracy_nll_figure, rows, **options),
            heading="Accuracy and NLL",
            alt="NLL against accuracy, one path for each model over its sizes. "
            f"{_values(rows, 'accuracy')} {_values(rows, 'nll')}",
            caption="NLL against accuracy, one path for each model from its smallest "
            "number of samples N to its largest. Better is to the lower right."
            f"{beside}",
            stacks=False,
        )
    if _has_sizes(rows, "milliseconds"):
        found["time.png"] = picture(
            functools.partial(curves.time_figure, rows, looks=looks),
            heading="Time",
            alt="NLL against time per image, one path for each model over its sizes, "
            f"and time against the size. {_values(rows, 'milliseconds')}",
            caption="NLL against the time of computation per image, one path for each "
            "model over its numbers of samples N; better is to the lower left. Then "
            "the time against N. Axes of time are logarithmic."
            f"{bands(rows, ['nll'], has_bars=False)}",
        )
    return found


def _over_costs(rows: Sequence[Row], looks: Looks) -> dict[str, Picture]:
    """The figures of scores against the cost of a prediction."""
    found = {}
    for cost, file, what in (
        ("gflops", "cost.png", "the floating-point operations of a prediction"),
        ("milliseconds", "cost_time.png", "the measured time of a prediction"),
    ):
        drawn = costs.compared(rows, cost)
        if not drawn:
            continue
        keys = [k for k in costs.SCORES if any(number(r, k) is not None for r in drawn)]
        names = in_sentence(keys)
        fronts = costs.fronts(drawn, cost)
        front = (
            " The dashed line and the markers in a black outline are the Pareto front: "
            "nothing else is as cheap and as good."
            if fronts
            else " There is no Pareto front, because the models are of different "
            "numbers of runs or images."
        )
        found[file] = picture(
            functools.partial(cost_figure, drawn, cost=cost, looks=looks),
            heading="Cost",
            alt=f"{names} against {what}, a path for each model. "
            f"{_values(drawn, cost)} {_values(drawn, keys[0])}",
            caption=f"{names} against {what} for one image, on a logarithmic axis: one "
            "path for each model from its smallest number of samples N to its largest."
            f"{front}{bands_or_bars(drawn, keys)}",
        )
    return found


def bands_or_bars(rows: Sequence[Row], keys: Sequence[str]) -> str:
    """A sentence that says what the bands of the figure of costs are, or its bars."""
    if not families.are_needed(series(rows)):
        return bands(rows, keys)
    meaning = " or ".join(each for each in band_meanings(rows, keys) if each)
    return f" Bars: {meaning}." if meaning else ""


def _of_bins(rows: Sequence[Row], looks: Looks) -> dict[str, Picture]:
    """The figures of the confidence bins."""
    if not any(reliability.used_bins(row) for row in rows):
        return {}
    return {
        "reliability.png": picture(
            functools.partial(reliability.reliability_figure, rows, looks=looks),
            heading="Calibration",
            alt=f"Reliability diagrams. {_values(rows, 'ece')}",
            caption="Accuracy in each confidence bin; on the dotted diagonal it equals "
            "the confidence. Bars are the largest N of a model, with the gap to the "
            "mean confidence hatched; circles, if any, are N = 1. Bins without images "
            "are left out.",
        ),
        "confidence.png": picture(
            functools.partial(reliability.confidence_figure, rows, looks=looks),
            heading="Confidence",
            alt=f"Histograms of the confidence. {_values(rows, 'frequency_90')}",
            caption="Share of the images in each confidence bin, at the largest N of a "
            "model (bars) and, if that is another, at N = 1 (line).",
        ),
    }


def _of_rankings(rows: Sequence[Row], looks: Looks) -> dict[str, Picture]:
    """The figures of selective prediction and of out-of-distribution detection."""
    found = {}
    ranked = [row for row in rows if row.get("risk_coverage")]
    if ranked:
        has_range = any("low" in row["risk_coverage"] for row in ranked)
        shaded = " Shaded: the range over runs." if has_range else ""
        found["risk_coverage.png"] = picture(
            functools.partial(curves.risk_coverage_figure, rows, looks=looks),
            heading="Uncertainty and selective prediction",
            alt=f"Risk-coverage curves. {_values(ranked, 'aurc')}",
            caption="Error rate among the images answered (risk) against their share "
            "of all images (coverage), where the most confident are answered first. "
            "Lines are the largest N of a model; dashed, if that is another, N = 1."
            f"{shaded}",
            stacks=False,
        )
    names = detectors(rows)
    if len({row["num_samples"] for row in rows if detectors([row])}) > 1:
        scores = [detected(row, name) for row in rows for name in names]
        values = " ".join(
            f"{DETECTORS.get(name, (name,))[0]}: "
            + _values([detected(row, name) for row in rows], "auroc")
            for name in names
        )
        single = (
            " A single prediction has no mutual information."
            if "mutual_information" in names
            else ""
        )
        found["detection.png"] = picture(
            functools.partial(curves.detection_figure, rows, looks=looks),
            heading="Out-of-distribution detection",
            alt=f"Line charts of the AUROC of each score. {values}",
            caption="AUROC of out-of-distribution detection by each score, against the "
            "number of samples N. A dashed line is a model with one sample only."
            f"{single}{bands(scores, ['auroc'])}",
        )
    return found


def _has_sizes(rows: Sequence[Row], key: str) -> bool:
    """Whether some series has a finite NLL and `key` at more than one size."""
    return any(
        sum(None not in (number(row, "nll"), number(row, key)) for row in group) > 1
        for group in series(rows).values()
    )


def bands(rows: Sequence[Row], keys: Sequence[str], *, has_bars: bool = True) -> str:
    """A sentence that says what the bands are, "" without bands.

    Args:
      rows: The rows that are drawn.
      keys: The scores that are drawn.
      has_bars: Whether models with one sample only have bars in place of bands.
    """
    spread, interval = band_meanings(rows, keys)
    if spread and interval:
        meaning = f"with a dotted outline, {spread}; without, {interval}"
    else:
        meaning = spread or interval
    groups = series(rows).values()
    singles = [row for g in groups if g[-1]["num_samples"] == 1 for row in g]
    with_bars = has_bars and any(band_meanings(singles, keys))
    what = "Bands and bars" if with_bars else "Bands"
    return f" {what}: {meaning}." if meaning else ""


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
