"""What a prediction costs, and which ensembles no other one beats at their cost."""

from collections.abc import Sequence

from spatial_smoothing.report.rows import Row, are_rankable, number, series, shared

COSTS = ("gflops", "milliseconds")
SCORES = ("nll", "accuracy", "ece")


def pareto_front(
    costs: Sequence[float], values: Sequence[float], *, better: str
) -> list[bool]:
    """Tells which points are on the Pareto front of cost and score.

    A point is on it unless another one is as cheap and as good, and cheaper or better.
    Points that are equal in both are on it together.

    Args:
      costs: Cost of each point, f[n]; lower is better.
      values: Score of each point, f[n].
      better: "lower" or "higher", the better side of the score.

    Returns:
      bool[n].
    """
    sign = -1 if better == "higher" else 1
    points = [(cost, sign * value) for cost, value in zip(costs, values, strict=True)]

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return one != other and one[0] <= other[0] and one[1] <= other[1]

    return [not any(beats(one, point) for one in points) for point in points]


def compared(rows: Sequence[Row], cost: str) -> list[Row]:
    """Returns the rows that have a cost, where that of several series is to compare.

    Args:
      rows: Report rows, averaged over runs.
      cost: "gflops" or "milliseconds". Times are compared if all of them were measured
        on one device, which the rows name as "device".

    Returns:
      Rows with the cost and a score; none where they are of a single series, or their
      costs do not compare.
    """
    found = [
        row
        for row in rows
        if number(row, cost) and any(number(row, key) is not None for key in SCORES)
    ]
    if cost == "milliseconds" and shared(found, "device") is None:
        return []
    return found if len(series(found)) > 1 else []


def fronts(rows: Sequence[Row], cost: str) -> dict[str, list[Row]]:
    """Returns score -> the rows on its Pareto front, from the cheapest to the dearest.

    Args:
      rows: Rows with the cost; see `compared`.
      cost: "gflops" or "milliseconds".

    Returns:
      The fronts of the scores that some row has; none where rows are of different
      images or numbers of runs, which are not to be ranked.
    """
    found = {}
    for key in SCORES if are_rankable(rows) else ():
        scored = [row for row in rows if number(row, key) is not None]
        if scored:
            is_on_front = pareto_front(
                [row[cost] for row in scored],
                [row[key] for row in scored],
                better="higher" if key == "accuracy" else "lower",
            )
            kept = [row for row, on in zip(scored, is_on_front, strict=True) if on]
            found[key] = sorted(kept, key=lambda row: row[cost])
    return found
