"""Rows: what a report shows of an ensemble, one dictionary for each.

Contract of this file: rows are plain dictionaries, of strings, numbers, lists and
dictionaries; only `examples` holds arrays. A report turns rows into tables, figures and
files.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import metrics
from spatial_smoothing.evaluation.scores import Scored
from spatial_smoothing.metrics import Examples, Tally

Row = dict[str, Any]
UNCERTAINTIES = ("confidence", "entropy", "mutual_information", "energy")
CALIBRATED = ("nll", "ece", "brier")  # scores given after temperature scaling too
_CURVE = 101  # points of a risk-coverage curve


def tally_row(tally: Tally) -> Row:
    """Scores of a tally, in both definitions.

    Args:
      tally: A tally without leading axes, of at least one example.

    Returns:
      `num_examples`, the scores of `metrics.summary`, the same under "reference", and
      the calibration bins under "reliability".
    """
    return {
        "num_examples": int(tally.count),
        **metrics.summary(tally),
        "reference": metrics.summary(tally, definition="reference"),
        "reliability": metrics.reliability(tally),
    }


def scored_row(
    scored: Scored,
    *,
    num_classes: int,
    key: jax.Array,
    extra: Mapping[str, np.ndarray] | None = None,
    temperature: float | None = None,
    ood: tuple[str, Examples] | None = None,
    num_replicates: int = 1000,
) -> Row:
    """Turns the scores of an ensemble into a row.

    Args:
      scored: Scores of one ensemble, without leading axes.
      num_classes: Number of classes K.
      key: Key of the bootstrap.
      extra: Name -> extra scores of each image, f32[n]; None for none.
      temperature: Temperature with which `scored.calibrated` was made; None for none.
      ood: Name of another data set, and the examples of it that out-of-distribution
        detection is to tell from the examples of `scored`; None for no detection.
      num_replicates: Number of replicates of the bootstrap; 0 for no intervals.

    Returns:
      The scores of `tally_row` and of `metrics.table`, `smooth_ece`, the means of the
      extra scores, `risk_coverage`, `examples`, and where asked for `intervals`,
      `temperature` with `calibrated_nll`, `calibrated_ece` and `calibrated_brier`, and
      `detection`.
    """
    examples = scored.examples
    row = tally_row(scored.tally)
    table, intervals = jax.device_get(
        _bootstrap(
            key,
            examples,
            scored.calibrated,
            {**(extra or {}), **scored.extra},
            num_classes=num_classes,
            num_replicates=num_replicates,
        )
    )
    row |= {name: float(value) for name, value in table.items() if name not in row}
    row["smooth_ece"] = float(_smooth_ece(examples))
    if temperature is not None:
        row["temperature"] = float(temperature)
    if ood is not None:
        row["detection"] = _detection(key, examples, *ood, num_replicates)
    if intervals:
        row["intervals"] = {name: ends.tolist() for name, ends in intervals.items()}
    return {**row, "risk_coverage": _risk_coverage(examples), "examples": examples}


def uncertainty(examples: Examples, name: str) -> jax.Array:
    """Returns an uncertainty of each example, high where the prediction is uncertain.

    Args:
      examples: Scores of n examples.
      name: One of `UNCERTAINTIES`.

    Returns:
      f32[n].
    """
    values = getattr(examples, name)
    return -values if name == "confidence" else values


@functools.partial(jax.jit, static_argnames=("num_classes", "num_replicates"))
def _bootstrap(key, examples, calibrated, extra, *, num_classes, num_replicates):
    """All scores of a table, and their 95 % intervals by the bootstrap."""
    count = len(examples.label)

    def table(weights: jax.Array) -> dict[str, jax.Array]:
        scores = metrics.table(examples, weights, num_classes=num_classes)
        if calibrated is not None:
            after = metrics.table(calibrated, weights, num_classes=num_classes)
            scores |= {f"calibrated_{name}": after[name] for name in CALIBRATED}
        means = {name: weights @ values / count for name, values in extra.items()}
        return {**scores, **means}

    scores = table(jnp.ones(count))
    if not num_replicates:
        return scores, {}
    replicates = metrics.bootstrap(key, table, count, num_replicates=num_replicates)
    return scores, metrics.interval(replicates)


@jax.jit
def _smooth_ece(examples: Examples) -> jax.Array:
    """SmoothECE, without an interval: it is too dear for a thousand resamples."""
    correct = examples.prediction == examples.label
    return metrics.smooth_ece(examples.confidence, correct)


def _detection(
    key: jax.Array, examples: Examples, name: str, out: Examples, num_replicates: int
) -> dict[str, Any]:
    """How well each uncertainty tells the examples of another data set."""
    inside, outside = (
        {each: uncertainty(found, each) for each in UNCERTAINTIES}
        for found in (examples, out)
    )
    scores, ends = jax.device_get(
        _detect(key, inside, outside, num_replicates=num_replicates)
    )
    found = {}
    for each, values in scores.items():
        found[each] = {score: float(value) for score, value in values.items()}
        if ends:
            intervals = {score: end.tolist() for score, end in ends[each].items()}
            found[each]["intervals"] = intervals
    return {"dataset": name, "num_examples": len(out.label), "scores": found}


@functools.partial(jax.jit, static_argnames="num_replicates")
def _detect(key, inside, outside, *, num_replicates):
    """Scores of each uncertainty, and intervals; both sets are resampled apart."""
    counts = [len(values["entropy"]) for values in (inside, outside)]

    def scores(weights: jax.Array | None) -> dict[str, dict[str, jax.Array]]:
        found = {
            each: metrics.ood(inside[each], outside[each], weights) for each in inside
        }
        names = {"auroc": "auroc", "aupr": "aupr_out", "fpr95": "fpr95"}
        return {
            each: {name: values[given] for name, given in names.items()}
            for each, values in found.items()
        }

    def replicate(key: jax.Array) -> dict[str, dict[str, jax.Array]]:
        keys = jax.random.split(key)
        drawn = [metrics.resample(*args) for args in zip(keys, counts, strict=True)]
        return scores(jnp.concatenate(drawn))

    if not num_replicates:
        return scores(None), {}
    keys = jax.random.split(key, num_replicates)
    replicates = jax.lax.map(replicate, keys, batch_size=min(50, num_replicates))
    return scores(None), metrics.interval(replicates)


def _risk_coverage(examples: Examples) -> dict[str, list[float]]:
    """The error rate of the most confident, at about a hundred shares of them."""
    wrong = (examples.prediction != examples.label).astype(np.float32)
    curve = jax.device_get(metrics.risk_coverage(examples.confidence, wrong))
    last = len(wrong) - 1
    chosen = np.unique(np.linspace(0, last, _CURVE).round().astype(int))
    coverage, risk = (np.asarray(values)[chosen].tolist() for values in curve)
    return {"coverage": coverage, "risk": risk}
