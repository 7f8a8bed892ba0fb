"""The chapter of the variance of feature maps: over samples, frames and space."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spatial_smoothing.report.chapters import chapter
from spatial_smoothing.report.chapters.chapter import Chapter
from spatial_smoothing.report.columns import column
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.axes import scaled
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.figures.pictures import Picture, picture
from spatial_smoothing.report.rows import Row, number, text
from spatial_smoothing.report.tables.cells import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEADING = "Variance of feature maps"
_SHADE = "#DDE5EE"
_TITLES = {
    "sample_variance": "Over dropout samples",
    "relative_variance": "Over samples, relative to over space",
    "space_variance": "Over space",
    "frame_variance": "Over frames",
}


def depth_figure(
    rows: Sequence[Row], *, looks: Looks | None = None, columns: int = 3
) -> "Figure":
    """Variances against depth, a panel for each kind; smoothing is shaded.

    Args:
      rows: Rows with `tap` and some of `_TITLES`.
      looks: Colours and markers of the models.
      columns: Most panels side by side.

    Returns:
      A figure of at most four panels.
    """
    keys = _kinds(rows)
    with canvas.style():
        figure, panels = canvas.panels(len(keys), columns=columns)
        for axes, key in zip(panels, keys, strict=True):
            depth_curves(axes, rows, key, looks=looks)
            unit = column(key).unit
            axes.set_title(f"{_TITLES[key]} ({unit})" if unit else _TITLES[key])
            axes.set_ylim(bottom=0)
        canvas.panel_legend(figure)
    return figure


def _kinds(rows: Sequence[Row]) -> list[str]:
    """The kinds of variance that some row has."""
    return [key for key in _TITLES if any(number(row, key) is not None for row in rows)]


def depth_curves(
    axes: "Axes", rows: Sequence[Row], key: str, *, looks: Looks | None = None
) -> None:
    """Draws a score of rows against their taps, in the order of the network.

    Args:
      axes: The panel.
      rows: Rows with `tap`.
      key: The score.
      looks: Colours and markers of the models.
    """
    groups = chapter.curves(rows, looks=looks)
    # The network with the most taps has those of the others in between its own.
    longest = max((group for _, group in groups), key=len)
    taps = list(dict.fromkeys(row["tap"] for row in (*longest, *rows)))
    for look, group in groups:
        known = [row for row in group if number(row, key) is not None]
        places = [taps.index(row["tap"]) for row in known]
        values = scaled(key, [number(row, key) for row in known])
        axes.plot(places, values, **look, **canvas.OUTLINE)
    shaded = [index for index, tap in enumerate(taps) if _is_smoothed(tap)]
    for index in shaded:
        label = "After smoothing" if index == shaded[0] else None
        place = (index - 0.4, index + 0.4)
        axes.axvspan(*place, color=_SHADE, linewidth=0, zorder=0, label=label)
    axes.set_xticks(range(len(taps)), taps, rotation=45, ha="right", fontsize=8)


def shading(rows: Sequence[Row]) -> str:
    """What a caption says of the shaded taps, "" where no network smooths."""
    smooths = any(_is_smoothed(row["tap"]) for row in rows)
    return " Shaded: after smoothing." if smooths else ""


def _is_smoothed(tap: str) -> bool:
    return tap.startswith("smooth")


def maps_figure(rows: Sequence[Row]) -> "Figure":
    """Maps of two dropout samples and their variance, a column for each tap.

    Args:
      rows: Rows with "arrays": `maps` f[2, H, W] and `map_variance` f[H, W]; the first
        of each run perhaps with `image`, u8[H, W, 3].

    Returns:
      A figure with three lines for each run.
    """
    groups = [group for _, group in chapter.curves(rows)]
    names = chapter.names([group[0] for group in groups])
    taps = list(dict.fromkeys(row["tap"] for row in (*max(groups, key=len), *rows)))
    with canvas.style():
        size = (1 + 1.0 * (len(taps) + 1), 3.25 * len(groups) + 0.1)
        figure = canvas.new_figure(size, layout="constrained")
        parts = figure.subfigures(len(groups), 1, squeeze=False)[:, 0]
        for part, group, name in zip(parts, groups, names, strict=True):
            part.suptitle(name, x=0.01, ha="left", fontsize=9)
            _maps(part.subplots(3, len(taps) + 1), group, taps)
    return figure


def _maps(panels, rows: Sequence[Row], taps: Sequence[str]) -> None:
    """Two samples on one grey scale for each tap, and their variance on another."""
    for axes in panels.flat:
        axes.set_axis_off()
    image = rows[0]["arrays"].get("image")
    if image is not None:
        panels[0, 0].imshow(image)
        panels[0, 0].set_title("image", loc="center", fontsize=8)
    for row in rows:
        column = panels[:, 1 + taps.index(row["tap"])]
        maps, variance = (row["arrays"][key] for key in ("maps", "map_variance"))
        column[0].set_title(row["tap"], loc="center", fontsize=8)
        for axes, one in zip(column, maps, strict=False):
            axes.imshow(one, cmap="gray", vmin=maps.min(), vmax=maps.max())
        column[2].imshow(variance, cmap="magma", vmin=0)
    for axes, words in zip(
        panels[:, 1], ("sample 1", "sample 2", "variance"), strict=True
    ):
        place = {"rotation": 90, "ha": "right", "va": "center", "fontsize": 8}
        axes.text(-0.06, 0.5, words, transform=axes.transAxes, **place)


def _pictures(rows: Sequence[Row], looks: Looks) -> dict[str, Picture]:
    found = {}
    if _kinds(rows):
        last = [group[-1] for _, group in chapter.curves(rows)]
        key = "sample_variance"
        values = "; ".join(
            f"{name}: {text(row, key)}"
            for name, row in zip(chapter.names(last), last, strict=True)
        )
        found["variance.png"] = picture(
            functools.partial(depth_figure, rows, looks=looks),
            heading=_HEADING,
            alt=f"Variance against depth. Over samples after the last stage, {values}.",
            caption="Variance of feature maps after each part of the network, averaged "
            f"over images, positions and channels.{shading(rows)}",
        )
    drawn = [row for row in rows if row.get("arrays")]
    if drawn:
        found["feature_maps.png"] = picture(
            functools.partial(maps_figure, drawn),
            heading=_HEADING,
            alt="Feature maps of two dropout samples, and their variance.",
            caption="Feature maps of two dropout samples of one image and the variance "
            "over all samples: the channel that varies most after each part. Each map "
            "has a scale of its own, which its two samples share.",
            stacks=False,
        )
    return found


def _tables(rows: Sequence[Row]) -> list[Table]:
    return [
        chapter.table(
            rows,
            _kinds(rows),
            each="tap",
            heading=_HEADING,
            caption="Variance of feature maps, averaged over images, positions and "
            "channels.",
        )
    ]


CHAPTER = Chapter(
    headings=(_HEADING,),
    tables=_tables,
    pictures=_pictures,
    files=("variance.png", "feature_maps.png"),
    lines=lambda rows: chapter.lines(rows, ("label", "tap", *_TITLES)),
    required=("tap",),
)
