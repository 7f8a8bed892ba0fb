"""Figures with one curve per series of rows: rows -> `matplotlib.figure.Figure`.

Rates are drawn in per cent. A curve is one series: one label, unless the rows are of
several data sets or splits. Its band is the range over runs where a row is the mean of
several, else the interval of the score.

All of these functions take two options. `looks` has the colours and markers of models,
to share them with other figures; without it, they follow from the rows. `columns` is
the most panels that stand side by side, 1 for a narrow window.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spatial_smoothing.report.columns import DETECTORS
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.axes import (
    draw_band,
    heading,
    log_axis,
    overlay,
    scaled,
    size_curves,
)
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.figures.families import told_apart
from spatial_smoothing.report.figures.path_ends import name_ends
from spatial_smoothing.report.rows import Row, detected, detectors, number, series
from spatial_smoothing.report.runs import averaged

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


def ensemble_size_figure(
    rows: Sequence[Row],
    *,
    published: Sequence[Row] = (),
    looks: Looks | None = None,
    columns: int = 3,
) -> "Figure":
    """NLL, accuracy and ECE against the number of samples, one curve per label.

    A model that is evaluated with one sample only is a dashed horizontal line. The
    form is that of Figures 2 and 3 of Park & Kim (2022).

    Args:
      rows: Report rows.
      published: Rows to draw beside those of the same model, data set and label.
      looks: Colours and markers; see the module.
      columns: Most panels side by side.

    Returns:
      A figure with a panel for each of the scores that some row has.

    Raises:
      ValueError: No row has any of them.
    """
    rows = averaged(rows)
    groups = series(rows)
    looks = told_apart(looks, groups)
    keys = sized_scores(rows)
    if not keys:
        raise ValueError("no row has 'nll', 'accuracy' or 'ece'")
    with canvas.style():
        figure, panels = canvas.strip(len(keys), columns=columns)
        for axes, key in zip(panels, keys, strict=True):
            drawn = size_curves(axes, groups, key, looks=looks)
            lines = dict(zip(groups, drawn, strict=True))
            lines |= overlay(
                axes, groups, published, across="num_samples", along=key, looks=looks
            )
            axes.set_title(heading(key))
        lines = looks.entries(lines)
        canvas.legend(figure, list(lines.values()), list(lines))
    return figure


def sized_scores(rows: Sequence[Row]) -> list[str]:
    """Which of NLL, accuracy and ECE some row has."""
    keys = ("nll", "accuracy", "ece")
    return [key for key in keys if any(number(row, key) is not None for row in rows)]


def accuracy_nll_figure(
    rows: Sequence[Row],
    *,
    published: Sequence[Row] = (),
    looks: Looks | None = None,
) -> "Figure":
    """NLL against accuracy: one path per label from its smallest size to its largest.

    Args:
      rows: Report rows, of which those with "nll" and "accuracy" are drawn.
      published: Rows to draw beside those of the same model, data set and label.
      looks: Colours and markers; see the module.

    Returns:
      A figure with one panel.

    Raises:
      ValueError: No row has both.
    """
    rows = averaged(rows)
    looks = told_apart(looks, series(rows))
    groups = _with_nll_and("accuracy", rows)
    with canvas.style():
        figure, (axes,) = canvas.strip(1)
        others = overlay(
            axes, groups, published, across="accuracy", along="nll", looks=looks
        )
        lines = {**_paths(axes, groups, "accuracy", looks), **others}
        lines = looks.entries(lines)
        canvas.legend(figure, list(lines.values()), list(lines))
        name_ends(axes, _with_places(groups, "accuracy"))
    return figure


def time_figure(
    rows: Sequence[Row], *, looks: Looks | None = None, columns: int = 2
) -> "Figure":
    """NLL against the time of computation per image, and the time against the size.

    Args:
      rows: Report rows, of which those with "nll" and "milliseconds" are drawn.
      looks: Colours and markers; see the module.
      columns: Most panels side by side.

    Returns:
      A figure with two panels and logarithmic axes of time.

    Raises:
      ValueError: No row has both.
    """
    rows = averaged(rows)
    looks = told_apart(looks, series(rows))
    groups = _with_nll_and("milliseconds", rows)
    with canvas.style():
        figure, (left, right) = canvas.strip(2, columns=columns)
        left.set_xscale("log")
        lines = _paths(left, groups, "milliseconds", looks)
        log_axis(left.xaxis)
        size_curves(right, groups, "milliseconds", looks=looks)
        right.set_yscale("log")
        right.margins(y=0.1)
        log_axis(right.yaxis)
        right.set_ylabel(heading("milliseconds"))
        lines = looks.entries(lines)
        canvas.legend(figure, list(lines.values()), list(lines))
        name_ends(left, _with_places(groups, "milliseconds"))
    return figure


def detection_figure(
    rows: Sequence[Row], *, looks: Looks | None = None, columns: int = 4
) -> "Figure":
    """AUROC of out-of-distribution detection against the number of samples.

    Args:
      rows: Report rows, of which those with "detection" are drawn.
      looks: Colours and markers; see the module.
      columns: Most panels side by side.

    Returns:
      A figure with one panel per score, on one scale.

    Raises:
      ValueError: No row has "detection".
    """
    rows = averaged(rows)
    looks = looks or Looks(series(rows))
    groups = {
        name: [row for row in group if detectors([row])]
        for name, group in series(rows).items()
    }
    groups = {name: group for name, group in groups.items() if group}
    names = detectors([row for group in groups.values() for row in group])
    if not names:
        raise ValueError("no row has 'detection' with an AUROC")
    with canvas.style():
        figure, panels = canvas.strip(len(names), columns=columns, sharey=True)
        for axes, name in zip(panels, names, strict=True):
            found = {
                label: [detected(row, name) for row in group]
                for label, group in groups.items()
            }
            lines = size_curves(axes, found, "auroc", looks=looks)
            axes.set_title(DETECTORS.get(name, (name,))[0])
            if axes.get_subplotspec().is_first_col():
                axes.set_ylabel(heading("auroc"))
        canvas.legend(figure, lines, list(groups))
    return figure


def risk_coverage_figure(
    rows: Sequence[Row], *, looks: Looks | None = None
) -> "Figure":
    """Error rate against the share of images answered, the most confident first.

    A curve is the largest number of samples of a label; dashed, the same model with one
    sample.

    Args:
      rows: Report rows, of which those with "risk_coverage" are drawn.
      looks: Colours and markers; see the module.

    Returns:
      A figure with one panel.

    Raises:
      ValueError: No row has "risk_coverage".
    """
    from matplotlib.lines import Line2D

    rows = averaged(rows)
    looks = looks or Looks(series(rows))
    groups = {
        name: [row for row in group if row.get("risk_coverage")]
        for name, group in series(rows).items()
    }
    groups = {name: group for name, group in groups.items() if group}
    if not groups:
        raise ValueError("no row has 'risk_coverage'")
    with canvas.style():
        figure, (axes,) = canvas.strip(1)
        lines, has_singles = {}, False
        for name, group in groups.items():
            colour, largest = looks[name]["color"], group[-1]
            label = f"{name} (N = {largest['num_samples']})"
            lines[label] = _risk_curve(axes, largest, color=colour)
            if group[0]["num_samples"] == 1 < largest["num_samples"]:
                _risk_curve(axes, group[0], color=colour, **canvas.DASHED)
                has_singles = True
        if has_singles:
            line = Line2D([], [], color=canvas.GREY, **canvas.DASHED)
            lines["The same with N = 1"] = line
        axes.set(xlim=(0, 100), xlabel="Coverage (%)", ylabel="Error rate (%)")
        axes.set_ylim(bottom=0)
        canvas.legend(figure, list(lines.values()), list(lines))
    return figure


def _paths(
    axes: "Axes", groups: Mapping[str, Sequence[Row]], key: str, looks: Looks
) -> dict[str, "Line2D"]:
    """Draws NLL against another score; returns the path of each series."""
    found = {}
    for name, group in groups.items():
        across, along = _points(group, key)
        look = canvas.OUTLINE | looks[name]
        look |= {"markevery": canvas.marked(len(group))}
        look |= {} if len(group) > 1 else canvas.point()
        if key == "milliseconds":  # the one score that only grows with the size
            draw_band(axes, across, group, "nll", colour=look["color"])
        (found[name],) = axes.plot(across, along, **look)
    axes.set(xlabel=heading(key), ylabel=heading("nll"))
    axes.margins(0.1)
    return found


def _with_places(
    groups: Mapping[str, Sequence[Row]], key: str
) -> list[tuple[Sequence[Row], list[tuple[float, float]]]]:
    """Returns the rows of each path, and their places; see `_points`."""
    return [
        (group, list(zip(*_points(group, key), strict=True)))
        for group in groups.values()
    ]


def _points(group: Sequence[Row], key: str) -> tuple[list[float], list[float]]:
    """Another score and the NLL of rows, as they are drawn."""
    return (
        scaled(key, [row[key] for row in group]),
        scaled("nll", [row["nll"] for row in group]),
    )


def _with_nll_and(key: str, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each series that have both an NLL and another score.

    Args:
      key: The other score.
      rows: Report rows, averaged over runs.
    """
    groups = {
        name: [row for row in group if None not in (row.get("nll"), row.get(key))]
        for name, group in series(rows).items()
    }
    groups = {name: group for name, group in groups.items() if group}
    if not groups:
        raise ValueError(f"no row has both 'nll' and {key!r}")
    return groups


def _risk_curve(axes: "Axes", row: Row, **look: Any) -> "Line2D":
    """Draws a risk-coverage curve; its range over runs, if it has one, is shaded."""
    curve = row["risk_coverage"]
    coverage, risk, low, high = (
        [math.nan if value is None else 100 * value for value in curve.get(key) or ()]
        for key in ("coverage", "risk", "low", "high")
    )
    if low:
        canvas.band(axes, coverage, low, high, colour=look["color"], is_range=True)
    return axes.plot(coverage, risk, **look)[0]
