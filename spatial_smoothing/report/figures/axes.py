"""What the curves of figures share: headings, scales, bands and axes of sizes."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spatial_smoothing.report.columns import column
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.published import SOURCE
from spatial_smoothing.report.rows import Row, band, number, shared

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.lines import Line2D


def heading(key: str) -> str:
    """The heading of an axis or a panel: the score, its unit and its better side."""
    better = column(key).better
    side = f"  {'↓' if better == 'lower' else '↑'} {better} is better" if better else ""
    return f"{with_unit(key)}{side}"


def with_unit(key: str) -> str:
    """The score and its unit: "NLL (nats)"."""
    known = column(key)
    return f"{known.heading} ({known.unit})" if known.unit else known.heading


def scaled(key: str, values: Sequence[float | None]) -> list[float]:
    """Values of a score as they are drawn, such as rates in per cent; NaN for None."""
    scale = column(key).scale
    return [math.nan if value is None else scale * value for value in values]


def bounds(key: str, rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """The lower and the upper ends of the bands of a score, NaN where there is none."""
    bands = [band(row, key) or (None, None) for row in rows]
    low, high = zip(*bands, strict=True)
    return scaled(key, low), scaled(key, high)


def draw_band(
    axes: "Axes", across: Sequence[float], rows: Sequence[Row], key: str, *, colour: str
) -> None:
    """Draws the band of a curve: bootstrap intervals, or ranges over runs.

    Args:
      axes: The panel.
      across: Place of each row.
      rows: The rows of the curve.
      key: The score that the curve shows.
      colour: Colour of the curve.
    """
    for is_range in (False, True):
        # A row has a range over runs where it is the mean of several.
        kept = [("num_runs" in row) == is_range for row in rows]
        ends = [
            [
                value if keep else math.nan
                for value, keep in zip(side, kept, strict=True)
            ]
            for side in bounds(key, rows)
        ]
        if not all(map(math.isnan, ends[0])):
            canvas.band(axes, across, *ends, colour=colour, is_range=is_range)


def size_curves(
    axes: "Axes", groups: Mapping[str, Sequence[Row]], key: str, *, looks: Looks
) -> list["Line2D"]:
    """Draws a score of every series against its numbers of samples.

    A series with one sample only is a dashed horizontal line. Its band is a bar beside
    the curves, because a band over the whole panel would hide them.

    Args:
      axes: The panel.
      groups: Series -> its rows, by number of samples.
      key: The score.
      looks: Colour and marker of each series.

    Returns:
      The line of each series, in order.
    """
    lines, bars = [], []
    for name, group in groups.items():
        look = looks[name]
        sizes = [row["num_samples"] for row in group]
        values = scaled(key, [number(row, key) for row in group])
        if sizes == [1]:
            kind = look.get("linestyle", "--")
            dashed = {"color": look["color"], "linestyle": kind, "linewidth": 1.3}
            lines.append(axes.axhline(values[0], **dashed))
            low, high = bounds(key, group)
            if not math.isnan(low[0]):
                bars.append((low, high, look["color"]))
        else:
            draw_band(axes, sizes, group, key, colour=look["color"])
            look = canvas.OUTLINE | look | {"markevery": canvas.marked(len(sizes))}
            lines += axes.plot(sizes, values, **look)
    sizes = sorted({row["num_samples"] for group in groups.values() for row in group})
    _size_axis(axes, sizes, margin=0.04 * len(bars))
    for place, (low, high, colour) in enumerate(bars):
        where = 0.98 - 0.04 * place
        axes.vlines(
            where, low, high, color=colour, transform=axes.get_yaxis_transform()
        )
    return lines


def _size_axis(axes: "Axes", sizes: Sequence[int], *, margin: float) -> None:
    """Makes a logarithmic axis with a tick at every number of samples.

    Args:
      axes: The panel.
      sizes: Numbers of samples, increasing. As many are written as have room.
      margin: Part of the axis that is left free on the right, in [0, 1).
    """
    low, high = sizes[0] / 1.2, sizes[-1] * 1.2
    high *= (high / low) ** (margin / (1 - margin))
    axes.set(xscale="log", xlim=(low, high), xlabel="Number of samples N")
    side_by_side = axes.get_subplotspec().get_gridspec().ncols
    room = 12.5 * axes.figure.get_figwidth() / side_by_side  # characters on an axis
    labelled = [sizes[-1]]
    for size in reversed(sizes[:-1]):
        characters = (len(str(size)) + len(str(labelled[-1]))) / 2 + 0.8
        if room * math.log(labelled[-1] / size) / math.log(high / low) >= characters:
            labelled.append(size)
    axes.set_xticks(labelled[::-1], [str(size) for size in labelled[::-1]])
    unlabelled = [size for size in sizes if size not in labelled]
    axes.set_xticks(unlabelled, [""] * len(unlabelled), minor=True)


def log_axis(axis: "Axis") -> None:
    """Makes a logarithmic axis with at least two ticks that are written.

    Args:
      axis: The axis, with its data.
    """
    from matplotlib.ticker import FixedLocator, NullLocator

    low, high = axis.get_view_interval()
    axis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two positive ends: at least two, and at most eight."""
    from matplotlib.ticker import MaxNLocator

    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5)):
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            step = math.ceil(len(ticks) / 8)
            return ticks[::step]
    # Within less than a decade, equal steps say more than powers of ten.
    ticks = MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high]


def published_of(
    groups: Mapping[str, Sequence[Row]], published: Sequence[Row]
) -> dict[str, list[Row]]:
    """Returns series -> the published rows of its model, data set and label.

    Args:
      groups: Series -> its rows.
      published: Published rows.
    """
    found = {}
    for name, group in groups.items():
        label = name.split(" (")[0]  # without data set or workdir
        about = [label, shared(group, "model"), shared(group, "dataset")]
        found[name] = [
            row
            for row in published
            if [row["label"], row["model"], row["dataset"]] == about
        ]
    return found


def overlay(
    axes: "Axes",
    groups: Mapping[str, Sequence[Row]],
    published: Sequence[Row],
    *,
    across: str,
    along: str,
    looks: Looks,
) -> dict[str, "Line2D"]:
    """Draws published values of the same model, data set and label.

    Args:
      axes: The panel.
      groups: Series -> its rows.
      published: Published rows.
      across: Key of the values on the horizontal axis.
      along: Key of the values on the vertical axis.
      looks: Colour and marker of each series.

    Returns:
      The entry of the legend; none if nothing was drawn.
    """
    from matplotlib.lines import Line2D

    hollow = {"markerfacecolor": "white", "linestyle": ":", "linewidth": 1}
    found = {}
    for name, rows in published_of(groups, published).items():
        points = [
            (scaled(across, [row[across]])[0], scaled(along, [row[along]])[0])
            for row in rows
        ]
        if points:
            axes.plot(*zip(*points, strict=True), **(looks[name] | hollow))
            found[SOURCE] = Line2D([], [], color=canvas.GREY, marker="o", **hollow)
    return found
