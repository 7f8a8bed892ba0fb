"""Figures of the confidence bins of rows: rows -> `matplotlib.figure.Figure`.

All values are in per cent. A panel is one series: one label, unless the rows are of
several data sets or splits. The options `looks` and `columns` are those of `curves`.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.rows import Row, number, series, text
from spatial_smoothing.report.runs import averaged

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BARS = "#BDBDBD"  # of the legend, where a bar stands for all models
_OVER, _UNDER = "Confidence above accuracy", "Accuracy above confidence"
# The two gaps differ in their hatching, so that a bar can have the model's colour.
_HATCHES = {_OVER: "////", _UNDER: "...."}


class Bin(NamedTuple):
    """A confidence bin with at least one image; all in per cent."""

    start: float
    width: float
    share: float  # of all images
    accuracy: float
    confidence: float


def reliability_figure(
    rows: Sequence[Row], *, looks: Looks | None = None, columns: int = 3
) -> "Figure":
    """Accuracy in each confidence bin against the diagonal, one panel per label.

    Bars are the accuracy at the largest number of samples, with its gap to the mean
    confidence hatched; open circles are the same model with one sample, at the mean
    confidence. Bins without images are left out.

    Args:
      rows: Report rows, of which those with "reliability" are drawn.
      looks: Colours and markers; see the module.
      columns: Most panels side by side.

    Returns:
      A figure with one panel per label.

    Raises:
      ValueError: No row has "reliability".
    """
    rows = averaged(rows)
    looks = looks or Looks(series(rows))
    groups = _with_reliability(rows)
    with canvas.style():
        figure, panels = canvas.panels(len(groups), columns=columns)
        gaps = []
        for axes, (name, (largest, single)) in zip(panels, groups.items(), strict=True):
            gaps += _reliability_bars(axes, used_bins(largest), looks[name]["color"])
            axes.plot([0, 100], [0, 100], ":", color=canvas.GREY, linewidth=0.9)
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
        has_singles = any(single for _, single in groups.values())
        _reliability_legend(figure, set(gaps), has_singles=has_singles)
    return figure


def confidence_figure(
    rows: Sequence[Row], *, looks: Looks | None = None, columns: int = 3
) -> "Figure":
    """Histograms of the confidence, one panel per label.

    A panel shows the share of the images in each bin at the largest number of samples
    and, as an outline, with one sample.

    Args:
      rows: Report rows, of which those with "reliability" are drawn.
      looks: Colours and markers; see the module.
      columns: Most panels side by side.

    Returns:
      A figure with one panel per label.

    Raises:
      ValueError: No row has "reliability".
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    rows = averaged(rows)
    looks = looks or Looks(series(rows))
    groups = _with_reliability(rows)
    has_singles = any(single for _, single in groups.values())
    with canvas.style():
        figure, panels = canvas.panels(len(groups), columns=columns)
        for axes, (name, (largest, single)) in zip(panels, groups.items(), strict=True):
            colour = looks[name]["color"]
            _histogram(axes, largest, color=canvas.pale(colour), fill=True)
            if single:
                _histogram(axes, single, color="black", linewidth=1.2)
            prefix = "Largest N" if single else "N"
            _annotate(axes, name, f"{prefix} = {largest['num_samples']}")
            axes.set(xlim=(0, 100), xlabel="Confidence (%)", ylabel="Images (%)")
        top = 1.1 * max(axes.get_ylim()[1] for axes in panels)  # room for the note
        for axes in panels:
            axes.set_ylim(0, top)
        if has_singles:
            handles = [Patch(color=_BARS), Line2D([], [], color="black", linewidth=1.2)]
            canvas.legend(figure, handles, ["Largest N", "N = 1"])
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
    for name, group in series(rows).items():
        binned = [row for row in group if used_bins(row)]
        has_single = len(binned) > 1 and binned[0]["num_samples"] == 1
        if binned:
            pairs[name] = (binned[-1], binned[0] if has_single else None)
    if not pairs:
        raise ValueError("no row has 'reliability' with an image in a confidence bin")
    return pairs


def _reliability_bars(axes: "Axes", bins: list[Bin], colour: str) -> list[str]:
    """Draws the bars of a model; returns which gaps there are."""
    start, width, _, accuracy, confidence = zip(*bins, strict=True)
    centre = [s + w / 2 for s, w in zip(start, width, strict=True)]
    width = [0.95 * w for w in width]
    axes.bar(centre, accuracy, width, color=canvas.pale(colour))
    gap = [c - a for a, c in zip(accuracy, confidence, strict=True)]
    heights = {_OVER: [max(g, 0) for g in gap], _UNDER: [min(g, 0) for g in gap]}
    for name, height in heights.items():
        bars = axes.bar(centre, height, width, accuracy, color="none")
        for bar in bars:
            bar.set(hatch=_HATCHES[name], edgecolor=colour, linewidth=0.6)
            bar.set_visible(bar.get_height() != 0)
    return [name for name, height in heights.items() if any(height)]


def _reliability_legend(figure: "Figure", gaps: set[str], *, has_singles: bool) -> None:
    """Explains what some panel has, in grey, because every model has a colour."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: dict[str, Any] = {"Accuracy": Patch(facecolor=_BARS)}
    for name, hatch in _HATCHES.items():
        if name in gaps:
            look = {"facecolor": "white", "edgecolor": canvas.GREY, "linewidth": 0.6}
            entries[name] = Patch(hatch=hatch, **look)
    if has_singles:
        look = {"color": "black", "markerfacecolor": "white", "linestyle": "none"}
        entries["Accuracy at N = 1"] = Line2D([], [], marker="o", **look)
    canvas.legend(figure, list(entries.values()), list(entries))


def _reliability_points(axes: "Axes", bins: list[Bin]) -> None:
    axes.plot(
        [bin_.confidence for bin_ in bins],
        [bin_.accuracy for bin_ in bins],
        "o",
        color="black",
        markerfacecolor="white",
        clip_on=False,
    )


def _histogram(axes: "Axes", row: Row, **look: Any) -> None:
    counts, edges = row["reliability"]["count"], row["reliability"]["edges"]
    share = [100 * count / sum(counts) for count in counts]
    axes.stairs(share, [100 * edge for edge in edges], **look)


def _annotate(axes: "Axes", title: str, note: str) -> None:
    """Writes the model above a panel, and a note in its upper left corner."""
    axes.set_title(textwrap.fill(title, 34))
    axes.text(
        *(0.03, 0.97, note),
        transform=axes.transAxes,
        verticalalignment="top",
        fontsize=8,
        linespacing=1.4,
    )
