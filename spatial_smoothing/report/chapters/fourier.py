"""The chapter of the frequencies of feature maps."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spatial_smoothing.report.chapters import chapter
from spatial_smoothing.report.chapters.chapter import Chapter
from spatial_smoothing.report.chapters.variance import depth_curves
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.pictures import Picture, picture
from spatial_smoothing.report.rows import Row, text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADING = "Frequencies of feature maps"
_KEYS = ("low", "high", "high_delta")


def stages_figure(rows: Sequence[Row], *, spectrum: str = "delta") -> "Figure":
    """Log amplitudes against frequency at the end of each stage, a panel for each.

    Solid: with smoothing, if there is any; dotted: the same before smoothing. Dashed:
    the mean network, where there are dropout samples too.

    Args:
      rows: With `tap`, `network`, and "arrays": `diagonal` and `radial` f[2, k].
      spectrum: "delta", along the diagonal relative to frequency zero, or "radial".

    Returns:
      A figure.
    """
    stages = sorted({stage for row in rows if (stage := _stage(row)) is not None})
    with canvas.style():
        figure, panels = canvas.panels(len(stages))
        for axes, stage in zip(panels, stages, strict=True):
            for look, group in chapter.curves(rows):
                for row, style in _lines(group, stage):
                    key = "radial" if spectrum == "radial" else "diagonal"
                    frequency, values = row["arrays"][key]
                    if spectrum == "delta":
                        values = values - values[0]
                    label = look["label"] + style.pop("says", "")
                    color = look["color"]
                    axes.plot(frequency, values, color=color, label=label, **style)
            axes.set(title=f"End of stage {stage}", xlabel="Frequency (π)")
            axes.set_xlim(0, 1)
        word = "Δ log amplitude" if spectrum == "delta" else "Log amplitude"
        for axes in panels:
            if axes.get_subplotspec().is_first_col():
                axes.set_ylabel(word)
        canvas.panel_legend(figure)
    return figure


def _stage(row: Row) -> int | None:
    """The number of the stage that a tap belongs to."""
    found = re.match(r"(?:stage|smooth)(\d+)", row["tap"])
    return int(found[1]) if found else None


def _lines(rows: Sequence[Row], stage: int) -> list[tuple[Row, dict]]:
    """The rows to draw for a stage of one run, with the style of their lines."""
    found = []
    both = len({row["network"] for row in rows}) > 1
    for network in ("sample", "mean"):
        own = [r for r in rows if r["network"] == network and _stage(r) == stage]
        if not own:
            continue
        aside = network == "mean" and both
        style = {"says": ", mean network", **canvas.DASHED} if aside else {}
        found.append((own[-1], style))
        before = [row for row in own if not row["tap"].startswith("smooth")]
        if before[-1:] != own[-1:] and not aside:
            style = {"says": ", before smoothing", "linestyle": ":", "linewidth": 1.4}
            found.append((before[-1], style))
    return found


def depth_figure(rows: Sequence[Row]) -> "Figure":
    """The amplitude of the highest frequency, relative to zero, against depth.

    Args:
      rows: With `tap` and `high_delta`; dropout samples where there are any.

    Returns:
      A figure with one panel.
    """
    with canvas.style():
        figure, (axes,) = canvas.strip(1)
        depth_curves(axes, _shown(rows), "high_delta")
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


def _pictures(rows: Sequence[Row]) -> dict[str, Picture]:
    found = {}
    last = [group[-1] for _, group in chapter.curves(_shown(rows))]
    values = "; ".join(
        f"{name}: {text(row, 'high_delta')}"
        for name, row in zip(chapter.names(last), last, strict=True)
    )
    found["fourier_depth.png"] = picture(
        depth_figure,
        rows,
        heading=_HEADING,
        alt=f"Relative log amplitude of the highest frequency, at the end {values}.",
        caption="Log amplitude of the highest frequency relative to that of frequency "
        "zero, after each part of the network. Shaded: after smoothing.",
    )
    drawn = [row for row in rows if row.get("arrays")]
    if any(_stage(row) is not None for row in drawn):
        found["fourier.png"] = picture(
            stages_figure,
            drawn,
            heading=_HEADING,
            alt="Relative log amplitude against frequency at the end of each stage.",
            caption="Log amplitude along the diagonal relative to that of frequency "
            "zero, averaged over images and channels, of one dropout sample where "
            "there is dropout.",
        )
        found["fourier_radial.png"] = picture(
            lambda rows: stages_figure(rows, spectrum="radial"),
            drawn,
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
)
