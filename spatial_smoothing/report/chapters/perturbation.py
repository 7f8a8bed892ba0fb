"""The chapter of robustness to perturbations.

A row is a label's steadiness on the sequences of one `perturbation`, or the mean over
perturbations, which names none.
"""

import functools
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
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.figures.pictures import Picture, picture
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
    names: dict[str, set[str]] = {}
    for row in single:
        names.setdefault(row["label"], set()).add(row["perturbation"])
    of_each = {frozenset(found) for found in names.values()}
    if len(of_each) == 1:
        count = len(of_each.pop())
        over = f"{count} perturbation{'s' * (count > 1)}"
    else:
        over = "the perturbations that were evaluated, which differ between models"
    return [
        table(
            means,
            _KEYS,
            each="num_samples",
            heading=_HEADING,
            caption=f"Means over the sequences of {over}. Measured on {images(rows)} "
            "of each.",
        ),
        *([_by_perturbation(single)] if single else []),
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


def _pictures(rows: Sequence[Row], looks: Looks) -> Mapping[str, Picture]:
    _, single = _split(rows)
    if not single:
        return {}
    return {
        "perturbation.png": picture(
            functools.partial(perturbation_figure, single, looks=looks),
            heading=_HEADING,
            alt="Flip rate, consistency and CEC of every perturbation, a point for "
            "each model.",
            caption="Flip rate, consistency and CEC on the sequences of every "
            "perturbation, at the largest number of samples N. Measured on "
            f"{images(rows)} of each.",
        )
    }


def perturbation_figure(
    rows: Sequence[Row], *, looks: Looks | None = None, columns: int = 3
) -> "Figure":
    """Steadiness on each perturbation, a point for each label.

    Args:
      rows: Rows with "perturbation", of which each label's largest size is drawn.
      looks: Colours and markers of the models.
      columns: Most panels side by side.
    """
    groups, names = largest(rows), shown(rows, "perturbation")
    looks = looks or Looks(groups)
    with canvas.style():
        height = 0.24 * len(names)
        if columns == 1:
            shape, size = (3, 1), (canvas.NARROW, 3 * (0.9 + height) + 0.6)
        else:
            shape, size = (1, 3), (canvas.WIDTH, 1.4 + height)
        figure = canvas.new_figure(size, layout="constrained")
        # The last label of a panel and the first one of the next stay apart.
        figure.get_layout_engine().set(w_pad=0.15)
        panels = figure.subplots(*shape, sharey=True, squeeze=False).flat
        for axes, key in zip(panels, _DRAWN, strict=True):
            lines = []
            for label, group in groups.items():
                found = {row["perturbation"]: number(row, key) for row in group}
                values = scaled(key, [found.get(name) for name in names])
                look = looks[label] | canvas.point() | canvas.OUTLINE
                lines += axes.plot(values, range(len(names)), **look)
            axes.set_title(heading(key))
            axes.set_yticks(range(len(names)), list(names.values()))
            axes.margins(x=0.08)
            axes.locator_params(axis="x", nbins=4)  # labels of CEC are long
        panels[0].set_ylim(len(names) - 0.5, -0.5)  # the first one stands at the top
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
    required=("num_samples",),
)
