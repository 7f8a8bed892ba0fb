"""How many models are told apart: a colour for each method, a line for smoothing.

There are as many colours as colour-blind readers can tell apart. Where a figure has
more models, a network with smoothing and the same one without it have one colour and
one marker. The one with smoothing has a solid line and filled markers, the other one a
dashed line and open markers.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from spatial_smoothing.report.comparisons import SMOOTHED, is_smoothed
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.rows import Row

_FILLED = {"linestyle": "-", **canvas.OUTLINE}
_OPEN = {
    "linestyle": (0, (3, 1.5)),
    "markerfacecolor": "white",
    "markeredgewidth": 1,
}


def told_apart(looks: Looks | None, groups: Mapping[str, Sequence[Row]]) -> Looks:
    """Returns looks by which readers can tell all series of a figure apart.

    Args:
      looks: Looks of the report; None for those that follow from the series.
      groups: Series -> its rows.

    Returns:
      `looks` where there is a colour for each series, else those by families.
    """
    if are_needed(groups):
        return Families(groups)
    return looks or Looks(groups)


def are_needed(names: Collection[str]) -> bool:
    """Whether a figure has more models than colours.

    Args:
      names: Names of the models.
    """
    return len(names) > canvas.NUM_COLOURS


class Families(Looks):
    """Looks in which a model with smoothing has the colour of that without it.

    A look has `color` and `marker`, as every look. Where some of the models have
    smoothing, it has the line and the inside of the markers, too.
    """

    def __init__(self, groups: Mapping[str, Sequence[Row]]):
        """Gives models their looks.

        Args:
          groups: Series -> its rows.
        """
        self._families: dict[str, tuple[str, bool]] = {}
        for name, (row, *_) in groups.items():
            smoothed = is_smoothed(row)
            family = name.replace(SMOOTHED, "", 1), smoothed
            # Two models of one look would be taken for one model.
            is_taken = family in self._families.values()
            self._families[name] = (name, smoothed) if is_taken else family
        self._has_path = {name: len(group) > 1 for name, group in groups.items()}
        super().__init__(family for family, _ in self._families.values())

    def __getitem__(self, name: str) -> dict[str, Any]:
        """Returns the look of a model."""
        family, smoothed = self._families.get(name, (name, False))
        look = super().__getitem__(family)
        if not self._some_are_smoothed:
            return look
        kind = _FILLED if smoothed else _OPEN | {"markeredgecolor": look["color"]}
        return look | kind

    def entries(self, lines: Mapping[str, Any]) -> dict[str, Any]:
        """Returns an entry for each family, for smoothing, and for all other lines."""
        from matplotlib.lines import Line2D

        found: dict[str, Line2D] = {}
        for name in lines:
            if name in self._families:
                family, _ = self._families[name]
                look = super().__getitem__(family) | _FILLED
                look |= {} if self._has_path[name] else canvas.point()
                found[family] = Line2D([], [], **look)
        if self._some_are_smoothed:
            grey = {"color": canvas.GREY, "marker": "o"}
            edge = {"markeredgecolor": canvas.GREY}
            found["With smoothing"] = Line2D([], [], **grey, **_FILLED)
            found["Without smoothing"] = Line2D([], [], **grey, **_OPEN, **edge)
        others = {name: line for name, line in lines.items() if name not in self}
        return found | others

    def __contains__(self, name: str) -> bool:
        """Whether a model is one of those that the looks were made for."""
        return name in self._families

    @property
    def _some_are_smoothed(self) -> bool:
        return any(smoothed for _, smoothed in self._families.values())
