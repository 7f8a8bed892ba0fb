"""Published values, to be drawn beside those of a report.

`published.csv` holds what Park & Kim, "Blurs Behave Like Ensembles", ICML 2022, show in
their figures and tables: means of three trainings, read off with an error of 0.0002 in
NLL and of 0.005 percentage points in accuracy and ECE where they are curves, and to the
digits that are printed where they are numbers.
"""

import csv
import functools
import importlib.resources
import re
from collections.abc import Sequence

from spatial_smoothing.report.rows import Row

SOURCE = "Park & Kim (2022)"
_TYPES = {"num_samples": int, "nll": float, "accuracy": float, "ece": float}


def published(rows: Sequence[Row]) -> list[Row]:
    """What is published of the networks and data sets of report rows.

    Args:
      rows: Report rows, with "model" and "dataset".

    Returns:
      Rows of NLL, accuracy and ECE; those of deterministic networks, MC dropout and
      deep ensembles, with smoothing and without, of every network in question.

    Raises:
      ValueError: Nothing is published of any of them.
    """
    wanted = {(_topology(row.get("model")), row.get("dataset")) for row in rows}
    known = [((_topology(row["model"]), row["dataset"]), row) for row in _all()]
    found = [row for key, row in known if key in wanted]
    if not found:
        asked, given = (
            ", ".join(sorted({f"{network} on {dataset}" for network, dataset in keys}))
            for keys in (wanted, {key for key, _ in known})
        )
        raise ValueError(f"nothing is published of {asked}; choices: {given}")
    return found


@functools.cache
def _all() -> list[Row]:
    path = importlib.resources.files("spatial_smoothing.report") / "published.csv"
    return [
        {
            key: _TYPES.get(key, str)(value) if value else None
            for key, value in row.items()
        }
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    ]


def _topology(model: str | None) -> str:
    """The network without what makes it an ensemble: "resnet_18"."""
    return re.sub("_(dnn|mcdo|smoothing)", "", model or "")
