"""The chapter of Hessian spectra: largest eigenvalues, and the density of all."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spatial_smoothing.report.chapters import chapter
from spatial_smoothing.report.chapters.chapter import Chapter
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.figures.pictures import Picture, picture
from spatial_smoothing.report.rows import Row, number, shared, text
from spatial_smoothing.report.tables.cells import Table, heading_above, heading_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEADING = "Hessian spectrum"
_ONE_BATCH = "Objective of one mini-batch"
_TOP = ("top_mean", "top_median", "top_90")
_OF_ONE_BATCH = (*_TOP, "negative", "positive_mean", "products")
_OF_SEVERAL = ("largest", "smallest", "trace")


def figure(
    rows: Sequence[Row], *, looks: Looks | None = None, columns: int = 2
) -> "Figure":
    """The largest eigenvalues of mini-batches and, where there is one, the density.

    Args:
      rows: Rows with "arrays": `eigenvalues` f[R, k], `top_points` and `top_density`
        f[p]; perhaps `density_points` and `density` f[q].
      looks: Colours and markers of the models.
      columns: Most panels side by side.

    Returns:
      A figure with one panel or two.
    """
    curves = [
        (look, row)
        for look, group in chapter.curves(rows, looks=looks)
        for row in group
    ]
    whole = [row["arrays"]["density"] for _, row in curves if _has_density(row)]
    with canvas.style():
        figure, panels = canvas.strip(2 if whole else 1, columns=columns)
        for look, row in curves:
            _top(panels[0], look, row)
            if _has_density(row):
                values = [row["arrays"][key] for key in ("density_points", "density")]
                panels[1].plot(*values, color=look["color"], label=look["label"])
        panels[0].set(title=f"Largest. {_ONE_BATCH}", ylabel="Density")
        panels[0].set_ylim(bottom=0)
        if whole:
            top = max(density.max() for density in whole)
            title = f"All. {_several_batches([row for _, row in curves])}"
            panels[1].set(title=title, yscale="log", ylabel="Density")
            panels[1].set_ylim(1e-8 * top, 2 * top)
            panels[1].yaxis.set_major_formatter(canvas.power_of_ten)
        for axes in panels:
            axes.set_xlabel("Eigenvalue")
        canvas.panel_legend(figure)
    return figure


def _has_density(row: Row) -> bool:
    return "density" in row["arrays"]


def _top(axes: "Axes", look: dict, row: Row) -> None:
    """A density, and below it the values themselves."""
    arrays, color = row["arrays"], look["color"]
    axes.plot(
        arrays["top_points"], arrays["top_density"], color=color, label=look["label"]
    )
    axes.fill_between(
        arrays["top_points"], arrays["top_density"], color=color, **canvas.SHADE
    )
    axes.plot(
        arrays["eigenvalues"].max(1),
        [0.02] * len(arrays["eigenvalues"]),
        "|",
        color=color,
        markersize=8,
        transform=axes.get_xaxis_transform(),
    )


def _pictures(rows: Sequence[Row], looks: Looks) -> dict[str, Picture]:
    rows = [row for row in rows if row.get("arrays")]
    if not rows:
        return {}
    values = "; ".join(
        f"{name}: median {text(row, 'top_median')}"
        for name, row in zip(chapter.names(rows), rows, strict=True)
    )
    caption = (
        "Eigenvalues of the Hessian of the training objective. First, the density of "
        "the largest eigenvalue of each mini-batch; each one is a mark at the bottom."
    )
    if any(_has_density(row) for row in rows):
        caption += (
            " Then, the density of all eigenvalues of the objective over several "
            "mini-batches, on a logarithmic scale, by stochastic Lanczos quadrature, "
            "broadened by 1 % of its range."
        )
    return {
        "hessian.png": picture(
            functools.partial(figure, rows, looks=looks),
            heading=_HEADING,
            alt=f"Densities of Hessian eigenvalues. Largest of a mini-batch, {values}.",
            caption=caption,
        )
    }


def _tables(rows: Sequence[Row]) -> list[Table]:
    """A table whose headings name the two objectives that there are eigenvalues of."""
    batch = [key for key in _OF_ONE_BATCH if _has(rows, key)]
    several = [key for key in _OF_SEVERAL if _has(rows, key)]
    keys = [*(["num_batches"] if _has(rows, "num_batches") else []), *batch, *several]
    above = [heading_of(key, rows=2) for key in keys if key == "num_batches"]
    if batch:
        above.append(heading_above(_ONE_BATCH, columns=len(batch)))
    if several:
        above.append(heading_above(_several_batches(rows), columns=len(several)))
    return [
        chapter.table(
            rows,
            keys,
            each="run",
            heading=_HEADING,
            above=above,
            caption="Eigenvalues of two objectives, which do not compare. Of the "
            "objective of one mini-batch: the largest eigenvalue, as mean, median and "
            "quantile over mini-batches. Of the objective over several mini-batches, "
            "which is smoother: the largest and the smallest eigenvalue and the trace, "
            "as the random vectors of the density see them.",
        )
    ]


def _several_batches(rows: Sequence[Row]) -> str:
    """The name of the objective that the density is of."""
    count = shared(rows, "density_batches")
    if not count:
        return "Objective over several mini-batches"
    return f"Objective over {count} mini-batch{'es' if count > 1 else ''}"


def _has(rows: Sequence[Row], key: str) -> bool:
    return any(number(row, key) is not None for row in rows)


def _lines(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The lines in the terminal; below each heading is the objective."""
    count = shared(rows, "density_batches")
    several = f"over {count}" if count else "several"
    found = []
    for line in chapter.lines(
        rows, ("label", "num_batches", *_TOP, "largest", "trace")
    ):
        model, batches, *values = line.items()
        objectives = [*["1 batch"] * len(_TOP), *[several] * 2]
        named = {
            f"{heading}\n{objective}": value
            for (heading, value), objective in zip(values, objectives, strict=True)
        }
        found.append({**dict([model, batches]), **named})
    return found


CHAPTER = Chapter(
    headings=(_HEADING,),
    tables=_tables,
    pictures=_pictures,
    files=("hessian.png",),
    lines=_lines,
)
