"""The figures of out-of-distribution detection: AUROC against N, ROC and histograms."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spatial_smoothing.report.chapters.ood_rows import (
    DISTANCES,
    Scored,
    confidence,
    scored,
)
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.axes import heading, size_curves
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.rows import Row, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 4  # confidences that are drawn against the number of samples
# Those that are drawn first, by the heading that they have in tables.
_PREFERRED = ("MSP", "Mutual information", "GEN", "Energy")


def sized(found: Sequence[Scored]) -> list[Scored]:
    """The confidences to draw against the number of samples.

    Args:
      found: Confidences of ensembles.

    Returns:
      All that there is of the first few confidences with several numbers of samples.
    """
    sizes: dict[str, set[int]] = {}
    for each in found:
        if any(number(row, "auroc") is not None for row in each.means.values()):
            sizes.setdefault(each.confidence, set()).add(each.num_samples)
    usable = [name for name, numbers in sizes.items() if len(numbers) > 1]
    chosen = [name for name in _PREFERRED if name in usable] or usable[:_MOST]
    return [each for name in chosen for each in found if each.confidence == name]


def size_figure(
    found: Sequence[Scored], *, looks: Looks | None = None, columns: int = _MOST
) -> "Figure":
    """AUROC against the number of samples; a line of panels for near and for far.

    Args:
      found: Confidences of ensembles, of `sized`.
      looks: Colours and markers of the models.
      columns: Most panels side by side.
    """
    looks = looks or Looks(each.label for each in found)
    names = list(dict.fromkeys(each.confidence for each in found))
    distances = [d for d in DISTANCES if any(d in each.means for each in found)]
    with canvas.style():
        count = len(names) * len(distances)
        if columns == 1:
            shape, size = (count, 1), (canvas.NARROW, 2.7 * count + 0.7)
        else:
            shape = (len(distances), len(names))
            size = (canvas.WIDTH, 2.6 * len(distances) + 0.6)
        figure = canvas.new_figure(size, layout="constrained")
        panels = iter(figure.subplots(*shape, squeeze=False).flat)
        for distance in distances:
            for name in names:
                axes = next(panels)
                groups: dict[str, list[Row]] = {}
                for each in found:
                    row = each.means.get(distance)
                    if each.confidence == name and row:
                        groups.setdefault(each.label, []).append(row)
                groups = {
                    label: sorted(group, key=lambda row: row["num_samples"])
                    for label, group in groups.items()
                    if any(number(row, "auroc") is not None for row in group)
                }
                lines = size_curves(axes, groups, "auroc", looks=looks)
                for label, line in zip(groups, lines, strict=True):
                    line.set_label(label)
                axes.set_title(f"{name}, {distance}")
                if axes.get_subplotspec().is_first_col():
                    axes.set_ylabel(heading("auroc"))
        canvas.panel_legend(figure)
    return figure


def drawn(rows: Sequence[Row]) -> list[Scored]:
    """The confidence whose curves are drawn: the first one with arrays.

    Args:
      rows: Rows of the chapter. Of several runs of a model, the first is drawn.

    Returns:
      All that there is of this confidence, at the numbers of samples with arrays.
    """
    with_arrays = [row for row in rows if row.get("ood") and row.get("arrays")]
    if not with_arrays:
        return []
    first = confidence(with_arrays[0])
    kept: dict[tuple, Row] = {}
    for row in with_arrays:
        if confidence(row) == first:
            kept.setdefault((row["label"], row["num_samples"], row["ood"]), row)
    return scored(list(kept.values()))


def roc_figure(
    found: Sequence[Scored],
    *,
    names: Mapping[str, str],
    looks: Looks | None = None,
    columns: int = 3,
) -> "Figure":
    """ROC curves, a panel for each set.

    Args:
      found: One confidence of ensembles, of `drawn`.
      names: Set -> what the figure calls it.
      looks: Colours of the models.
      columns: Most panels side by side.
    """
    looks = looks or Looks(each.label for each in found)
    with canvas.style():
        figure, panels = canvas.panels(len(names), columns=columns)
        for axes, (name, shown) in zip(panels, names.items(), strict=True):
            axes.plot([0, 100], [0, 100], color=canvas.GREY, linestyle=":", linewidth=1)
            for label, group in _by_label(found).items():
                colour = looks[label]["color"]
                most, fewest = group[-1], group[0]
                label = f"{label} (N = {most.num_samples})"
                _roc(axes, most.sets.get(name), color=colour, label=label)
                if fewest.num_samples < most.num_samples:
                    _roc(axes, fewest.sets.get(name), color=colour, **canvas.DASHED)
            axes.set(title=shown, xlim=(0, 100), ylim=(0, 100))
            axes.set_xlabel("Test images taken for OOD (%)")
            axes.set_ylabel("OOD images found (%)")
        canvas.panel_legend(figure)
    return figure


def _roc(axes: "Axes", row: Row | None, **look: Any) -> None:
    """Draws the curve of a row, if it has one."""
    if row and row.get("arrays"):
        found = 100 * np.asarray(row["arrays"]["roc"])
        axes.plot(np.linspace(0, 100, len(found)), found, **look)


def histogram_figure(
    found: Sequence[Scored],
    *,
    names: Mapping[str, str],
    looks: Looks | None = None,
    columns: int = 3,
) -> "Figure":
    """Histograms of a confidence, a panel for each model and set.

    Args:
      found: One confidence of ensembles, of `drawn`.
      names: Set -> what the figure calls it.
      looks: Colours of the models.
      columns: Most panels side by side.
    """
    looks = looks or Looks(each.label for each in found)
    largest = {label: group[-1] for label, group in _by_label(found).items()}
    with canvas.style():
        figure, panels = canvas.panels(len(largest) * len(names), columns=columns)
        pairs = [(label, name) for label in largest for name in names]
        for axes, (label, name) in zip(panels, pairs, strict=True):
            arrays = largest[label].sets.get(name, {}).get("arrays")
            axes.set_title(f"{label}\n{names[name]}")
            axes.set(xlabel=largest[label].confidence, ylabel="Images (%)")
            if not arrays:
                continue
            centres, inside, outside = np.asarray(arrays["histogram"])
            colour = looks[label]["color"]
            width = centres[1] - centres[0]
            axes.bar(centres, 100 * inside, width, color=canvas.pale(colour))
            axes.step(centres, 100 * outside, where="mid", color=colour)
            axes.set_ylim(bottom=0)
    return figure


def _by_label(found: Sequence[Scored]) -> dict[str, list[Scored]]:
    """The confidences of each model, by number of samples."""
    groups: dict[str, list[Scored]] = {}
    for each in sorted(found, key=lambda each: each.num_samples):
        groups.setdefault(each.label, []).append(each)
    return groups
