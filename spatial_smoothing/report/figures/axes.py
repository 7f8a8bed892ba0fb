"""What the curves of figures share: headings, scales, bands and axes of sizes."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spatial_smoothing.report.columns import column
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.published import SOURCE
from spatial_smoothing.report.rows import Row, band, number, shared

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


def heading(key: str) -> str:
    """Of an axis or a panel: the score, its unit and its better side."""
    better = column(key).better
    return f"{_axis(key)}  {'↓' if better == 'lower' else '↑'} {better} is better"


def _axis(key: str) -> str:
    heading, unit, *_ = column(key)
    return f"{heading} ({unit})" if unit else heading


def scaled(key: str, values: Sequence[float | None]) -> list[float]:
    """Values as they are drawn, NaN for None."""
    scale = column(key).scale
    return [math.nan if value is None else scale * value for value in values]


def bounds(key: str, group: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Lower and upper ends of the bands, not a number where there is none."""
    bands = [band(row, key) or (None, None) for row in group]
    low, high = zip(*bands, strict=True)
    return scaled(key, low), scaled(key, high)


def size_curves(axes: "Axes", groups: dict[str, list[Row]], key: str) -> list["Line2D"]:
    """Draws a score of every series against its sizes; the lines, in order.

    The band of a horizontal line is a bar beside the curves, which it would hide.
    """
    lines, bars = [], []
    for group, look in zip(groups.values(), canvas.looks(), strict=False):
        sizes = [row["num_samples"] for row in group]
        values = scaled(key, [number(row, key) for row in group])
        low, high = bounds(key, group)
        shade = {"color": look["color"], **canvas.BAND}
        if sizes == [1]:
            dashed = {"color": look["color"], "linestyle": "--", "linewidth": 1.3}
            lines.append(axes.axhline(values[0], **dashed))
            bars.append((low, high, look["color"]))
        else:
            axes.fill_between(sizes, low, high, **shade)
            look |= canvas.OUTLINE | {"markevery": canvas.marked(len(sizes))}
            lines += axes.plot(sizes, values, **look)
    sizes = sorted({row["num_samples"] for group in groups.values() for row in group})
    bars = [bar for bar in bars if not math.isnan(bar[0][0])]
    _size_axis(axes, sizes, margin=0.04 * len(bars))
    for place, (low, high, colour) in enumerate(bars):
        where = 0.98 - 0.04 * place
        axes.vlines(
            where, low, high, color=colour, transform=axes.get_yaxis_transform()
        )
    return lines


def _size_axis(axes: "Axes", sizes: list[int], *, margin: float) -> None:
    """A logarithmic axis with a tick at every size and as many labels as have room.

    `margin` is the part of the axis that is left free on the right.
    """
    low, high = sizes[0] / 1.2, sizes[-1] * 1.2
    high *= (high / low) ** (margin / (1 - margin))
    axes.set(xscale="log", xlim=(low, high), xlabel="Number of samples N")
    room = 120 / len(axes.figure.axes)  # characters on an axis
    labelled = [sizes[-1]]
    for size in reversed(sizes[:-1]):
        characters = (len(str(size)) + len(str(labelled[-1]))) / 2 + 0.8
        if room * math.log(labelled[-1] / size) / math.log(high / low) >= characters:
            labelled.append(size)
    axes.set_xticks(labelled[::-1], [str(size) for size in labelled[::-1]])
    unlabelled = [size for size in sizes if size not in labelled]
    axes.set_xticks(unlabelled, [""] * len(unlabelled), minor=True)


def overlay(
    axes: "Axes",
    groups: Mapping[str, Sequence[Row]],
    published: Sequence[Row],
    *,
    across: str,
    along: str,
) -> dict[str, "Line2D"]:
    """Draws published values of the same model, data set and label; for the legend."""
    from matplotlib.lines import Line2D

    hollow = {"markerfacecolor": "white", "linestyle": ":", "linewidth": 1}
    found = {}
    for (name, group), look in zip(groups.items(), canvas.looks(), strict=False):
        label = name.split(" (")[0]  # without data set or workdir
        about = [label, shared(group, "model"), shared(group, "dataset")]
        points = [
            (scaled(across, [row[across]])[0], scaled(along, [row[along]])[0])
            for row in published
            if [row["label"], row["model"], row["dataset"]] == about
        ]
        if points:
            axes.plot(*zip(*points, strict=True), **(look | hollow))
            found[SOURCE] = Line2D([], [], color="#333333", marker="o", **hollow)
    return found
