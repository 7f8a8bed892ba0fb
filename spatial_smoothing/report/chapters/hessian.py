"""The chapter of Hessian spectra: largest eigenvalues, and the density of all."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spatial_smoothing.report.chapters import chapter
from spatial_smoothing.report.chapters.chapter import Chapter
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.pictures import Picture, picture
from spatial_smoothing.report.rows import Row, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEADING = "Hessian spectrum"
_TOP = ("top_mean", "top_median", "top_90")
_DENSITY = ("largest", "smallest", "trace")


def figure(rows: Sequence[Row]) -> "Figure":
    """The largest eigenvalues of mini-batches and, where there is one, the density.

    Args:
      rows: With "arrays": `eigenvalues` f[R, k], `top_points` and `top_density`;
        perhaps `density_points` and `density`.

    Returns:
      A figure with one panel or two.
    """
    whole = any("density" in row["arrays"] for row in rows)
    with canvas.style():
        figure, panels = canvas.strip(2 if whole else 1)
        curves = [(look, row) for look, group in chapter.curves(rows) for row in group]
        for look, row in curves:
            _top(panels[0], look, row)
            if "density" in row["arrays"]:
                values = [row["arrays"][key] for key in ("density_points", "density")]
                panels[1].plot(*values, color=look["color"], label=look["label"])
        panels[0].set(title="Largest eigenvalue of a mini-batch", ylabel="Density")
        panels[0].set_ylim(bottom=0)
        if whole:
            panels[1].set(title="All eigenvalues", yscale="log", ylabel="Density")
            top = max(
                row["arrays"]["density"].max()
                for _, row in curves
                if "density" in row["arrays"]
            )
            panels[1].set_ylim(1e-8 * top, 2 * top)
            panels[1].yaxis.set_major_formatter(canvas.power_of_ten)
        for axes in panels:
            axes.set_xlabel("Eigenvalue")
        canvas.panel_legend(figure)
    return figure


def _top(axes: "Axes", look: dict, row: Row) -> None:
    """A density, and below it the values themselves."""
    arrays, color = row["arrays"], look["color"]
    axes.plot(
        arrays["top_points"], arrays["top_density"], color=color, label=look["label"]
    )
    axes.fill_between(
        arrays["top_points"], arrays["top_density"], color=color, **canvas.BAND
    )
    axes.plot(
        arrays["eigenvalues"].max(1),
        [0.02] * len(arrays["eigenvalues"]),
        "|",
        color=color,
        markersize=8,
        transform=axes.get_xaxis_transform(),
    )


def _pictures(rows: Sequence[Row]) -> dict[str, Picture]:
    rows = [row for row in rows if row.get("arrays")]
    if not rows:
        return {}
    whole = any("density" in row["arrays"] for row in rows)
    values = "; ".join(
        f"{name}: median {text(row, 'top_median')}"
        for name, row in zip(chapter.names(rows), rows, strict=True)
    )
    return {
        "hessian.png": picture(
            figure,
            rows,
            heading=_HEADING,
            alt=f"Densities of Hessian eigenvalues. Largest of a mini-batch, {values}.",
            caption="Eigenvalues of the Hessian of the training objective. "
            + ("Left: d" if whole else "D")
            + "ensity of the largest of each mini-batch; each is a mark at the bottom."
            + (
                " Right: density of all, on a logarithmic scale, by stochastic Lanczos "
                "quadrature, broadened by 1 % of its range."
                if whole
                else ""
            ),
        )
    }


CHAPTER = Chapter(
    headings=(_HEADING,),
    tables=lambda rows: [
        chapter.table(
            rows,
            ("num_batches", *_TOP, "negative", "positive_mean", "products", *_DENSITY),
            each="run",
            heading=_HEADING,
            caption="The largest eigenvalue over mini-batches: mean, median and "
            "quantile. Largest, smallest and trace are of the loss over several "
            "mini-batches, as the random vectors of the density see them.",
        )
    ],
    pictures=_pictures,
    files=("hessian.png",),
    lines=lambda rows: chapter.lines(
        rows, ("label", "num_batches", *_TOP, "largest", "trace")
    ),
)
