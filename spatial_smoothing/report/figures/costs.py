"""The figure of scores against the cost of a prediction, with its Pareto front."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spatial_smoothing.report import costs
from spatial_smoothing.report.figures import canvas, families
from spatial_smoothing.report.figures.axes import (
    bounds,
    draw_band,
    heading,
    log_axis,
    scaled,
    with_unit,
)
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.figures.path_ends import name_ends
from spatial_smoothing.report.rows import Row, number, series
from spatial_smoothing.report.runs import averaged

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FRONT = {
    "color": canvas.GREY,
    "linestyle": (0, (4, 2)),
    "linewidth": 1,
    "zorder": 1.5,  # above the grid, below the curves
}
# Markers on the front stand in a black outline of their shape.
_ON_FRONT = {
    "markerfacecolor": "none",
    "markeredgecolor": "black",
    "markeredgewidth": 0.9,
}
_LARGER = 0.65  # by which part of the markers of a path the outline is larger


def cost_figure(
    rows: Sequence[Row],
    *,
    cost: str = "gflops",
    looks: Looks | None = None,
    columns: int = 3,
) -> "Figure":
    """NLL, accuracy and ECE against the cost of a prediction, one path per label.

    A path goes from the smallest number of samples of a label to its largest. It has a
    band; of more labels than there are colours, whose bands would hide each other, the
    points have bars. A dashed
    line is the Pareto front of all of them, and markers on it have a black outline; it
    is left out where rows are of different images or numbers of runs.

    Args:
      rows: Report rows.
      cost: "gflops" or "milliseconds".
      looks: Colours and markers of the models; without it, they follow from the rows.
      columns: Most panels side by side.

    Returns:
      A figure with a panel for each of the scores that some row has.

    Raises:
      ValueError: No two labels have the cost and a score, or times are of different
        devices.
    """
    from matplotlib.lines import Line2D

    rows = costs.compared(averaged(rows), cost)
    if not rows:
        raise ValueError(f"no two labels have {cost!r} that compare, and a score")
    groups = series(rows)
    looks = families.told_apart(looks, groups)
    fronts = costs.fronts(rows, cost)
    many = families.are_needed(groups)
    keys = [
        key for key in costs.SCORES if any(number(r, key) is not None for r in rows)
    ]
    with canvas.style():
        figure, panels = canvas.strip(len(keys), columns=columns)
        entries: dict[str, Any] = {}
        for axes, key in zip(panels, keys, strict=True):
            axes.set_xscale("log")
            for name, group in groups.items():
                entries[name] = _path(
                    axes, group, cost, key, look=looks[name], has_bars=many
                )
            if key in fronts:
                _front(axes, fronts[key], cost, key, groups=groups, looks=looks)
            axes.set(title=heading(key), xlabel=with_unit(cost))
            axes.margins(0.1)
            log_axis(axes.xaxis)
        if fronts:
            look = {"marker": "o", "markersize": 6, **_ON_FRONT, **_FRONT}
            entries["Pareto front"] = Line2D([], [], **look)
        entries = looks.entries(entries)
        canvas.legend(figure, list(entries.values()), list(entries))
        name_ends(
            panels[0],
            [
                (group, [(_scaled(row, cost), _scaled(row, keys[0])) for row in group])
                for group in groups.values()
            ],
        )
    return figure


def _path(
    axes: "Axes",
    group: Sequence[Row],
    cost: str,
    key: str,
    *,
    look: dict[str, Any],
    has_bars: bool,
) -> Any:
    """Draws the path of a label and its band; returns the line.

    Args:
      axes: The panel.
      group: Rows of the label, by number of samples.
      cost: "gflops" or "milliseconds".
      key: The score.
      look: Colour, marker and perhaps line of the label.
      has_bars: Whether the points of a path have bars in place of a band.
    """
    across = scaled(cost, [row[cost] for row in group])
    along = scaled(key, [number(row, key) for row in group])
    if len(group) > 1:
        if not has_bars:
            draw_band(axes, across, group, key, colour=look["color"])
        look = look | {"markevery": canvas.marked(len(group))}
    else:
        look = look | canvas.point()
    if has_bars or len(group) == 1:
        _bars(axes, across, group, key, colour=look["color"])
    (line,) = axes.plot(across, along, **(canvas.OUTLINE | look))
    return line


def _bars(
    axes: "Axes",
    across: Sequence[float],
    group: Sequence[Row],
    key: str,
    *,
    colour: str,
) -> None:
    """Draws the bands of points as vertical bars."""
    width = 1.3 if len(group) == 1 else 0.8
    axes.vlines(across, *bounds(key, group), color=colour, linewidth=width)


def _front(
    axes: "Axes",
    front: Sequence[Row],
    cost: str,
    key: str,
    *,
    groups: Mapping[str, Sequence[Row]],
    looks: Looks,
) -> None:
    """Draws a Pareto front: what one gets for a cost, which is a step function."""
    import matplotlib

    on_path = matplotlib.rcParams["lines.markersize"]
    across = scaled(cost, [row[cost] for row in front])
    along = scaled(key, [row[key] for row in front])
    axes.plot(across, along, drawstyle="steps-post", **_FRONT)
    for name, group in groups.items():
        for row, *place in zip(front, across, along, strict=True):
            if any(row is one for one in group):
                size = canvas.point()["markersize"] if len(group) == 1 else on_path
                look = {
                    "marker": looks[name]["marker"],
                    "markersize": size + _LARGER * on_path,
                    "linestyle": "none",
                    **_ON_FRONT,
                }
                axes.plot(*place, **look, zorder=3)


def _scaled(row: Row, key: str) -> float:
    """Returns a number of a row in the units of the figure."""
    (value,) = scaled(key, [number(row, key)])
    return value
