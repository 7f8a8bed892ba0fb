"""Names the ends of paths, along which the number of samples grows."""

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]
_STEPS = 12  # between two points of a path


def name_ends(
    axes: "Axes", paths: Iterable[tuple[Sequence[Row], Sequence[Point]]]
) -> None:
    """Writes the number of samples at both ends of every path, beside its line.

    Args:
      axes: Axes with the paths, whose scale is final.
      paths: Rows of each path by increasing `num_samples`, and their places in the
        units of the axes. A path of one row gets no name.
    """
    notes, points = {}, []
    for group, places in paths:
        points += places
        for start, end in itertools.pairwise(places):
            points += _between(axes, start, end)
        if len(group) > 1:
            for end in (0, -1):
                notes[places[end]] = f"N = {group[end]['num_samples']}"
    canvas.annotate(axes, notes, points=points)


def _between(axes: "Axes", start: Point, end: Point) -> list[Point]:
    """Returns points of the line that the axes draw between two others."""
    (x, y), (to_x, to_y) = axes.transData.transform([start, end])
    drawn = [
        (x + (to_x - x) * step / _STEPS, y + (to_y - y) * step / _STEPS)
        for step in range(1, _STEPS)
    ]
    return [tuple(point) for point in axes.transData.inverted().transform(drawn)]
