"""Figures of robustness to corruptions: rows -> `matplotlib.figure.Figure`."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from spatial_smoothing.report.chapters.robustness import largest, sized
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.axes import heading, scaled, size_curves
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.rows import Row, number, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KEYS = ("nll", "accuracy", "ece")
_NAME_WIDTH, _GAP = 2.7, 0.06  # of the sheet, in images


def severity_figure(
    rows: Sequence[Row], *, looks: Looks | None = None, columns: int = 3
) -> "Figure":
    """NLL, accuracy and ECE by severity: boxes over corruptions, side by side.

    The form is that of Figure 9 of Park & Kim (2022). Boxes are quartiles with the
    median; whiskers end at the last value within 1.5 times their length, and circles
    are values beyond. Without corruption there is one value, a diamond.

    Args:
      rows: Rows with "severity", of which each label's largest number of samples is
        drawn.
      looks: Colours and markers of the models.
      columns: Most panels side by side.

    Returns:
      A figure with a panel for each of the scores that some row has.
    """
    from matplotlib.patches import Patch

    groups = largest(rows)
    looks = looks or Looks(groups)
    keys = severity_scores(rows)
    with canvas.style():
        figure, panels = canvas.strip(len(keys), columns=columns)
        for axes, key in zip(panels, keys, strict=True):
            _boxes(axes, groups, key, looks)
            axes.set_title(heading(key))
        handles, labels = [], []
        for name, group in groups.items():
            colour = looks[name]["color"]
            handles.append(Patch(facecolor=canvas.pale(colour), edgecolor=colour))
            labels.append(sized(name, group))
        canvas.legend(figure, handles, labels)
    return figure


def severity_scores(rows: Sequence[Row]) -> list[str]:
    """Which of NLL, accuracy and ECE some row has."""
    return [key for key in _KEYS if any(number(row, key) is not None for row in rows)]


def _boxes(
    axes: "Axes", groups: Mapping[str, Sequence[Row]], key: str, looks: Looks
) -> None:
    """Draws a score of all models: a box of each model at each severity."""
    severities = sorted({row["severity"] for rows in groups.values() for row in rows})
    width = 0.8 / len(groups)
    for index, (name, rows) in enumerate(groups.items()):
        colour = looks[name]["color"]
        offset = (index - (len(groups) - 1) / 2) * width
        line = {"color": colour, "linewidth": 1}
        for place, severity in enumerate(severities):
            values = [number(row, key) for row in rows if row["severity"] == severity]
            found = [value for value in scaled(key, values) if not math.isnan(value)]
            if severity == 0:
                places = [place + offset] * len(found)
                axes.plot(places, found, "D", color=colour, ms=3.5)
                continue
            axes.boxplot(
                [found],
                positions=[place + offset],
                widths=0.82 * width,
                patch_artist=True,
                manage_ticks=False,
                boxprops={**line, "facecolor": canvas.pale(colour)},
                medianprops={**line, "linewidth": 1.6},
                whiskerprops=line,
                capprops=line,
                flierprops={"markersize": 2.5, "markeredgecolor": colour},
            )
    labels = ["clean" if severity == 0 else str(severity) for severity in severities]
    axes.set_xticks(range(len(severities)), labels)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("Severity")


def means_figure(
    rows: Sequence[Row],
    keys: Sequence[str],
    *,
    looks: Looks | None = None,
    columns: int = 3,
) -> "Figure":
    """Means over corruptions against the number of samples, one curve per label.

    Args:
      rows: Rows with the means, one for each label and size.
      keys: The scores, one for each panel.
      looks: Colours and markers of the models.
      columns: Most panels side by side.

    Returns:
      A figure with one panel for each score.
    """
    groups = series([{**row, "dataset": None, "split": None} for row in rows])
    looks = looks or Looks(groups)
    with canvas.style():
        figure, panels = canvas.strip(len(keys), columns=columns)
        for axes, key in zip(panels, keys, strict=True):
            lines = size_curves(axes, groups, key, looks=looks)
            axes.set_title(heading(key))
        canvas.legend(figure, lines, list(groups))
    return figure


def sheet_figure(
    arrays: Mapping[str, np.ndarray],
    severities: Sequence[int],
    names: Mapping[str, str],
    *,
    columns: int = 2,
) -> "Figure":
    """One image without corruption and under every corruption and severity.

    Args:
      arrays: Corruption -> u8[S, H, W, 3]; "clean" -> u8[1, H, W, 3], if it is known.
      severities: The S severities.
      names: Corruption -> name to show.
      columns: Most blocks of lines side by side.

    Returns:
      A figure with a line for each corruption, in one block of lines or in two.
    """
    clean = list(arrays.get("clean", ()))
    shown = {name: images for name, images in arrays.items() if name != "clean"}
    heads = ["clean"] * len(clean) + [str(severity) for severity in severities]
    blocks = 1 if len(shown) < 5 or columns == 1 else 2
    lines = math.ceil(len(shown) / blocks)
    # Lengths are in images: a line is one high, and a block has room for its names.
    across = _NAME_WIDTH + len(heads) + 0.3
    width = canvas.NARROW if columns == 1 else canvas.WIDTH
    inches = width / max(blocks * across, 8)
    with canvas.style():
        figure = canvas.new_figure((inches * blocks * across, inches * (lines + 0.6)))
        axes = figure.add_axes((0, 0, 1, 1))
        for index, (name, images) in enumerate(shown.items()):
            left = index // lines * across + _NAME_WIDTH
            top = index % lines + 0.5
            text = names.get(name, name)
            axes.text(left - 0.12, top + 0.5, text, ha="right", va="center")
            for column, image in enumerate([*clean, *images]):
                x, y = left + column + _GAP / 2, top + _GAP / 2
                side = 1 - _GAP
                extent = (x, x + side, y + side, y)
                axes.imshow(image, extent=extent, interpolation="nearest")
        for block in range(blocks):
            left = block * across + _NAME_WIDTH
            axes.text(left - 0.12, 0.42, "severity", ha="right", va="bottom")
            for column, words in enumerate(heads):
                axes.text(left + column + 0.5, 0.42, words, ha="center", va="bottom")
        axes.set(xlim=(0, blocks * across), ylim=(lines + 0.6, 0), aspect="equal")
        axes.axis("off")
    return figure
