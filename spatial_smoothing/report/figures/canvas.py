"""What the figures share: style, panels, legend and the PNG file.

Figures are `matplotlib.figure.Figure` objects without pyplot, so that no window, no
backend and no setting of the caller's is touched. Colours are those of Okabe & Ito,
which colour-blind readers can tell apart; markers differ as well.
"""

import io
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 200
WIDTH = 9.6  # inches, of three panels side by side
LIGHT_BLUE, MID_BLUE, LIGHT_ORANGE = "#B5D6EB", "#4C98C9", "#F0B48C"

BAND = {"alpha": 0.15, "linewidth": 0}
DASHED = {"linestyle": "--", "linewidth": 1.1}
POINT = {"linestyle": "none", "markersize": 7}
OUTLINE = {"markeredgecolor": "white", "markeredgewidth": 0.5}
_NOTE = {
    "xytext": (5, 5),
    "textcoords": "offset points",
    "fontsize": 8,
    "color": "#333333",
}
_NOTE_WIDTH, _NOTE_HEIGHT = 38, 11  # points

_BRIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "os^Dv><p"
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "text.parse_math": False,  # a label may contain a dollar sign
    "text.usetex": False,
    "axes.formatter.useoffset": False,
    "savefig.bbox": None,
    "savefig.transparent": False,
}


def style() -> AbstractContextManager[None]:
    """A context in which figures are made in the style of the report."""
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def looks() -> Iterator[dict[str, Any]]:
    """Colour and marker of one curve after another."""
    pairs = zip(itertools.cycle(_BRIGHT), itertools.cycle(_MARKERS), strict=False)
    return ({"color": colour, "marker": marker} for colour, marker in pairs)


def panels(count: int) -> tuple["Figure", list["Axes"]]:
    """A figure of `count` nearly square panels, at most three side by side."""
    from matplotlib.figure import Figure

    columns = 2 if count == 4 else min(count, 3)
    lines = math.ceil(count / columns)
    # A legend below fewer panels breaks into more lines.
    size = (WIDTH / 3 * max(columns, 1.5), 3.1 * lines + (0.4, 0.8, 1.0)[3 - columns])
    figure = Figure(figsize=size, layout="constrained")
    return figure, [figure.add_subplot(lines, columns, i + 1) for i in range(count)]


def marked(count: int) -> list[int]:
    """Which of the points of a curve have markers: all of a few, fewer to the right."""
    if count <= 12:
        return list(range(count))
    return sorted({round(count ** (step / 11)) - 1 for step in range(12)})


def strip(count: int, *, sharey: bool = False) -> tuple["Figure", list["Axes"]]:
    """A figure of `count` panels in a line; a single one is wider than high."""
    from matplotlib.figure import Figure

    width = WIDTH / 2 if count == 1 else WIDTH
    figure = Figure(figsize=(width, 3.7 if count == 1 else 3.3), layout="constrained")
    panels = figure.subplots(1, count, sharey=sharey, squeeze=False)
    return figure, list(panels[0])


def annotate(axes: "Axes", notes: Mapping[tuple[float, float], str]) -> None:
    """Writes a note at each point, but where it would lie on an earlier one."""
    taken: list[tuple[float, float]] = []
    axes.autoscale_view()
    for point, note in notes.items():
        x, y = axes.transData.transform(point) * 72 / axes.figure.dpi
        if all(abs(x - a) > _NOTE_WIDTH or abs(y - b) > _NOTE_HEIGHT for a, b in taken):
            axes.annotate(note, point, **_NOTE)
            taken.append((x, y))


def panel_legend(figure: "Figure") -> None:
    """One legend for the labelled artists of all panels; none for a single label."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if len(entries) > 1:
        legend(figure, list(entries.values()), list(entries))


def legend(figure: "Figure", handles: Sequence[Any], labels: Sequence[str]) -> None:
    """One legend below all panels, in as many columns as its longest label allows."""
    entry_width = 0.07 * max(map(len, labels)) + 0.6  # inches
    columns = max(1, min(len(labels), int(figure.get_figwidth() / entry_width)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def power_of_ten(value: float, _: int) -> str:
    """How a logarithmic axis writes a tick, without mathematical markup."""
    exponent = str(round(math.log10(value)))
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def png(figure: "Figure") -> bytes:
    """The figure as a PNG file of `DOTS_PER_INCH`."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(
            buffer,
            format="png",
            dpi=DOTS_PER_INCH,
            facecolor="white",
            bbox_inches="tight",  # nothing is cut off, however long a legend
        )
    return buffer.getvalue()
