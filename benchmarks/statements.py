"""What a comparison of networks says about nine statements of the paper.

Contract: a statement and its rule are fixed; `results/cifar100_medium/README.md` has
them from before a network with smoothing was evaluated. What is found follows from the
rows alone: those of all runs, whose `run` ends in `MODEL-seedS`, and the paired
differences of the same comparison.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spatial_smoothing.report.rows import Row

MC = ("resnet_mcdo_18", "resnet_mcdo_smoothing_18")
DETERMINISTIC = ("resnet_dnn_18", "resnet_dnn_smoothing_18")
AGREES, DISAGREES, OPEN = "agrees", "does not agree", "cannot be said"
# A type, as in MODEL-bfloat16-seed1, is the same for all runs of a comparison.
_RUN = re.compile(r"(?P<model>\w+)(-\w+)?-seed(?P<seed>\d+)$")
_FREQUENCIES = (0.7, 0.8, 0.9)  # of pi
_STAGES = (1, 2, 3, 4)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One number of runs with smoothing beside the same of runs without.

    Attributes:
      name: What is compared, such as "NLL at N = 2".
      key: Name of the number in rows, which has a unit.
      sign: Sign of the difference in the paper, 1 or -1.
      before: Seed -> the number without smoothing, or before a layer.
      after: Seed -> the number with smoothing, or after a layer; the same seeds.
      interval: 95 % interval of the difference over images; None where there is none.
      allows_zero: Whether it also agrees where the interval contains zero, or where no
        seed has the other sign.
    """

    name: str
    key: str
    sign: int
    before: Mapping[int, float]
    after: Mapping[int, float]
    interval: tuple[float, float] | None = None
    allows_zero: bool = False

    @property
    def differences(self) -> list[float]:
        """After minus before, seed by seed."""
        return [self.after[seed] - self.before[seed] for seed in self.before]

    @property
    def verdict(self) -> str:
        """`AGREES`, `DISAGREES` or `OPEN`, by the rule of the statements."""
        if self.interval is None:
            # Without an interval, all seeds have to say the same.
            ends = (min(self.differences), max(self.differences))
        else:
            ends = self.interval
        low, high = sorted(self.sign * end for end in ends)
        if low > 0 or (self.allows_zero and high >= 0):
            return AGREES
        return DISAGREES if high < 0 else OPEN


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the rows say about a statement.

    Attributes:
      number: Number of the statement.
      statement: The statement of the paper.
      comparisons: What decides it; empty where the rows have nothing to say.
      others: What does not: the same of the pair without dropout.
    """

    number: int
    statement: str
    comparisons: tuple[Comparison, ...]
    others: tuple[Comparison, ...] = ()

    @property
    def verdict(self) -> str:
        """`AGREES` or `DISAGREES` where all comparisons say so, else `OPEN`."""
        verdicts = {each.verdict for each in self.comparisons}
        return verdicts.pop() if len(verdicts) == 1 else OPEN


class Scores:
    """The rows of a comparison, by network and seed.

    Args:
      rows: Rows of all runs.
      differences: Paired differences, as `evaluation.suites.differences` returns them.
    """

    def __init__(
        self, rows: Sequence[Row], differences: Sequence[Mapping[str, Any]] = ()
    ):
        self._rows: dict[tuple[str, str], dict[int, list[Row]]] = {}
        for row in rows:
            found = _RUN.search(row["run"])
            if found is None:
                raise ValueError(f"the run {row['run']} is not named MODEL-seedS")
            by_seed = self._rows.setdefault((found["model"], row["suite"]), {})
            by_seed.setdefault(int(found["seed"]), []).append(row)
        self._differences = differences

    def value(self, model: str, suite: str, key: str, **where: Any) -> dict[int, float]:
        """Returns seed -> the number of the one row of each run with some values.

        Args:
          model: Name of the network.
          suite: Name of the suite.
          key: Name of the number.
          where: Name -> value that the row has; None for a row without one.
        """
        found = {}
        for seed, rows in sorted(self._rows.get((model, suite), {}).items()):
            chosen = [
                row
                for row in rows
                if all(row.get(name) == value for name, value in where.items())
            ]
            if len(chosen) == 1:
                found[seed] = float(chosen[0][key])
        return found

    def label(self, model: str) -> str | None:
        """Returns what reports call a network; None where it has no ensemble row."""
        found = self._rows.get((model, "ensemble"))
        return next(iter(found.values()))[0]["label"] if found else None

    def interval(
        self, pair: Sequence[str], key: str, *, size: int, without: int | None = None
    ) -> tuple[float, float] | None:
        """Returns the interval of a paired difference, or None where there is none.

        Args:
          pair: Names of the networks without and with smoothing.
          key: Name of the score.
          size: Ensemble size N with smoothing.
          without: Ensemble size without it; None for the same.
        """
        before, after = (self.label(model) for model in pair)
        name = f"{after} minus {before}"
        if without is not None:
            name = f"{after}, N = {size}, minus {before}, N = {without}"
        for each in self._differences:
            if each["label"] == name and each["num_samples"] == size:
                values = each["values"].get(key)
                return None if values is None else (values[1], values[2])
        return None


def findings(scores: Scores) -> list[Finding]:
    """Returns what the rows say about each statement, in order.

    Args:
      scores: The rows.
    """
    texts = {
        1: "2 samples with smoothing predict as well as 50 without",
        2: "with MC dropout, smoothing lowers NLL and ECE and raises accuracy",
        3: "without dropout, too",
        4: "smoothing makes networks more robust to corruptions",
        5: "the loss landscape is flatter",
        6: "the largest eigenvalues of the Hessian are smaller",
        7: "a smoothing layer lowers the variance of feature maps over dropout samples",
        8: "a smoothing layer takes high frequencies away",
        9: "networks with smoothing are more robust to noise of high frequency",
    }
    compared = {
        1: _few_samples(scores),
        2: _at_every_size(scores, MC, (1, 2, 5, 50)),
        3: _at_every_size(scores, DETERMINISTIC, (1,)),
        4: _corruptions(scores),
        5: _landscape(scores, MC),
        6: _eigenvalues(scores, MC),
        7: _layers(scores, "variance", "relative_variance", "relative variance"),
        8: _layers(
            scores,
            "fourier",
            "high_delta",
            "log amplitude at the highest frequency",
            network="sample",
        ),
        9: _noise(scores),
    }
    others = {
        5: _landscape(scores, DETERMINISTIC),
        6: _eigenvalues(scores, DETERMINISTIC),
    }
    return [
        Finding(number, text, tuple(compared[number]), tuple(others.get(number, ())))
        for number, text in texts.items()
    ]


def _compared(
    name: str,
    key: str,
    sign: int,
    before: Mapping[int, float],
    after: Mapping[int, float],
    **others: Any,
) -> Iterator[Comparison]:
    """Yields a comparison of the seeds of both; none where there are no such seeds."""
    seeds = sorted(before.keys() & after.keys())
    if seeds:
        first, second = ({s: of[s] for s in seeds} for of in (before, after))
        yield Comparison(name, key, sign, first, second, **others)


_SCORES = {"nll": ("NLL", -1), "accuracy": ("accuracy", 1), "ece": ("ECE", -1)}


def _few_samples(scores: Scores) -> Iterator[Comparison]:
    for key in ("nll", "accuracy"):
        name, sign = _SCORES[key]
        yield from _compared(
            f"{name}, N = 2 with and N = 50 without",
            key,
            sign,
            scores.value(MC[0], "ensemble", key, num_samples=50),
            scores.value(MC[1], "ensemble", key, num_samples=2),
            interval=scores.interval(MC, key, size=2, without=50),
            allows_zero=True,
        )


def _at_every_size(
    scores: Scores, pair: tuple[str, str], sizes: Sequence[int]
) -> Iterator[Comparison]:
    for size in sizes:
        for key, (name, sign) in _SCORES.items():
            yield from _compared(
                f"{name} at N = {size}" if len(sizes) > 1 else name,
                key,
                sign,
                *(
                    scores.value(model, "ensemble", key, num_samples=size)
                    for model in pair
                ),
                interval=scores.interval(pair, key, size=size),
            )


def _corruptions(scores: Scores) -> Iterator[Comparison]:
    for size in (1, 2, 10):
        for key, name in (("mean_nll", "mean NLL"), ("mean_error", "mean error")):
            # The row of the means has neither a corruption nor a severity.
            yield from _compared(
                f"{name} at N = {size}",
                key,
                -1,
                *(
                    scores.value(
                        model, "corruption", key, num_samples=size, corruption=None
                    )
                    for model in MC
                ),
            )


def _landscape(scores: Scores, pair: tuple[str, str]) -> Iterator[Comparison]:
    rises = []
    for model in pair:
        border, center = (
            scores.value(model, "landscape", key) for key in ("border_nll", "nll")
        )
        rises.append({seed: border[seed] - center[seed] for seed in border})
    name = "NLL at the border minus that in the centre"
    yield from _compared(name, "border_nll", -1, *rises)


def _eigenvalues(scores: Scores, pair: tuple[str, str]) -> Iterator[Comparison]:
    name, key = "mean of the largest eigenvalues", "top_mean"
    values = (scores.value(model, "hessian", key) for model in pair)
    yield from _compared(name, key, -1, *values)


def _layers(
    scores: Scores, suite: str, key: str, name: str, **where: Any
) -> Iterator[Comparison]:
    """Yields comparisons of what enters a smoothing layer and what leaves it."""
    for stage in _STAGES:
        yield from _compared(
            f"{name}, stage {stage}",
            key,
            -1,
            *(
                scores.value(MC[1], suite, key, tap=f"{tap}{stage}", **where)
                for tap in ("stage", "smooth")
            ),
        )


def _noise(scores: Scores) -> Iterator[Comparison]:
    for frequency in _FREQUENCIES:
        changes = []
        for model in MC:
            clean, noisy = (
                scores.value(model, "frequency", "accuracy", frequency=each)
                for each in (None, frequency)
            )
            changes.append({seed: noisy[seed] - clean[seed] for seed in noisy})
        name = f"accuracy under noise at {frequency} pi minus that without"
        yield from _compared(name, "accuracy", 1, *changes)
