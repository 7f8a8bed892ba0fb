"""Figures with one curve per series of rows: rows -> `matplotlib.figure.Figure`.

Rates are drawn in per cent. A curve is one series: one label, unless the rows are of
several data sets or splits. Its band is the range over runs where a row is the average
of several, else the interval of the score.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spatial_smoothing.report import canvas
from spatial_smoothing.report.columns import DETECTORS, column
from spatial_smoothing.report.rows import (
    Row,
    band,
    detected,
    detectors,
    number,
    series,
)
from spatial_smoothing.report.runs import averaged

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


def ensemble_size_figure(rows: Sequence[Row]) -> "Figure":
    """NLL, accuracy and ECE against the number of samples, one curve per label.

    A model that is evaluated with one sample only is a dashed horizontal line. The
    form is that of Figures 2 and 3 of Park & Kim (2022).

    Args:
      rows: report rows.

    Returns:
      A figure with three panels.
    """
    groups = series(averaged(rows))
    with canvas.style():
        figure, panels = canvas.strip(3)
        for axes, key in zip(panels, ("nll", "accuracy", "ece"), strict=True):
            lines = _size_curves(axes, groups, key)
            axes.set_title(_heading(key))
        canvas.legend(figure, lines, list(groups))
    return figure


def accuracy_nll_figure(rows: Sequence[Row]) -> "Figure":
    """NLL against accuracy: one path per label from its smallest size to its largest.

    Args:
      rows: report rows, of which those with "nll" and "accuracy" are drawn.

    Returns:
      A figure with one panel.

    Raises:
      ValueError: no row has both.
    """
    return _paths(rows, "accuracy")


def time_figure(rows: Sequence[Row]) -> "Figure":
    """NLL against the time of computation per image, one path per label.

    Args:
      rows: report rows, of which those with "nll" and "milliseconds" are drawn.

    Returns:
      A figure with one panel and a logarithmic axis of time.

    Raises:
      ValueError: no row has both.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    figure = _paths(rows, "milliseconds")
    (axes,) = figure.axes
    with canvas.style():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    return figure


def detection_figure(rows: Sequence[Row]) -> "Figure":
    """AUROC of out-of-distribution detection against the number of samples.

    Args:
      rows: report rows, of which those with "detection" are drawn.

    Returns:
      A figure with one panel per score, on one scale.

    Raises:
      ValueError: no row has "detection".
    """
    groups = {
        name: [row for row in group if detectors([row])]
        for name, group in series(averaged(rows)).items()
    }
    groups = {name: group for name, group in groups.items() if group}
    names = detectors([row for group in groups.values() for row in group])
    if not names:
        raise ValueError("no row has 'detection' with an AUROC")
    with canvas.style():
        figure, panels = canvas.strip(len(names), sharey=True)
        for axes, name in zip(panels, names, strict=True):
            found = {
                label: [detected(row, name) for row in group]
                for label, group in groups.items()
            }
            lines = _size_curves(axes, found, "auroc")
            axes.set_title(DETECTORS.get(name, (name,))[0])
        panels[0].set_ylabel(_heading("auroc"))
        canvas.legend(figure, lines, list(groups))
    return figure


