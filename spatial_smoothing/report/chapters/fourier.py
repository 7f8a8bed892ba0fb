"""The chapter of the frequencies of feature maps."""

import functools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from spatial_smoothing.report.chapters import chapter
from spatial_smoothing.report.chapters.chapter import Chapter
from spatial_smoothing.report.chapters.variance import depth_curves, shading
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.figures.pictures import Picture, picture
from spatial_smoothing.report.rows import Row, text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADING = "Frequencies of feature maps"
# What a line shows -> how it is drawn. "" is the end of a stage, after smoothing and of
# a dropout sample, where the network has them.
_STYLES = {
    "": {},
    "Before smoothing": {"linestyle": ":", "linewidth": 1.4},
    "Mean network": canvas.DASHED,
}
_KEYS = ("low", "high", "high_delta")


def stages_figure(
    rows: Sequence[Row],
    *,
    spectrum: str = "delta",
    looks: Looks | None = None,
    columns: int = 3,
) -> "Figure":
    """Log amplitudes against frequency at the end of each stage, a panel for each.

    Solid: with smoothing, if there is any; dotted: the same before smoothing. Dashed:
    the mean network, where there are dropout samples too.

    Args:
      rows: Rows with `tap`, `network`, and "arrays": `diagonal` and `radial` f[2, k],
        which are frequencies and log amplitudes.
      spectrum: "delta", along the diagonal relative to frequency zero, or "radial".
      looks: Colours and markers of the models.
      columns: Most panels side by side.

    Returns:
      A figure.
    """
    stages = sorted({stage for row in rows if (stage := _stage(row)) is not None})
    colours: dict[str, str] = {}
    styles: set[str] = set()
    with canvas.style():
        figure, panels = canvas.panels(len(stages), columns=columns)
        for axes, stage in zip(panels, stages, strict=True):
            for look, group in chapter.curves(rows, looks=looks):
                colours[look["label"]] = look["color"]
                for row, style in _lines(group, stage):
                    key = "radial" if spectrum == "radial" else "diagonal"
                    frequency, values = row["arrays"][key]
                    if spectrum == "delta":
                        values = values - values[0]
                    styles.add(style)
                    color = look["color"]
                    axes.plot(frequency, values, color=color, **_STYLES[style])
            axes.set(title=f"End of stage {stage}", xlabel="Frequency (π)")
            axes.set_xlim(0, 1)
        word = "Δ log amplitude" if spectrum == "delta" else "Log amplitude"
        for axes in panels:
            if axes.get_subplotspec().is_first_col():
                axes.set_ylabel(word)
        _legend(figure, colours, styles)
    return figure


def _legend(
    figure: "Figure", colours: Mapping[str, str], styles: Collection[str]
) -> None:
    """An entry for each model, and one for each style of line, but not for all pairs.

    Args:
      figure: The figure.
      colours: Model -> colour.
      styles: The styles that occur.
    """
    from matplotlib.lines import Line2D

    entries = {name: Line2D([], [], color=colour) for name, colour in colours.items()}
    for style, look in _STYLES.items():
        if style in styles and style != "":
            entries[style] = Line2D([], [], color=canvas.GREY, **look)
    if len(entries) > 1:
        canvas.legend(figure, list(entries.values()), list(entries))


def _stage(row: Row) -> int | None:
    """The number of the stage that a tap belongs to."""
    found = re.match(r"(?:stage|smooth)(\d+)", row["tap"])
    return int(found[1]) if found else None


def _lines(rows: Sequence[Row], stage: int) -> list[tuple[Row, str]]:
    """The rows to draw for a stage of one run, each with a style of `_STYLES`."""
    found = []
    both = len({row["network"] for row in rows}) > 1
    for network in ("sample", "mean"):
        own = [r for r in rows if r["network"] == network and _stage(r) == stage]
        if not own:
            continue
        if network == "mean" and both:
            found.append((own[-1], "Mean network"))
            continue
        found.append((own[-1], ""))
        before = [row for row in own if not row["tap"].startswith("smooth")]
        if before and before[-1] is not own[-1]:
            found.append((before[-1], "Before smoothing"))
    return found


def depth_figure(rows: Sequence[Row], *, looks: Looks | None = None) -> "Figure":
    """The amplitude of the highest frequency, relative to zero, against depth.

    Args:
      rows: Rows with `tap` and `high_delta`; of dropout samples where there are any.
      looks: Colours and markers of the models.

    Returns:
      A figure with one panel.
    """
    with canvas.style():
        figure, (axes,) = canvas.strip(1)
        depth_curves(axes, _shown(rows), "high_delta", looks=looks)
        axes.set_ylabel("Δ log amplitude at the highest frequency")
        canvas.panel_legend(figure)
    return figure


def _shown(rows: Sequence[Row]) -> list[Row]:
    """The samples of runs that have any, else the mean network."""
    return [
        row
        for _, group in chapter.curves(rows)
        for row in group
        if row["network"] == group[0]["network"]
    ]


def _pictures(rows: Sequence[Row], looks: Looks) -> dict[str, Picture]:
    last = [group[-1] for _, group in chapter.curves(_shown(rows))]
    values = "; ".join(
        f"{name}: {text(row, 'high_delta')}"
        for name, row in zip(chapter.names(last), last, strict=True)
    )
    found = {
        "fourier_depth.png": picture(
            functools.partial(depth_figure, rows, looks=looks),
            heading=_HEADING,
            alt="Relative log amplitude of the highest frequency, at the end "
            f"{values}.",
            caption="Log amplitude of the highest frequency relative to that of "
            "frequency zero, after each part of the network."
            f"{shading(_shown(rows))}",
            stacks=False,
        )
    }
    drawn = [row for row in rows if row.get("arrays")]
    if any(_stage(row) is not None for row in drawn):
        draw = functools.partial(stages_figure, drawn, looks=looks)
        found["fourier.png"] = picture(
            draw,
            heading=_HEADING,
            alt="Relative log amplitude against frequency at the end of each stage.",
            caption="Log amplitude along the diagonal relative to that of frequency "
            "zero, averaged over images and channels, of one dropout sample where "
            "there is dropout.",
        )
        found["fourier_radial.png"] = picture(
            functools.partial(draw, spectrum="radial"),
            heading=_HEADING,
            alt="Log amplitude against radial frequency at the end of each stage.",
            caption="Log amplitude itself, averaged over rings of equal frequency.",
        )
    return found


CHAPTER = Chapter(
    headings=(_HEADING,),
    tables=lambda rows: [
        chapter.table(
            _shown(rows),
            _KEYS,
            each="tap",
            heading=_HEADING,
            caption="Log amplitudes along the diagonal, averaged over images and "
            "channels, of one dropout sample where there is dropout.",
        )
    ],
    pictures=_pictures,
    files=("fourier_depth.png", "fourier.png", "fourier_radial.png"),
    lines=lambda rows: chapter.lines(_shown(rows), ("label", "tap", *_KEYS)),
    required=("tap", "network"),
)
