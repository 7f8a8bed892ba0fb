"""The chapter of loss landscapes: contours and surfaces, all models on one scale."""

import functools
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from spatial_smoothing.report.chapters import chapter
from spatial_smoothing.report.chapters.chapter import Chapter
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.figures.pictures import Picture, picture
from spatial_smoothing.report.rows import Row, text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADING = "Loss landscape"
_KEYS = ("nll", "border_nll", "accuracy", "border_accuracy", "nll_l2")
_COLORS = "viridis"


def contour_figure(rows: Sequence[Row], *, columns: int = 3) -> "Figure":
    """Contours of the NLL over the two directions, a panel for each row.

    Args:
      rows: Rows with "arrays": `a` f[A], `b` f[B], `nll` f[B, A].
      columns: Most panels side by side.

    Returns:
      A figure whose panels share their levels.
    """
    ticks = _ticks(rows)
    levels = np.linspace(ticks[0], ticks[-1], 8 * (len(ticks) - 1) + 1)
    with canvas.style():
        shape = _shape(rows, columns)
        size = (max(3.0 * shape[1] + 1.2, canvas.NARROW), 3.3 * shape[0])
        figure = canvas.new_figure(size, layout="constrained")
        panels = figure.subplots(*shape, squeeze=False, sharey=True).flat
        for axes in panels[len(rows) :]:
            axes.remove()
        for axes, row, name in zip(panels, rows, chapter.names(rows), strict=False):
            a, b, nll = (row["arrays"][key] for key in ("a", "b", "nll"))
            filled = axes.contourf(a, b, nll, levels, cmap=_COLORS)
            lines = axes.contour(a, b, nll, ticks, colors="white", linewidths=0.7)
            for colour, width in (("black", 2.6), ("white", 1.2)):
                axes.plot(0, 0, "+", color=colour, markersize=9, markeredgewidth=width)
            axes.set_title(textwrap.fill(name, 34))
            axes.set(xlabel="First direction", aspect="equal")
            for axis, along in ((axes.xaxis, a), (axes.yaxis, b)):
                axis.set_ticks(np.linspace(along[0], along[-1], 5))
                axis.set_major_formatter(_tick)
            axes.grid(visible=False)
            if axes.get_subplotspec().is_first_col():
                axes.set_ylabel("Second direction")
        bar = figure.colorbar(filled, ax=figure.axes, ticks=ticks, format="%g")
        # The lines in the bar say the values: numbers between the contours would cover
        # the cross, or be cut off.
        bar.add_lines(lines)
        bar.set_label("NLL (nats)")
    return figure


def surface_figure(rows: Sequence[Row], *, columns: int = 3) -> "Figure":
    """The NLL as a surface over the two directions, a panel for each row.

    Args:
      rows: Rows as of `contour_figure`.
      columns: Most panels side by side.

    Returns:
      A figure whose panels share their vertical axis.
    """
    ticks = _ticks(rows)
    with canvas.style():
        lines, side_by_side = shape = _shape(rows, columns)
        width = canvas.NARROW if columns == 1 else canvas.WIDTH / 2 * side_by_side
        figure = canvas.new_figure((width, 4.0 * lines))
        figure.subplots_adjust(left=0, right=0.95, bottom=0.04, top=1, wspace=0.04)
        for number, (row, name) in enumerate(
            zip(rows, chapter.names(rows), strict=True), 1
        ):
            axes = figure.add_subplot(*shape, number, projection="3d")
            a, b, values = (row["arrays"][key] for key in ("a", "b", "nll"))
            axes.plot_surface(
                *np.meshgrid(a, b),
                np.where(np.isfinite(values), values, np.nan),
                cmap=_COLORS,
                vmin=ticks[0],
                vmax=ticks[-1],
                rstride=1,
                cstride=1,
                edgecolor="white",
                linewidth=0.25,
            )
            axes.set(xlabel="First direction", ylabel="Second direction")
            axes.set(zlabel="NLL (nats)", zlim=(ticks[0], ticks[-1]), zticks=ticks)
            axes.set_title(textwrap.fill(name, 48), loc="center", y=0.98)
            axes.locator_params(axis="x", nbins=4)
            axes.locator_params(axis="y", nbins=4)
            axes.view_init(elev=24, azim=-58)
            axes.set_box_aspect((1, 1, 0.75))
            for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
                axis.set_pane_color((1, 1, 1, 0))
    return figure


def _tick(value: float, _: int) -> str:
    """How a tick of a direction is written."""
    return f"{value:.3g}".replace("-", "−")


def _shape(rows: Sequence[Row], columns: int) -> tuple[int, int]:
    """Lines and columns of panels."""
    columns = min(len(rows), columns)
    return math.ceil(len(rows) / columns), columns


def _ticks(rows: Sequence[Row]) -> np.ndarray:
    """Round values that enclose the NLL of all rows."""
    from matplotlib.ticker import MaxNLocator

    values = np.concatenate([np.ravel(row["arrays"]["nll"]) for row in rows])
    values = values[np.isfinite(values)]
    return MaxNLocator(nbins=8).tick_values(values.min(), values.max())


def _images(rows: Sequence[Row]) -> str:
    """Which images are scored; rows of older versions do not say it."""
    kinds = {row.get("augmented", True) for row in rows}
    if kinds == {True}:
        return "augmented training images"
    if kinds == {False}:
        return "training images without augmentation"
    return "training images, which are augmented for some models only"


def _unlike(rows: Sequence[Row]) -> str:
    """Says that rows are of different grids, "" where they are not."""
    keys = ("extent", "normalization", "recalibration")
    return chapter.unlike(rows, keys, "The grid")


def _pictures(rows: Sequence[Row], _: Looks) -> dict[str, Picture]:
    """The figures, whose colours show the NLL and not the models."""
    rows = [
        row
        for row in rows
        if row.get("arrays") and np.isfinite(row["arrays"]["nll"]).any()
    ]
    if not rows:
        return {}
    values = "; ".join(
        f"{name} {text(row, 'nll')} at the trained weights, "
        f"{text(row, 'border_nll')} on the border"
        for name, row in zip(chapter.names(rows), rows, strict=True)
    )
    scale = " All models are on one scale." if len(rows) > 1 else ""
    return {
        "landscape_contour.png": picture(
            functools.partial(contour_figure, rows),
            heading=_HEADING,
            alt=f"Contours of the NLL: {values}.",
            caption=f"NLL of {_images(rows)}, in nats, along two random directions of "
            "the weights, in units of the weights' norm. The cross is "
            f"the trained network. White lines are those of the scale.{scale}"
            f"{_unlike(rows)}",
        ),
        "landscape_surface.png": picture(
            functools.partial(surface_figure, rows),
            heading=_HEADING,
            alt=f"Surfaces of the NLL: {values}.",
            caption=f"The NLL of the figure above as surfaces.{scale}",
        ),
    }


CHAPTER = Chapter(
    headings=(_HEADING,),
    tables=lambda rows: [
        chapter.table(
            rows,
            (*_KEYS, "ece", "curvature", "residual"),
            each="run",
            heading=_HEADING,
            caption=f"Scores of {_images(rows)} at the trained weights and on the "
            f"border of the grid.{_unlike(rows)}",
        )
    ],
    pictures=_pictures,
    files=("landscape_contour.png", "landscape_surface.png"),
    lines=lambda rows: chapter.lines(rows, ("label", *_KEYS[:4], "curvature")),
)
