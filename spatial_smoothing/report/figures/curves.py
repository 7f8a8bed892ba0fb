"""Figures with one curve per series of rows: rows -> `matplotlib.figure.Figure`.

Rates are drawn in per cent. A curve is one series: one label, unless the rows are of
several data sets or splits. Its band is the range over runs where a row is the average
of several, else the interval of the score.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spatial_smoothing.report.columns import DETECTORS
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.axes import (
    bounds,
    heading,
    overlay,
    scaled,
    size_curves,
)
from spatial_smoothing.report.rows import Row, detected, detectors, series
from spatial_smoothing.report.runs import averaged

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


def ensemble_size_figure(
    rows: Sequence[Row], *, published: Sequence[Row] = ()
) -> "Figure":
    """NLL, accuracy and ECE against the number of samples, one curve per label.

    A model that is evaluated with one sample only is a dashed horizontal line. The
    form is that of Figures 2 and 3 of Park & Kim (2022).

    Args:
      rows: report rows.
      published: rows to draw beside those of the same model, data set and label.

    Returns:
      A figure with three panels.
    """
    groups = series(averaged(rows))
    with canvas.style():
        figure, panels = canvas.strip(3)
        for axes, key in zip(panels, ("nll", "accuracy", "ece"), strict=True):
            lines = dict(zip(groups, size_curves(axes, groups, key), strict=True))
            lines |= overlay(axes, groups, published, across="num_samples", along=key)
            axes.set_title(heading(key))
        canvas.legend(figure, list(lines.values()), list(lines))
    return figure


def accuracy_nll_figure(
    rows: Sequence[Row], *, published: Sequence[Row] = ()
) -> "Figure":
    """NLL against accuracy: one path per label from its smallest size to its largest.

    Args:
      rows: report rows, of which those with "nll" and "accuracy" are drawn.
      published: rows to draw beside those of the same model, data set and label.

    Returns:
      A figure with one panel.

    Raises:
      ValueError: no row has both.
    """
    groups = _with_nll_and("accuracy", rows)
    with canvas.style():
        figure, (axes,) = canvas.strip(1)
        others = overlay(axes, groups, published, across="accuracy", along="nll")
        lines = {**_paths(axes, groups, "accuracy"), **others}
        canvas.legend(figure, list(lines.values()), list(lines))
    return figure


def time_figure(rows: Sequence[Row]) -> "Figure":
    """NLL against the time of computation per image, and the time against the size.

    Args:
      rows: report rows, of which those with "nll" and "milliseconds" are drawn.

    Returns:
      A figure with two panels and logarithmic axes of time.

    Raises:
      ValueError: no row has both.
    """
    groups = _with_nll_and("milliseconds", rows)
    with canvas.style():
        figure, (left, right) = canvas.strip(2)
        left.set_xscale("log")
        lines = _paths(left, groups, "milliseconds")
        _time_axis(left.xaxis)
        size_curves(right, groups, "milliseconds")
        right.set_yscale("log")
        _time_axis(right.yaxis)
        right.set_ylabel(heading("milliseconds"))
        canvas.legend(figure, list(lines.values()), list(lines))
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
            lines = size_curves(axes, found, "auroc")
            axes.set_title(DETECTORS.get(name, (name,))[0])
        panels[0].set_ylabel(heading("auroc"))
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


def _paths(axes: "Axes", groups: dict[str, list[Row]], key: str) -> dict[str, "Line2D"]:
    """NLL against another score, with the number of samples written at both ends."""
    found, notes = {}, {}
    for (name, group), look in zip(groups.items(), canvas.looks(), strict=False):
        across = scaled(key, [row[key] for row in group])
        along = scaled("nll", [row["nll"] for row in group])
        look |= canvas.OUTLINE | {"markevery": canvas.marked(len(group))}
        look |= {} if len(group) > 1 else canvas.POINT
        if key == "milliseconds":  # the one score that only grows with the size
            shade = {"color": look["color"], **canvas.BAND}
            axes.fill_between(across, *bounds("nll", group), **shade)
        (found[name],) = axes.plot(across, along, **look)
        for i in {0, len(group) - 1} if len(group) > 1 else ():
            notes[across[i], along[i]] = f"N = {group[i]['num_samples']}"
    axes.set(xlabel=heading(key), ylabel=heading("nll"))
    axes.margins(0.1)
    canvas.annotate(axes, notes)
    return found


def _with_nll_and(key: str, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each series that have both."""
    groups = {
        name: [row for row in group if None not in (row.get("nll"), row.get(key))]
        for name, group in series(averaged(rows)).items()
    }
    groups = {name: group for name, group in groups.items() if group}
    if not groups:
        raise ValueError(f"no row has both 'nll' and {key!r}")
    return groups


def _time_axis(axis: "Axis") -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def _risk_curve(axes: "Axes", row: Row, **look: Any) -> "Line2D":
    curve = row["risk_coverage"]
    coverage, risk, low, high = (
        [math.nan if value is None else 100 * value for value in curve.get(key) or ()]
        for key in ("coverage", "risk", "low", "high")
    )
    if low:
        axes.fill_between(coverage, low, high, color=look["color"], **canvas.BAND)
    return axes.plot(coverage, risk, **look)[0]
