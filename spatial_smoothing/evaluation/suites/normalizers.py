"""By what mean corruption errors are divided: nothing, AlexNet, or another run."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from spatial_smoothing import report
from spatial_smoothing.data.corruption import baselines
from spatial_smoothing.data.corruption.baselines import CLEAN, Baseline
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.metrics import corruption as metrics
from spatial_smoothing.runs import workdirs

NONE, ALEXNET, IMAGENET = "none", "alexnet", "imagenet"


class _Loss(NamedTuple):
    """A loss: its plain mean, the mean divided by a baseline's, and what it is."""

    plain: str
    divided: str
    of: Callable[[float], float]


_LOSSES = {
    "accuracy": _Loss("mean_error", "mean_ce", lambda value: 1 - value),
    "nll": _Loss("mean_nll", "mean_cnll", float),
    "ece": _Loss("mean_ece", "mean_cece", float),
}


class Scope(NamedTuple):
    """What an evaluation covers, which its normaliser has to cover as well.

    Attributes:
      dataset: Name of the data set.
      data: Where the corrupted images are from, as rows say.
      corruptions: Those that count.
      severities: Of each.
      num_examples: Images of each.
      split: Of the data set.
    """

    dataset: str
    data: str
    corruptions: Sequence[str]
    severities: Sequence[int]
    num_examples: int
    split: str = "test"


def load(name: str, scope: Scope) -> Baseline | None:
    """Returns the normaliser, None for none.

    Args:
      name: "none"; "alexnet", as in the paper; "imagenet", the official constants of
        ImageNet-C; or a workdir in which the same corruptions were evaluated, whose
        single predictions are taken.
      scope: What has to be there.

    Raises:
      ValueError: The normaliser does not have the scores that are asked for.
    """
    if name == NONE:
        return None
    if name == ALEXNET:
        if scope.dataset not in ("cifar10", "cifar100", "imagenet"):
            raise ValueError(
                f"there are no scores of AlexNet for {scope.dataset}; pass "
                "--normalizer=none or the workdir of another run"
            )
        found = baselines.alexnet(scope.dataset)
    elif name == IMAGENET:
        if scope.dataset != "imagenet":
            raise ValueError(
                f"--normalizer=imagenet is for imagenet, not {scope.dataset}; pass "
                "none, alexnet or the workdir of another run"
            )
        found = baselines.alexnet("imagenet_official")
    else:
        found = _of_workdir(name, scope)
    pairs = ((c, s) for c in scope.corruptions for s in scope.severities)
    missing = [f"{c} {s}" for c, s in pairs if (c, s) not in found.scores]
    if missing:
        raise ValueError(
            f"the normaliser {found.name} has no scores for {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        )
    return found


def _of_workdir(workdir: str, scope: Scope) -> Baseline:
    choices = f"choices: {NONE}, {ALEXNET}, {IMAGENET} or a workdir"
    if not (epath.Path(workdir) / "config.json").exists():
        raise ValueError(f"no normaliser {workdir!r}; {choices}")
    rows, _ = report.read(workdirs.evaluation_path(workdir))
    rows = [r for r in rows if r.get("suite") == "corruption" and "severity" in r]
    if not rows:
        raise ValueError(
            f"{workdir} has no corruptions to divide by; run evaluate.py "
            f"--workdir={workdir} --suite=corruption first"
        )
    for field in ("dataset", "split", "data", "num_examples"):
        for row in rows:
            if row[field] != getattr(scope, field):
                raise ValueError(
                    f"{workdir} was evaluated on other images: {field} is "
                    f"{row[field]} there and {getattr(scope, field)} here"
                )
    least = min(row["num_samples"] for row in rows)
    first = [row for row in rows if row["num_samples"] == least]
    first = [row for row in first if row["run"] == first[-1]["run"]]
    name = f"{first[0]['label']} of {epath.Path(workdir).name}, N = {least}"
    return Baseline(name, {(r["corruption"], r["severity"]): r for r in first})


def aggregate(
    scores: Mapping[tuple[str, int], Mapping[str, float]],
    scope: Scope,
    baseline: Baseline | None,
) -> Row:
    """Returns means over corruptions, plain ones and those divided by a baseline.

    Args:
      scores: (corruption, severity) -> scores, those of ("clean", 0) too.
      scope: What is averaged.
      baseline: What to divide by; None for plain means alone.

    Returns:
      `mean_error`, `mean_nll`, `mean_ece` and `mean_added_error`; with a baseline
      `mean_ce`, `mean_cnll`, `mean_cece` and `relative_mean_ce`, those that it has the
      scores for.
    """
    row = {}
    for score, loss in _LOSSES.items():
        grid = lambda table, score=score, loss=loss: np.array(
            [
                [loss.of(table[c, s][score]) for s in scope.severities]
                for c in scope.corruptions
            ]
        )
        row[loss.plain] = metrics.mean_corruption(grid(scores))
        if baseline and all(score in scores for scores in baseline.scores.values()):
            divisor = grid(baseline.scores)
            row[loss.divided] = metrics.mean_corruption(grid(scores), baseline=divisor)
        if score == "accuracy":
            row |= _added(grid, scores, baseline)
    return row


def _added(grid: Callable, scores: Mapping, baseline: Baseline | None) -> Row:
    """What corruption adds to the error of clean images."""
    clean = 1 - scores[CLEAN]["accuracy"]
    added = metrics.relative_mean_corruption(grid(scores), clean)
    row = {"mean_added_error": added}
    if baseline and CLEAN in baseline.scores:
        row["relative_mean_ce"] = metrics.relative_mean_corruption(
            grid(scores),
            clean,
            baseline=grid(baseline.scores),
            baseline_clean=1 - baseline.scores[CLEAN]["accuracy"],
        )
    return row
