"""The chapter of the variance of feature maps: over samples, frames and space."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spatial_smoothing.report.chapters import chapter
from spatial_smoothing.report.chapters.chapter import Chapter
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.pictures import Picture, picture
from spatial_smoothing.report.rows import Row, number, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEADING = "Variance of feature maps"
_TITLES = {
    "sample_variance": "Over dropout samples",
    "relative_variance": "Over samples, relative to over space",
    "space_variance": "Over space",
    "frame_variance": "Over frames",
}


def depth_figure(rows: Sequence[Row]) -> "Figure":
    """Variances against depth, a panel for each kind; smoothing is shaded.

    Args:
      rows: With `tap` and some of `_TITLES`.

    Returns:
      A figure of at most four panels.
    """
    keys = [key for key in _TITLES if any(number(row, key) is not None for row in rows)]
    with canvas.style():
        figure, panels = canvas.panels(len(keys))
        for axes, key in zip(panels, keys, strict=True):
            depth_curves(axes, rows, key)
            axes.set(title=_TITLES[key])
            axes.set_ylim(bottom=0)
        canvas.panel_legend(figure)
    return figure


def depth_curves(axes: "Axes", rows: Sequence[Row], key: str) -> None:
    """Draws a score of rows against their taps, in the order of the network."""
    groups = chapter.curves(rows)
    longest = max((group for _, group in groups), key=len)
    taps = list(dict.fromkeys(row["tap"] for row in (*longest, *rows)))
    for look, group in groups:
        points = [
            (taps.index(row["tap"]), number(row, key))
            for row in group
            if number(row, key) is not None
        ]
        axes.plot(*zip(*points, strict=True), **look, **canvas.OUTLINE)
    for index, tap in enumerate(taps):
        if tap.startswith("smooth"):
            axes.axvspan(index - 0.4, index + 0.4, color="#F3F3F3", zorder=0)
    axes.set_xticks(range(len(taps)), taps, rotation=45, ha="right", fontsize=8)


def maps_figure(rows: Sequence[Row]) -> "Figure":
    """Maps of two dropout samples and their variance, a column for each tap.

    Args:
      rows: With "arrays": `maps` f[2, H, W] and `map_variance` f[H, W]; the first of
        each run perhaps with `image`, u8[H, W, 3].

    Returns:
      A figure with three lines for each run.
    """
    from matplotlib.figure import Figure

    groups = [group for _, group in chapter.curves(rows)]
    names = chapter.names([group[0] for group in groups])
    taps = list(dict.fromkeys(row["tap"] for row in (*max(groups, key=len), *rows)))
    with canvas.style():
        size = (1 + 1.0 * (len(taps) + 1), 3.25 * len(groups) + 0.1)
        figure = Figure(figsize=size, layout="constrained")
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


def _pictures(rows: Sequence[Row]) -> dict[str, Picture]:
    last = [group[-1] for _, group in chapter.curves(rows)]
    key = "sample_variance"
    values = "; ".join(
        f"{name}: {text(row, key)}"
        for name, row in zip(chapter.names(last), last, strict=True)
    )
    found = {
        "variance.png": picture(
            depth_figure,
            rows,
            heading=_HEADING,
            alt=f"Variance against depth. Over samples after the last stage, {values}.",
            caption="Variance of feature maps after each part of the network, averaged "
            "over images, positions and channels. Shaded: after smoothing.",
        )
    }
    drawn = [row for row in rows if row.get("arrays")]
    if drawn:
        found["feature_maps.png"] = picture(
            maps_figure,
            drawn,
            heading=_HEADING,
            alt="Feature maps of two dropout samples, and their variance.",
            caption="Feature maps of two dropout samples of one image and the variance "
            "over all samples: the channel that varies most after each part. Each map "
            "has a scale of its own, which its two samples share.",
        )
    return found


CHAPTER = Chapter(
    headings=(_HEADING,),
    tables=lambda rows: [
        chapter.table(
            rows,
            [
                key
                for key in _TITLES
                if any(number(row, key) is not None for row in rows)
            ],
            each="tap",
            heading=_HEADING,
            caption="Variance of feature maps, averaged over images, positions and "
            "channels.",
        )
    ],
    pictures=_pictures,
    files=("variance.png", "feature_maps.png"),
    lines=lambda rows: chapter.lines(rows, ("label", "tap", *_TITLES)),
)
