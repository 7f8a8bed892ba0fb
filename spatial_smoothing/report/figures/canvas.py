"""What the figures share: style, colours, panels, legends and PNG files.

Figures are `matplotlib.figure.Figure` objects without pyplot, so that no window, no
backend and no setting of the caller's is touched. Colours are those of Okabe & Ito,
which colour-blind readers can tell apart; markers differ as well.
"""

import contextlib
import contextvars
import functools
import io
import itertools
import logging
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

_Entry = TypeVar("_Entry")

DOTS_PER_INCH = 200
WIDTH = 9.6  # inches, of three panels side by side
NARROW = 4.2  # inches, of panels that stand below each other, for narrow windows
GREY = "#333333"

DASHED = {"linestyle": "--", "linewidth": 1.1}
OUTLINE = {"markeredgecolor": "white", "markeredgewidth": 0.5}
SHADE = {"alpha": 0.15, "linewidth": 0}

_BRIGHT = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#E69F00", "#56B4E9", "#000000", "#8C564B"),  # the last one is not of theirs
)
NUM_COLOURS = len(_BRIGHT)
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
    "hatch.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "text.parse_math": False,  # a label may contain a dollar sign
    "text.usetex": False,
    "axes.formatter.useoffset": False,
    "pdf.fonttype": 42,  # publishers refuse the default, Type 3
    "savefig.bbox": None,
    "svg.hashsalt": "spatial_smoothing",  # equal figures are equal files
    "savefig.transparent": False,
}


# Width in inches of figures for papers; None for those of the page.
_PAPER_WIDTH: contextvars.ContextVar[float | None] = contextvars.ContextVar(
    "paper_width", default=None
)
# What differs from `_STYLE` where the width is that of a column of text.
_PAPER_STYLE = {
    "font.size": 7,
    "axes.titlesize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.2,
}
FORMATS = ("png", "pdf", "svg")


@contextlib.contextmanager
def paper_width(width: float | None) -> Iterator[None]:
    """A context in which figures are made for papers: of a width, with smaller text.

    Args:
      width: Width in inches, such as 3.25 for a column; None changes nothing.
    """
    token = _PAPER_WIDTH.set(width)
    try:
        yield
    finally:
        _PAPER_WIDTH.reset(token)


def style() -> AbstractContextManager[None]:
    """A context in which figures are made in the style of the report."""
    # Matplotlib tells about its list of fonts when it is imported for the first time.
    # A level that the caller has set stays.
    fonts = logging.getLogger("matplotlib.font_manager")
    if fonts.level == logging.NOTSET:
        fonts.setLevel(logging.ERROR)
    import matplotlib

    paper = _PAPER_STYLE if _PAPER_WIDTH.get() else {}
    return matplotlib.rc_context(_STYLE | paper)


