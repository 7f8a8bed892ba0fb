"""What the rows of a comparison of rivals show, in numbers and in sentences.

Contract: every sentence follows from the rows alone, so that it is true of other rows,
too. Rows are those of all runs, with `run` beginning with the name of the job.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from scipy import stats

from spatial_smoothing.report import costs
from spatial_smoothing.report.rows import Row, are_rankable, listed
from spatial_smoothing.runs.labels import SMOOTHED

SCORES = ("nll", "accuracy", "ece")
_LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Change:
    """What smoothing changes in a method, by the differences of runs of equal seeds.

    Attributes:
      label: The method without smoothing.
      size: Number of predictions N that are averaged, with and without smoothing.
      seeds: Number of seeds n that have a run of both.
      scores: Score -> (mean of the differences, low, high). The ends are those of the
        95 % interval, NaN for fewer than two seeds.
      cost: Operations of a prediction with smoothing over those without; None where
        they are not known.
    """

    label: str
    size: int
    seeds: int
    scores: Mapping[str, tuple[float, float, float]]
    cost: float | None

    def is_clear(self, key: str) -> bool:
        """Whether the interval of a score is on one side of zero."""
        _, low, high = self.scores[key]
        return low > 0 or high < 0


def seed(row: Row) -> int:
    """Returns the seed in the name of a row's job, as in "deep-plain-2 #0,1"."""
    return int(row["run"].partition(" ")[0].rpartition("-")[2])


def method(row: Row) -> str:
    """Returns the method in the name of a row's job; see `rival_methods.METHODS`."""
    return row["run"].rsplit("-", 2)[0]


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean of some values with its 95 % interval by Student's t.

    Args:
      values: n independent values, at least one.

    Returns:
      (mean, low, high); the ends are NaN for n = 1.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan, math.nan
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(stats.t.ppf((1 + _LEVEL) / 2, len(values) - 1)) * error
    return mean, mean - half, mean + half


def changes(rows: Sequence[Row]) -> list[Change]:
    """Returns what smoothing changes in each method, at the largest N of both.

    Args:
      rows: Rows of all runs.

    Returns:
      The methods with a run of one seed with smoothing and without it, in order.
    """
    by_label: dict[str, dict[tuple[int, int], Row]] = {}
    for row in rows:
        by_label.setdefault(row["label"], {})[row["num_samples"], seed(row)] = row
    found = []
    for label, plain in by_label.items():
        smoothed = by_label.get(label + SMOOTHED, {})
        shared = plain.keys() & smoothed.keys()
        if not shared:
            continue
        size = max(number for number, _ in shared)
        keys = sorted(key for key in shared if key[0] == size)
        pairs = [(plain[key], smoothed[key]) for key in keys]
        scores = {
            score: mean_interval(
                [after[score] - before[score] for before, after in pairs]
            )
            for score in SCORES
        }
        before, after = (row.get("gflops") for row in pairs[0])
        cost = after / before if before and after else None
        found.append(Change(label, size, len(pairs), scores, cost))
    return found


def best(found: Sequence[Row]) -> list[Row]:
    """Returns the row of each label with the lowest mean NLL, the lowest first.

    Args:
      found: Rows averaged over runs.
    """
    lowest: dict[str, Row] = {}
    for row in found:
        before = lowest.get(row["label"])
        if before is None or row["nll"] < before["nll"]:
            lowest[row["label"]] = row
    return sorted(lowest.values(), key=lambda row: row["nll"])


def sentences(rows: Sequence[Row], found: Sequence[Row]) -> list[str]:
    """Returns what the rows show, a sentence or a few for each question.

    Args:
      rows: Rows of all runs.
      found: The same rows averaged over runs.
    """
    every = [
        _of_smoothing(changes(rows)),
        *_fewer_predictions(found),
        *_of_ranks(found),
    ]
    return [each for each in every if each]


def _of_smoothing(found: Sequence[Change]) -> str:
    """Returns in which methods smoothing lowers the NLL, and where that is clear."""
    if not found:
        return ""
    lower = [each for each in found if each.scores["nll"][0] < 0]
    higher = [each for each in found if each.scores["nll"][0] > 0]
    clear = [each for each in found if each.is_clear("nll")]
    return (
        f"Of {len(found)} methods, each at its largest N, smoothing lowers the mean "
        f"NLL of {_counted(lower)} and raises that of {_counted(higher)}. The 95 % "
        f"interval of the difference excludes zero for {_counted(clear)}."
    )


def _counted(found: Sequence[Change]) -> str:
    """Returns "2 (MC dropout and MIMO)", or "none"."""
    names = listed([each.label for each in found])
    return f"{len(found)} ({names})" if found else "none"


def _fewer_predictions(found: Sequence[Row]) -> list[str]:
    """Returns how few predictions with smoothing are as good as many without."""
    sentences = []
    for plain in best(found):
        smoothed = [row for row in found if row["label"] == plain["label"] + SMOOTHED]
        # With a single N, the differences say all.
        if len(smoothed) < 2 or not are_rankable([plain, *smoothed]):
            continue
        without = f"as good as without it at its best, {_size(plain)}."
        enough = [row for row in smoothed if row["nll"] <= plain["nll"]]
        if enough:
            first = min(enough, key=lambda row: row["num_samples"])
            needed = f"needs {_size(first)} to be {without}"
        else:
            needed = f"is at no N {without}"
        sentences.append(f"{plain['label']} with smoothing {needed}")
    return sentences


def _size(row: Row) -> str:
    """Returns "N = 2 (mean NLL 0.752, 0.0325 GFLOPs)"."""
    return f"N = {row['num_samples']} (mean NLL {row['nll']:.3f}{_cost(row)})"


def _of_ranks(found: Sequence[Row]) -> list[str]:
    """Returns who is the best, who is on the front, and how much methods learned."""
    if not are_rankable(found):
        return [
            "The methods have different numbers of runs so far: they are not ranked, "
            "and there is no Pareto front."
        ]
    ranked = best(found)
    sentences = [
        f"The lowest mean NLL is {ranked[0]['nll']:.3f}, of "
        f"{_named(ranked[0])}{_cost(ranked[0])}."
    ]
    front = costs.fronts(costs.compared(found, "gflops"), "gflops").get("nll")
    if front:
        names = listed([_named(row) for row in front])
        sentences.append(
            "On the Pareto front of mean NLL and GFLOPs, from the cheapest to the "
            f"dearest: {names}."
        )
    least, most = (pick(ranked, key=lambda row: row["accuracy"]) for pick in (min, max))
    sentences.append(
        "All methods have the same number of epochs, in which some may learn less than "
        f"others: the mean accuracy at the best N is between {least['accuracy']:.1%}, "
        f"of {_named(least)}, and {most['accuracy']:.1%}, of {_named(most)}."
    )
    return sentences


def _named(row: Row) -> str:
    """Returns "MC dropout with N = 2"."""
    return f"{row['label']} with N = {row['num_samples']}"


def _cost(row: Row) -> str:
    """Returns ", 0.0325 GFLOPs", or nothing where they are not known."""
    operations = row.get("gflops")
    return "" if operations is None else f", {operations:.3g} GFLOPs"
