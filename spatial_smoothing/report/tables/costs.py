"""The table of what predictions cost, and of who is on the Pareto front."""

from collections.abc import Sequence

from spatial_smoothing.report import costs
from spatial_smoothing.report.columns import column
from spatial_smoothing.report.rows import UNDEFINED, Row, listed, number, series
from spatial_smoothing.report.tables.cells import (
    Cell,
    Heading,
    SeriesHead,
    Table,
    heading_of,
    score_cell,
    series_table,
)


def cost_table(rows: Sequence[Row]) -> Table | None:
    """Cost and scores of every row, and in which scores it is on the Pareto front.

    Args:
      rows: Report rows, averaged over runs.

    Returns:
      The table, None where there are no two series whose costs compare.
    """
    rows = costs.compared(rows, "gflops")
    if not rows:
        return None
    times = costs.compared(rows, "milliseconds")
    keys = ["gflops", *(["milliseconds"] if times else [])]
    keys += [k for k in costs.SCORES if any(number(row, k) is not None for row in rows)]
    fronts = costs.fronts(rows, "gflops")
    headings = [heading_of(key) for key in keys]
    if fronts:
        headings.append(Heading("On the front of", is_name=True))

    def cells(row: Row) -> list[Cell]:
        names = [
            column(key).heading
            for key, front in fronts.items()
            if any(row is one for one in front)
        ]
        found = [score_cell({**row, "spread": {}, "intervals": {}}, k) for k in keys]
        on_front = Cell(", ".join(names) or UNDEFINED, is_name=True)
        return [*found, *([on_front] if fronts else [])]

    return series_table(
        series(rows),
        cells,
        SeriesHead(headings),
        section="Cost",
        caption="What a prediction costs and is worth. " + _meaning(rows, fronts),
        notes=[f"{column('gflops').heading}: {column('gflops').note}."],
    )


def _meaning(rows: Sequence[Row], fronts: dict[str, list[Row]]) -> str:
    """What the caption says of the Pareto front."""
    if not fronts:
        return (
            "No Pareto front is given, because the rows are of different numbers of "
            "runs or images, and do not compare."
        )
    sentences = [
        "A row is on the Pareto front of a score if no other one is as cheap in GFLOPs "
        "and as good, and cheaper or better" + _of_means(rows)
    ]
    for key, front in fronts.items():
        labels = list(dict.fromkeys(row["label"] for row in front))
        sentences.append(f"Front of {column(key).heading}: {listed(labels)}.")
    return " ".join(sentences)


def _of_means(rows: Sequence[Row]) -> str:
    """The end of a sentence that says of which values the front is."""
    return ", by means over runs." if any("num_runs" in row for row in rows) else "."