class Looks:
    """The colour and the marker of each model, the same in all figures of a report.

    They follow the model: ensembles that every report may have always look alike, and
    others get what is left in the order of their names, not of the rows. A model that
    is asked for later gets the next look.
    """

    def __init__(self, names: Iterable[str] = ()):
        """Gives models their looks.

        Args:
          names: Names of models, in any order.
        """
        self._numbers: dict[str, int] = {}
        # Known ones first, so that none of the others takes their place.
        for name in sorted(set(names), key=lambda name: (name not in _KNOWN, name)):
            self._number(name)

    def __getitem__(self, name: str) -> dict[str, Any]:
        """Returns {"color": ..., "marker": ...} of a model."""
        number = self._number(name)
        return {
            "color": _BRIGHT[number % NUM_COLOURS],
            # A colour that comes again has another marker.
            "marker": _MARKERS[(number + number // NUM_COLOURS) % len(_MARKERS)],
        }

    def entries(self, lines: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what a legend has of the lines of a figure: text -> line.

        Args:
          lines: Name of each model, or of something else that is drawn -> its line.
        """
        return dict(lines)

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            taken = set(self._numbers.values())
            # Without the data set or workdir in brackets.
            number = _KNOWN.get(name.split(" (")[0])
            if number is None or number in taken:
                number = next(n for n in itertools.count() if n not in taken)
            self._numbers[name] = number
        return self._numbers[name]


# Ensembles whose colour and marker are the same in every report -> their number.
_KNOWN = {
    name: number
    for number, name in enumerate(
        (
            "MC dropout",
            "MC dropout + smoothing",
            "Deterministic",
            "Deterministic + smoothing",
            "Deep ensemble",
            "Deep ensemble + smoothing",
        )
    )
}


def new_figure(size: tuple[float, float], *, layout: str | None = None) -> "Figure":
    """An empty figure, which notebooks show as a picture.

    Args:
      size: Width and height in inches, of which the proportion is kept for papers.
      layout: "constrained", or None for a layout by hand.
    """
    if width := _PAPER_WIDTH.get():
        size = (width, size[1] * width / size[0])
    return _figure_class()(figsize=size, layout=layout)


@functools.cache
def _figure_class() -> type["Figure"]:
    """Returns a `Figure` that shows itself: notebooks know those of pyplot only."""
    from matplotlib.figure import Figure

    class ReportFigure(Figure):
        """A figure that IPython shows inline, whether or not pyplot is imported."""

        def _repr_png_(self) -> bytes:
            return png(self)

    return ReportFigure


def pale(colour: str) -> tuple[float, ...]:
    """A lighter tone of a colour, as red, green and blue in [0, 1]."""
    from matplotlib.colors import to_rgb

    return tuple(1 - 0.35 * (1 - part) for part in to_rgb(colour))


def panels(count: int, *, columns: int = 3) -> tuple["Figure", list["Axes"]]:
    """A figure of nearly square panels.

    Args:
      count: Number of panels.
      columns: Most panels side by side.
    """
    side_by_side = 2 if count == 4 and columns >= 2 else min(count, columns)
    lines = math.ceil(count / side_by_side)
    if columns == 1:
        size = (NARROW, 3.4 * lines + 0.8)
    else:
        # A legend below fewer panels breaks into more lines.
        below = (0.4, 0.8, 1.0)[3 - side_by_side]
        size = (WIDTH / 3 * max(side_by_side, 1.5), 3.1 * lines + below)
    figure = new_figure(size, layout="constrained")
    return figure, [
        figure.add_subplot(lines, side_by_side, index + 1) for index in range(count)
    ]


def strip(
    count: int, *, columns: int = 4, sharey: bool = False
) -> tuple["Figure", list["Axes"]]:
    """A figure of panels in a line; a single one is wider than high.

    Args:
      count: Number of panels.
      columns: 1 for panels below each other, for narrow windows.
      sharey: Whether all panels have one vertical axis.
    """
    if columns == 1:
        shape, size = (count, 1), (NARROW, 2.7 * count + 0.7)
    else:
        shape = (1, count)
        size = (WIDTH / 2, 3.7) if count == 1 else (WIDTH, 3.3)
    figure = new_figure(size, layout="constrained")
    return figure, list(figure.subplots(*shape, sharey=sharey, squeeze=False).flat)


def band(
    axes: "Axes",
    across: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    colour: str,
    is_range: bool,
) -> None:
    """Draws the band of a curve.

    Args:
      axes: The panel.
      across: Places of the points, f[n].
      low: Lower ends, f[n], NaN where there is none.
      high: Upper ends, f[n].
      colour: Colour of the curve.
      is_range: Whether the band is the range over runs, which has a dotted outline, and
        not a bootstrap interval, which has none.
    """
    from matplotlib.colors import to_rgba

    if is_range:
        look = {"edgecolor": to_rgba(colour, 0.8), "linestyle": ":", "linewidth": 0.8}
        axes.fill_between(across, low, high, facecolor=to_rgba(colour, 0.15), **look)
    else:
        axes.fill_between(across, low, high, color=colour, **SHADE)


def point() -> dict[str, Any]:
    """The look of a curve of one point: a marker larger than those of lines."""
    import matplotlib

    return {
        "linestyle": "none",
        "markersize": 1.55 * matplotlib.rcParams["lines.markersize"],
    }


def marked(count: int) -> list[int]:
    """Which points of a curve have markers: all of a few, fewer to the right."""
    if count <= 12:
        return list(range(count))
    return sorted({round(count ** (step / 11)) - 1 for step in range(12)})


# Where a note may stand: offset in points, and how it is aligned there.
_NOTE_PLACES = (
    (6, 5, "left", "bottom"),
    (6, -5, "left", "top"),
    (-6, 5, "right", "bottom"),
    (-6, -5, "right", "top"),
)


def annotate(
    axes: "Axes",
    notes: Mapping[tuple[float, float], str],
    *,
    points: Sequence[tuple[float, float]],
) -> None:
    """Writes a note beside each of some points, where it covers nothing.

    A note that would cover one of the points or another note wherever it stands is left
    out.

    Args:
      axes: The panel, with all of its curves; the figure has its legend.
      notes: Point in the units of the axes -> text.
      points: All points that a note must not cover.
    """
    import matplotlib
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()  # now the panel is where it will be drawn
    markers = [axes.transData.transform(point) for point in points]
    # Notes do not touch the axes, which are on the left and below. The other sides are
    # open.
    (left, bottom), (right, top) = axes.bbox.get_points()
    room = 0.06 * axes.bbox.width
    panel = Bbox([[left + 2, bottom + 2], [right + room, top + room]])
    taken = []
    for point, text in notes.items():
        for x, y, horizontal, vertical in _NOTE_PLACES:
            note = axes.annotate(
                text,
                point,
                xytext=(x, y),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=matplotlib.rcParams["font.size"] - 1,
                color=GREY,
            )
            box = note.get_window_extent()
            covers = [*(box.overlaps(other) for other in taken)]
            covers += [box.padded(3).contains(*marker) for marker in markers]
            if not any(covers) and _is_inside(box, panel):
                taken.append(box)
                break
            note.remove()


def _is_inside(box: "Bbox", other: "Bbox") -> bool:
    """Whether a box is part of another one."""
    return other.contains(box.x0, box.y0) and other.contains(box.x1, box.y1)


def panel_legend(figure: "Figure") -> None:
    """One legend for the labelled artists of all panels; none for a single label."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if len(entries) > 1:
        legend(figure, list(entries.values()), list(entries))


def legend(figure: "Figure", handles: Sequence[Any], labels: Sequence[str]) -> None:
    """One legend below all panels, in as many columns as its labels allow.

    Figures have room for two lines of it. Of each further one they become higher.
    """
    import matplotlib

    em = matplotlib.rcParams["font.size"] / 72  # inches
    width = figure.get_figwidth()
    lines = [textwrap.fill(label, int(width / (0.6 * em))) for label in labels]
    widths = [(0.6 * max(map(len, label.splitlines())) + 4.6) * em for label in lines]
    columns = next(
        count
        for count in range(len(labels), 0, -1)
        if count == 1 or sum(map(max, _split(widths, count))) <= width
    )
    figure.legend(handles, lines, loc="outside lower center", ncols=columns)
    height = max(
        sum(len(label.splitlines()) for label in column)
        for column in _split(lines, columns)
    )
    figure.set_figheight(figure.get_figheight() + 1.65 * em * max(0, height - 2))


def _split(entries: Sequence[_Entry], columns: int) -> list[Sequence[_Entry]]:
    """The entries of each column of a legend: the first columns are the longer ones."""
    length, longer = divmod(len(entries), columns)
    starts = [length * column + min(column, longer) for column in range(columns + 1)]
    return [entries[start:end] for start, end in itertools.pairwise(starts)]


def power_of_ten(value: float, _: int) -> str:
    """How a logarithmic axis writes a tick, without mathematical markup."""
    exponent = str(round(math.log10(value)))
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def png(figure: "Figure") -> bytes:
    """The figure as a PNG file of `DOTS_PER_INCH`."""
    return saved(figure, "png", bbox_inches="tight")  # no legend is cut off


def saved(figure: "Figure", file_format: str, **options: Any) -> bytes:
    """The figure as a file.

    Args:
      figure: The figure.
      file_format: One of `FORMATS`.
      **options: Of `savefig`. Without them the file has the width of the figure.
    """
    buffer = io.BytesIO()
    # The time would make equal figures unequal files.
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with style():
        figure.savefig(
            buffer,
            format=file_format,
            dpi=DOTS_PER_INCH,
            facecolor="white",
            metadata=metadata.get(file_format),
            **options,
        )
    return buffer.getvalue()
