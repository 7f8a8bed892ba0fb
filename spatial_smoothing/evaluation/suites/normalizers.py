"""What mean corruption errors are divided by: nothing, AlexNet, or another run.

Source: Hendrycks & Dietterich, ICLR 2019, section 4, who divide by AlexNet.
"""

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
    """A loss that is averaged over corruptions.

    Attributes:
      plain: Name of its plain mean in a row.
      divided: Name of its mean divided by that of a baseline.
      of_score: Function of the score to the loss.
    """

    plain: str
    divided: str
    of_score: Callable[[float], float]


def _error(accuracy: float) -> float:
    return 1 - accuracy


# Name of a score -> the loss that it is turned into.
_LOSSES = {
    "accuracy": _Loss("mean_error", "mean_ce", _error),
    "nll": _Loss("mean_nll", "mean_cnll", float),
    "ece": _Loss("mean_ece", "mean_cece", float),
}


class Scope(NamedTuple):
    """What an evaluation covers, which its normaliser has to cover as well.

    Attributes:
      dataset: Name of the data set.
      data: Where the corrupted images are from, in the words of the field `data` of
        rows.
      corruptions: Names of the corruptions that the means are over.
      severities: Severities of each corruption, ints from 1 to 5.
      num_examples: Number of images of each corruption and severity.
      split: Name of the split of the data set.
    """

    dataset: str
    data: str
    corruptions: Sequence[str]
    severities: Sequence[int]
    num_examples: int
    split: str = "test"


def load(name: str, scope: Scope) -> Baseline | None:
    """Returns the scores that means are divided by; None for "none".

    Args:
      name: "none"; "alexnet", as in the paper; "imagenet", the official constants of
        ImageNet-C; or a workdir in which the same corruptions were evaluated, whose
        single predictions are taken.
      scope: The corruptions and severities that the normaliser must have, and of which
        images.

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
    """Returns the scores of another run, of the smallest ensemble it was scored by.

    Raises:
      ValueError: if there is no such run, or it was evaluated on other images.
    """
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
            # Rows of older versions lack some of them.
            there, here = row.get(field, "not named"), getattr(scope, field)
            if there != here:
                raise ValueError(
                    f"{workdir} was evaluated on other images: {field} is {there} "
                    f"there and {here} here"
                )
    least = min(row["num_samples"] for row in rows)
    single = [row for row in rows if row["num_samples"] == least]
    # A deep ensemble has such rows for each of its members; one of them is taken.
    single = [row for row in single if row["run"] == single[-1]["run"]]
    name = f"{single[0]['label']} of {epath.Path(workdir).name}, N = {least}"
    scores = {(row["corruption"], row["severity"]): row for row in single}
    return Baseline(name, scores)


def aggregate(
    scores: Mapping[tuple[str, int], Mapping[str, float]],
    scope: Scope,
    baseline: Baseline | None,
) -> Row:
    """Returns means over corruptions, plain ones and those divided by a baseline.

    Args:
      scores: (corruption, severity) -> name of the score -> its value; with that of the
        clean images, ("clean", 0).
      scope: The corruptions and severities that are averaged over.
      baseline: Scores to divide by; None for plain means alone.

    Returns:
      `mean_error`, `mean_nll`, `mean_ece` and `mean_added_error`, in the units of the
      scores; with a baseline `mean_ce`, `mean_cnll`, `mean_cece` and
      `relative_mean_ce`, ratios, as far as it has the scores for them.

    Source: Hendrycks & Dietterich, ICLR 2019, section 4.
    """
    row = {}
    for score, loss in _LOSSES.items():
        losses = _losses(scores, score, scope)
        row[loss.plain] = metrics.mean_corruption(losses)
        # What is not finite is null in the report of a run.
        known = baseline and all(
            found.get(score) is not None for found in baseline.scores.values()
        )
        if known:
            row[loss.divided] = metrics.mean_corruption(
                losses, baseline=_losses(baseline.scores, score, scope)
            )
        if score == "accuracy":
            row |= _added(scores, scope, baseline)
    return row


def _losses(
    scores: Mapping[tuple[str, int], Mapping[str, float]], score: str, scope: Scope
) -> np.ndarray:
    """Returns the losses of one score, f64[corruptions, severities]."""
    loss = _LOSSES[score]
    return np.array(
        [
            [
                loss.of_score(scores[corruption, severity][score])
                for severity in scope.severities
            ]
            for corruption in scope.corruptions
        ]
    )


def _added(
    scores: Mapping[tuple[str, int], Mapping[str, float]],
    scope: Scope,
    baseline: Baseline | None,
) -> Row:
    """Returns what corruption adds to the error of clean images."""
    errors = _losses(scores, "accuracy", scope)
    clean = _error(scores[CLEAN]["accuracy"])
    row = {"mean_added_error": metrics.relative_mean_corruption(errors, clean)}
    if baseline and CLEAN in baseline.scores:
        row["relative_mean_ce"] = metrics.relative_mean_corruption(
            errors,
            clean,
            baseline=_losses(baseline.scores, "accuracy", scope),
            baseline_clean=_error(baseline.scores[CLEAN]["accuracy"]),
        )
    return row