def risk_coverage_figure(rows: Sequence[Row]) -> "Figure":
    """Error rate against the share of images answered, the most confident first.

    A curve is the largest number of samples of a label; dashed, the same model with one
    sample.

    Args:
      rows: report rows, of which those with "risk_coverage" are drawn.

    Returns:
      A figure with one panel.

    Raises:
      ValueError: no row has "risk_coverage".
    """
    from matplotlib.lines import Line2D

    groups = {
        name: [row for row in group if row.get("risk_coverage")]
        for name, group in series(averaged(rows)).items()
    }
    groups = {name: group for name, group in groups.items() if group}
    if not groups:
        raise ValueError("no row has 'risk_coverage'")
    with canvas.style():
        figure, (axes,) = canvas.strip(1)
        lines, singles = {}, False
        for (name, group), look in zip(groups.items(), canvas.looks(), strict=False):
            *_, largest = group
            label = f"{name} (N = {largest['num_samples']})"
            lines[label] = _risk_curve(axes, largest, color=look["color"])
            if group[0]["num_samples"] == 1 < largest["num_samples"]:
                _risk_curve(axes, group[0], color=look["color"], **canvas.DASHED)
                singles = True
        if singles:
            line = Line2D([], [], color="#333333", **canvas.DASHED)
            lines["The same with N = 1"] = line
        axes.set(xlim=(0, 100), xlabel="Coverage (%)", ylabel="Error rate (%)")
        axes.set_ylim(bottom=0)
        canvas.legend(figure, list(lines.values()), list(lines))
    return figure


def _heading(key: str) -> str:
    better = column(key).better
    return f"{_axis(key)}  {'↓' if better == 'lower' else '↑'} {better} is better"


def _axis(key: str) -> str:
    heading, unit, *_ = column(key)
    return f"{heading} ({unit})" if unit else heading


def _scaled(key: str, values: Sequence[float | None]) -> list[float]:
    scale = column(key).scale
    return [math.nan if value is None else scale * value for value in values]


def _bounds(key: str, group: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Lower and upper ends of the bands, not a number where there is none."""
    bands = [band(row, key) or (None, None) for row in group]
    low, high = zip(*bands, strict=True)
    return _scaled(key, low), _scaled(key, high)


def _size_curves(
    axes: "Axes", groups: dict[str, list[Row]], key: str
) -> list["Line2D"]:
    """Draws a score of every series against its sizes; the lines, in order.

    The band of a horizontal line is a bar beside the curves, which it would hide.
    """
    lines, bars = [], []
    for group, look in zip(groups.values(), canvas.looks(), strict=False):
        sizes = [row["num_samples"] for row in group]
        values = _scaled(key, [number(row, key) for row in group])
        low, high = _bounds(key, group)
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


def _paths(rows: Sequence[Row], key: str) -> "Figure":
    """NLL against another score, with the number of samples written at both ends."""
    groups = {
        name: [row for row in group if None not in (row.get("nll"), row.get(key))]
        for name, group in series(averaged(rows)).items()
    }
    groups = {name: group for name, group in groups.items() if group}
    if not groups:
        raise ValueError(f"no row has both 'nll' and {key!r}")
    with canvas.style():
        figure, (axes,) = canvas.strip(1)
        lines = []
        for group, look in zip(groups.values(), canvas.looks(), strict=False):
            across = _scaled(key, [row[key] for row in group])
            along = _scaled("nll", [row["nll"] for row in group])
            look |= canvas.OUTLINE | {"markevery": canvas.marked(len(group))}
            look |= {} if len(group) > 1 else canvas.POINT
            if key == "milliseconds":  # the one score that only grows with the size
                shade = {"color": look["color"], **canvas.BAND}
                axes.fill_between(across, *_bounds("nll", group), **shade)
            lines += axes.plot(across, along, **look)
            for i in {0, len(group) - 1} if len(group) > 1 else ():
                note = f"N = {group[i]['num_samples']}"
                axes.annotate(note, (across[i], along[i]), **canvas.NOTE)
        axes.set(xlabel=_heading(key), ylabel=_heading("nll"))
        axes.margins(0.1)
        canvas.legend(figure, lines, list(groups))
    return figure


def _risk_curve(axes: "Axes", row: Row, **look: Any) -> "Line2D":
    curve = row["risk_coverage"]
    coverage, risk, low, high = (
        [math.nan if value is None else 100 * value for value in curve.get(key) or ()]
        for key in ("coverage", "risk", "low", "high")
    )
    if low:
        axes.fill_between(coverage, low, high, color=look["color"], **canvas.BAND)
    return axes.plot(coverage, risk, **look)[0]
