"""The chapter of robustness to perturbations.

A row is a label's steadiness on the sequences of one `perturbation`, or the mean over
perturbations, which names none.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spatial_smoothing.report.chapters.chapter import Chapter, table
from spatial_smoothing.report.chapters.chapter import lines as terminal_lines
from spatial_smoothing.report.chapters.robustness import (
    images,
    largest,
    prepared,
    shown,
    side_by_side,
    sized,
)
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.axes import heading, scaled
from spatial_smoothing.report.figures.pictures import Picture
from spatial_smoothing.report.rows import Row, number
from spatial_smoothing.report.tables.cells import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADING = "Robustness to perturbations"
_KEYS = ("flip_rate", "consistency", "cec", "cec_sum")
_DRAWN = ("flip_rate", "consistency", "cec")


def _split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The means, and the rows of single perturbations."""
    rows = prepared(rows, ["perturbation", "deviation"])
    single = [row for row in rows if row.get("perturbation")]
    return [row for row in rows if not row.get("perturbation")], single


def _tables(rows: Sequence[Row]) -> list[Table]:
    means, single = _split(rows)
    names = len({row["perturbation"] for row in single})
    return [
        table(
            means,
            _KEYS,
            each="num_samples",
            heading=_HEADING,
            caption=f"Means over the sequences of {names} perturbations. Measured on "
            f"{images(rows)} of each.",
        ),
        _by_perturbation(single),
    ]


def _by_perturbation(rows: Sequence[Row]) -> Table:
    """A line for each perturbation, the scores of each label side by side."""
    found = {
        sized(label, group): {row["perturbation"]: row for row in group}
        for label, group in largest(rows).items()
    }
    return side_by_side(
        found,
        shown(rows, "perturbation"),
        _DRAWN,
        section=_HEADING,
        caption="Each perturbation, at the largest number of samples N; the best of a "
        "line is bold.",
        first="Perturbation",
    )


def _pictures(rows: Sequence[Row]) -> Mapping[str, Picture]:
    _, single = _split(rows)
    figure = perturbation_figure(single)
    return {
        "perturbation.png": Picture(
            canvas.png(figure),
            figure.get_figwidth(),
            _HEADING,
            "Flip rate, consistency and CEC of every perturbation, a point for each "
            "model.",
            "Flip rate, consistency and CEC on the sequences of every perturbation, at "
            f"the largest number of samples N. Measured on {images(rows)} of each.",
        )
    }


def perturbation_figure(rows: Sequence[Row]) -> "Figure":
    """Steadiness on each perturbation, a point for each label.

    Args:
      rows: With "perturbation", of which each label's largest size is drawn.
    """
    from matplotlib.figure import Figure

    groups, names = largest(rows), shown(rows, "perturbation")
    with canvas.style():
        figure = Figure(
            figsize=(canvas.WIDTH, 1.4 + 0.24 * len(names)), layout="constrained"
        )
        panels = figure.subplots(1, len(_DRAWN), sharey=True)
        for axes, key in zip(panels, _DRAWN, strict=True):
            lines = []
            for group, look in zip(groups.values(), canvas.looks(), strict=False):
                found = {row["perturbation"]: number(row, key) for row in group}
                values = scaled(key, [found.get(name) for name in names])
                look |= canvas.POINT | canvas.OUTLINE
                lines += axes.plot(values, range(len(names)), **look)
            axes.set_title(heading(key))
            axes.set_yticks(range(len(names)), list(names.values()))
        panels[0].invert_yaxis()
        labels = [sized(name, group) for name, group in groups.items()]
        canvas.legend(figure, lines, labels)
    return figure


def _lines(rows: Sequence[Row]) -> list[dict[str, str]]:
    means, _ = _split(rows)
    return terminal_lines(means, ("label", "num_samples", *_KEYS))


CHAPTER = Chapter(
    headings=(_HEADING,),
    tables=_tables,
    pictures=_pictures,
    files=("perturbation.png",),
    lines=_lines,
)
