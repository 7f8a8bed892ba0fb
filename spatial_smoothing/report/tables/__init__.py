"""The tables of the page: rows -> `cells.Table`.

Which score stands in which table, and what is said about it, is in `columns`.
"""

from collections.abc import Sequence

from spatial_smoothing.report.rows import Row
from spatial_smoothing.report.tables import costs, scores
from spatial_smoothing.report.tables import differences as compared
from spatial_smoothing.report.tables.cells import Table


def of_ensembles(
    rows: Sequence[Row], *, differences: Sequence[Row] = ()
) -> list[Table]:
    """The tables of ensembles that there are values for.

    Args:
      rows: Report rows, averaged over runs; at least one.
      differences: Paired differences, checked; see `comparisons`.
    """
    found = (
        scores.results(rows),
        compared.differences_table(differences),
        compared.equivalents_table(rows),
        costs.cost_table(rows),
        scores.calibration(rows),
        scores.temperature(rows),
        scores.uncertainty(rows),
        scores.conformal(rows),
        scores.detection(rows),
        scores.streams(rows),
        scores.definitions(rows),
    )
    return [table for table in found if table]
