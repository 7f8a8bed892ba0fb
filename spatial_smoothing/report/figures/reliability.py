"""Figures of the confidence bins of rows: rows -> `matplotlib.figure.Figure`.

All values are in per cent. A panel is one series: one label, unless the rows are of
several data sets or splits.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.rows import Row, number, series, text
from spatial_smoothing.report.runs import averaged

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Bin(NamedTuple):
    """A confidence bin with at least one image; all in per cent."""

    start: float
    width: float
    share: float  # of all images
    accuracy: float
    confidence: float


def reliability_figure(rows: Sequence[Row]) -> "Figure":
    """Accuracy in each confidence bin against the diagonal, one panel per label.

    Bars are the accuracy at the largest number of samples, with its gap to the mean
    confidence shaded; open circles are the same model with one sample, at the mean
    confidence. Bins without images are left out.

    Args:
      rows: report rows, of which those with "reliability" are drawn.

    Returns:
      A figure with one panel per label.

    Raises:
      ValueError: no row has "reliability".
    """
    groups = _with_reliability(rows)
    with canvas.style():
        figure, panels = canvas.panels(len(groups))
        for axes, (name, (largest, single)) in zip(panels, groups.items(), strict=True):
            _reliability_bars(axes, used_bins(largest))
            axes.plot([0, 100], [0, 100], ":", color="#333333", linewidth=0.9)
            if single:
                _reliability_points(axes, used_bins(single))
            notes = [
                f"N = {row['num_samples']}: ECE {text(row, 'ece')} %"
                for row in (largest, single)
                if row and number(row, "ece") is not None
            ]
            _annotate(axes, name, "\n".join(notes))
            axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
            axes.set(xlabel="Confidence (%)", ylabel="Accuracy (%)")
        canvas.panel_legend(figure)
    return figure


def confidence_figure(rows: Sequence[Row]) -> "Figure":
    """Histograms of the confidence, one panel per label.

    A panel shows the share of the images in each bin at the largest number of samples
    and, as an outline, with one sample.

    Args:
      rows: report rows, of which those with "reliability" are drawn.

    Returns:
      A figure with one panel per label.

    Raises:
      ValueError: no row has "reliability".
    """
    groups = _with_reliability(rows)
    with canvas.style():
        figure, panels = canvas.panels(len(groups))
        for axes, (name, (largest, single)) in zip(panels, groups.items(), strict=True):
            look = {"color": canvas.LIGHT_BLUE, "fill": True}
            _histogram(axes, largest, label="Largest N", **look)
            if single:
                _histogram(axes, single, label="N = 1", color="black", linewidth=1.2)
            prefix = "Largest N" if single else "N"
            _annotate(axes, name, f"{prefix} = {largest['num_samples']}")
            axes.set(xlim=(0, 100), xlabel="Confidence (%)", ylabel="Images (%)")
        top = 1.1 * max(axes.get_ylim()[1] for axes in panels)  # room for the note
        for axes in panels:
            axes.set_ylim(0, top)
        canvas.panel_legend(figure)
    return figure


def used_bins(row: Row) -> list[Bin]:
    """The confidence bins of a row that have images."""
    found = row.get("reliability")
    if not found:
        return []
    total = sum(found["count"])
    values = zip(
        found["edges"],
        found["edges"][1:],
        found["count"],
        found["accuracy"],
        found["confidence"],
        strict=False,
    )
    return [
        Bin(*(100 * x for x in (low, high - low, count / total, right, confidence)))
        for low, high, count, right, confidence in values
        if count and None not in (right, confidence)
    ]


def _with_reliability(rows: Sequence[Row]) -> dict[str, tuple[Row, Row | None]]:
    """For each label the row of the largest size and, if another, that of size one."""
    pairs = {}
    for name, group in series(averaged(rows)).items():
        binned = [row for row in group if used_bins(row)]
        has_single = len(binned) > 1 and binned[0]["num_samples"] == 1
        if binned:
            pairs[name] = (binned[-1], binned[0] if has_single else None)
    if not pairs:
        raise ValueError("no row has 'reliability' with an image in a confidence bin")
    return pairs


def _reliability_bars(axes: "Axes", bins: list[Bin]) -> None:
    start, width, _, accuracy, confidence = zip(*bins, strict=True)
    centre = [s + w / 2 for s, w in zip(start, width, strict=True)]
    width = [0.95 * w for w in width]
    gap = [c - a for a, c in zip(accuracy, confidence, strict=True)]
    over, under = [max(g, 0) for g in gap], [min(g, 0) for g in gap]
    for height, bottom, colour, label in (
        (accuracy, 0, canvas.LIGHT_BLUE, "Accuracy"),
        (over, accuracy, canvas.LIGHT_ORANGE, "Confidence above accuracy"),
        (under, accuracy, canvas.MID_BLUE, "Accuracy above confidence"),
    ):
        axes.bar(centre, height, width, bottom, color=colour, label=label)


def _reliability_points(axes: "Axes", bins: list[Bin]) -> None:
    axes.plot(
        [bin_.confidence for bin_ in bins],
        [bin_.accuracy for bin_ in bins],
        "o",
        color="black",
        markerfacecolor="white",
        label="Accuracy at N = 1",
        clip_on=False,
    )


def _histogram(axes: "Axes", row: Row, **look: Any) -> None:
    counts, edges = row["reliability"]["count"], row["reliability"]["edges"]
    share = [100 * count / sum(counts) for count in counts]
    axes.stairs(share, [100 * edge for edge in edges], **look)


def _annotate(axes: "Axes", title: str, note: str) -> None:
    axes.set_title(textwrap.fill(title, 34))
    axes.text(
        *(0.03, 0.97, note),
        transform=axes.transAxes,
        verticalalignment="top",
        fontsize=8,
        linespacing=1.4,
    )
