"""Figures of robustness to corruptions: rows -> `matplotlib.figure.Figure`."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from spatial_smoothing.report.chapters.robustness import largest, sized
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.axes import heading, scaled, size_curves
from spatial_smoothing.report.rows import Row, number, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KEYS = ("nll", "accuracy", "ece")
_NAME_WIDTH, _GAP = 2.7, 0.06  # of the sheet, in images


def severity_figure(rows: Sequence[Row]) -> "Figure":
    """NLL, accuracy and ECE by severity: boxes over corruptions, side by side.

    The form is that of Figure 9 of Park & Kim (2022). Boxes are quartiles with the
    median; whiskers end at the last value within 1.5 times their length, and circles
    are values beyond. Without corruption there is one value, a diamond.

    Args:
      rows: With "severity", of which each label's largest number of samples is drawn.
    """
    from matplotlib.patches import Patch

    groups = largest(rows)
    with canvas.style():
        figure, panels = canvas.strip(3)
        for axes, key in zip(panels, _KEYS, strict=True):
            _boxes(axes, groups, key)
            axes.set_title(heading(key))
        handles = [
            Patch(facecolor=_pale(look["color"]), edgecolor=look["color"])
            for _, look in zip(groups, canvas.looks(), strict=False)
        ]
        labels = [sized(name, group) for name, group in groups.items()]
        canvas.legend(figure, handles, labels)
    return figure


def _boxes(axes: "Axes", groups: Mapping[str, Sequence[Row]], key: str) -> None:
    severities = sorted({row["severity"] for rows in groups.values() for row in rows})
    width = 0.8 / len(groups)
    for index, (rows, look) in enumerate(
        zip(groups.values(), canvas.looks(), strict=False)
    ):
        colour, offset = look["color"], (index - (len(groups) - 1) / 2) * width
        values = {
            severity: scaled(
                key, [number(row, key) for row in rows if row["severity"] == severity]
            )
            for severity in severities
        }
        line = {"color": colour, "linewidth": 1}
        for place, severity in enumerate(severities):
            found = [value for value in values[severity] if not math.isnan(value)]
            if severity == 0:
                axes.plot(
                    [place + offset] * len(found), found, "D", color=colour, ms=3.5
                )
                continue
            axes.boxplot(
                [found],
                positions=[place + offset],
                widths=0.82 * width,
                patch_artist=True,
                manage_ticks=False,
                boxprops={**line, "facecolor": _pale(colour)},
                medianprops={**line, "linewidth": 1.6},
                whiskerprops=line,
                capprops=line,
                flierprops={"markersize": 2.5, "markeredgecolor": colour},
            )
    labels = ["clean" if severity == 0 else str(severity) for severity in severities]
    axes.set_xticks(range(len(severities)), labels)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("Severity")


def _pale(colour: str) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return tuple(1 - 0.3 * (1 - part) for part in to_rgb(colour))


def means_figure(rows: Sequence[Row], keys: Sequence[str]) -> "Figure":
    """Means over corruptions against the number of samples, one curve per label.

    Args:
      rows: With the means, one for each label and size.
      keys: Of the panels.
    """
    groups = series([{**row, "dataset": None, "split": None} for row in rows])
    with canvas.style():
        figure, panels = canvas.strip(len(keys))
        for axes, key in zip(panels, keys, strict=True):
            lines = size_curves(axes, groups, key)
            axes.set_title(heading(key))
        canvas.legend(figure, lines, list(groups))
    return figure


def sheet_figure(
    arrays: Mapping[str, np.ndarray], severities: Sequence[int], names: Mapping
) -> "Figure":
    """One image under every corruption and severity.

    Args:
      arrays: Corruption -> u8[S, H, W, 3]; "clean" -> u8[1, H, W, 3].
      severities: The S severities.
      names: Corruption -> name to show.
    """
    from matplotlib.figure import Figure

    blocks = 1 if len(arrays) < 5 else 2
    lines = math.ceil(len(arrays) / blocks)
    across = _NAME_WIDTH + len(severities) + 0.3
    inches = canvas.WIDTH / max(blocks * across, 8)
    size = (inches * blocks * across, inches * (lines + 0.6))
    with canvas.style():
        figure = Figure(figsize=size)
        axes = figure.add_axes((0, 0, 1, 1))
        for index, (name, images) in enumerate(arrays.items()):
            left = index // lines * across + _NAME_WIDTH
            top = index % lines + 0.5
            text = names.get(name, name)
            axes.text(left - 0.12, top + 0.5, text, ha="right", va="center")
            for column, image in enumerate(images):
                x, y = left + column + _GAP / 2, top + _GAP / 2
                side = 1 - _GAP
                extent = (x, x + side, y + side, y)
                axes.imshow(image, extent=extent, interpolation="nearest")
        for block in range(blocks):
            x = block * across + _NAME_WIDTH - 0.12
            axes.text(x, 0.42, "severity", ha="right", va="bottom")
            for column, severity in enumerate(severities):
                x = block * across + _NAME_WIDTH + column + 0.5
                axes.text(x, 0.42, str(severity), ha="center", va="bottom")
        axes.set(xlim=(0, blocks * across), ylim=(lines + 0.6, 0), aspect="equal")
        axes.axis("off")
    return figure
