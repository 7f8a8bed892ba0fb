"""Scoring: all that one pass over a data set says about R ensembles at once.

Contract of this file: `predict(variables, key, images)` maps u8[B, H, W, C] to a
`Mixture` with a leading axis of R ensembles (see `mixtures.predictor`); or to a pair of
it and further scores of each image, name -> f32[R, B]. Probabilities are streamed: what
is kept of an image is a few numbers for each ensemble.
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import metrics
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.ensembles.mixtures import Mixture
from spatial_smoothing.evaluation.passes import Row, summaries
from spatial_smoothing.metrics import Examples, Tally
from spatial_smoothing.runtime import sharding

Further = dict[str, jax.Array]
Predict = Callable[[Any, jax.Array, jax.Array], Mixture | tuple[Mixture, Further]]
UNCERTAINTIES = ("confidence", "entropy", "mutual_information", "energy")
CALIBRATED = ("nll", "ece", "brier")  # scores given after temperature scaling too
_CURVE = 101  # points of a risk-coverage curve


class Scores(NamedTuple):
    """What is kept of a pass; the fields of all pytrees have a leading axis of R.

    Attributes:
      tally: Sums over the images.
      examples: Scores of each image, on the host.
      calibrated: The same after temperature scaling, if there were temperatures.
      seconds: Mean time of a batch, without the first, which compiles; None for one.
      further: Further scores of each image, on the host, f32[R, n]; NaN where an
        ensemble has none.
    """

    tally: Tally
    examples: Examples
    calibrated: Examples | None
    seconds: float | None
    further: dict[str, np.ndarray]


class Passes(NamedTuple):
    """Compiled passes, for any number of data sets.

    Attributes:
      scores: `(variables, key, data, temperatures=None) -> Scores`.
      temperatures: `(variables, key, data) -> f32[R]`, fitted to the data, which are
        to be others than those tested on.
    """

    scores: Callable[..., Scores]
    temperatures: Callable[[Any, jax.Array, Iterable[Batch]], jax.Array]


def compile_passes(predict: Predict) -> Passes:
    """Compiles passes; batch i of a data set draws from `fold_in(key, i)`."""

    def predicted(variables, key, index, batch: Batch) -> tuple[Mixture, Further]:
        found = predict(variables, jax.random.fold_in(key, index), batch["image"])
        return (found, {}) if isinstance(found, Mixture) else found

    @jax.jit
    def log_probs_of(*inputs) -> jax.Array:
        return predicted(*inputs)[0].log_probs()

    @jax.jit
    def scores_of(variables, key, index, batch: Batch, temperatures):
        mixture, further = predicted(variables, key, index, batch)
        log_probs, label, mask = mixture.log_probs(), batch["label"], batch["mask"]
        tally = jax.vmap(lambda values: _tally(values, label, mask))(log_probs)
        per_example = jax.vmap(functools.partial(metrics.per_example, labels=label))
        examples = per_example(
            log_probs,
            mutual_information=mixture.mutual_information(),
            variation_ratio=mixture.variation_ratio(),
            energy=mixture.mean_energy(),
        )
        calibrated = None
        if temperatures is not None:
            scaled = jax.vmap(metrics.scale_temperature)(log_probs, temperatures)
            calibrated = per_example(scaled)
        return tally, (examples, calibrated, further), mask

    def scores(variables, key, data, temperatures=None) -> Scores:
        total, parts, times = None, [], []
        steps = (
            scores_of(variables, key, index, batch, temperatures)
            for index, batch in enumerate(data)
        )
        for tally, kept, mask in _one_ahead(steps):
            total = tally if total is None else total + tally
            mask = sharding.gather(mask)
            parts.append(jax.tree.map(lambda x, m=mask: x[:, m], sharding.gather(kept)))
            times.append(time.perf_counter())
        if total is None:
            raise ValueError("there is nothing to evaluate: no batches")
        total, several = sharding.gather(total), len(times) > 1
        examples, calibrated, further = jax.tree.map(
            lambda *x: np.concatenate(x, axis=1), *parts
        )
        seconds = (times[-1] - times[0]) / (len(times) - 1) if several else None
        return Scores(total, examples, calibrated, seconds, further)

    def temperatures(variables, key, data) -> jax.Array:
        found = []
        for index, batch in enumerate(data):
            log_probs = log_probs_of(variables, key, index, batch)
            mask, label = sharding.gather((batch["mask"], batch["label"]))
            found.append((sharding.gather(log_probs)[:, mask], label[mask]))
        if not found:
            raise ValueError("there is nothing to fit a temperature to: no batches")
        labels = np.concatenate([label for _, label in found])
        fit = jax.jit(metrics.fit_temperature)
        each = zip(*(log_probs for log_probs, _ in found), strict=True)
        return jnp.stack([fit(np.concatenate(parts), labels) for parts in each])

    return Passes(scores, temperatures)


def rows(
    scores: Scores,
    *,
    num_classes: int,
    temperatures: jax.Array | None = None,
    ood: tuple[str, Examples] | None = None,
    key: jax.Array,
    num_replicates: int = 1000,
) -> list[Row]:
    """Turns the scores of R ensembles into as many rows.

    Args:
      scores: Of a pass.
      num_classes: K.
      temperatures: f32[R] with which `scores.calibrated` was made.
      ood: Name and examples of a data set to be told from this one.
      key: Of the bootstrap.
      num_replicates: Of the bootstrap; 0 for no intervals.

    Returns:
      Rows with the scores of `evaluation.summaries` and `metrics.table`, the means of
      further scores, `risk_coverage`, `examples`, and where asked for `intervals`,
      `temperature` with `calibrated_nll`, `calibrated_ece` and `calibrated_brier`, and
      `detection`.
    """
    found = []
    for index in range(len(scores.tally.count)):
        part = functools.partial(jax.tree.map, lambda leaf, i=index: leaf[i])
        examples = part(scores.examples)
        row = {"num_examples": len(examples.label), **summaries(part(scores.tally))}
        further = {
            name: values[index]
            for name, values in scores.further.items()
            if not np.isnan(values[index]).any()
        }
        table, intervals = _table(
            key,
            examples,
            part(scores.calibrated),
            further,
            num_classes=num_classes,
            num_replicates=num_replicates,
        )
        row |= {name: value for name, value in table.items() if name not in row}
        if temperatures is not None:
            row["temperature"] = float(temperatures[index])
        if ood is not None:
            row["detection"] = _detection(
                key, examples, ood[0], part(ood[1]), num_replicates
            )
        if intervals:
            row["intervals"] = intervals
        row |= {"risk_coverage": _risk_coverage(examples), "examples": examples}
        found.append(row)
    return found


def uncertainty(examples: Examples, name: str) -> jax.Array:
    """Returns one of `UNCERTAINTIES` of each example, high where it is uncertain."""
    values = getattr(examples, name)
    return -values if name == "confidence" else values


def _tally(log_probs: jax.Array, labels: jax.Array, mask: jax.Array) -> Tally:
    return metrics.tally(jnp.exp(log_probs), labels, mask, log_probs=log_probs)


def _one_ahead(steps: Iterator[Any]) -> Iterator[Any]:
    """Yields each item when the next is under way: the device never waits."""
    previous = None
    for item in steps:
        if previous is not None:
            yield previous
        previous = item
    if previous is not None:
        yield previous


@functools.partial(jax.jit, static_argnames=("num_classes", "num_replicates"))
def _bootstrap(key, examples, calibrated, further, *, num_classes, num_replicates):
    count = len(examples.label)

    def table(weights: jax.Array) -> dict[str, jax.Array]:
        scores = metrics.table(examples, weights, num_classes=num_classes)
        if calibrated is not None:
            after = metrics.table(calibrated, weights, num_classes=num_classes)
            scores |= {f"calibrated_{name}": after[name] for name in CALIBRATED}
        means = {name: weights @ values / count for name, values in further.items()}
        return {**scores, **means}

    scores = table(jnp.ones(count))
    if not num_replicates:
        return scores, {}
    replicates = metrics.bootstrap(key, table, count, num_replicates=num_replicates)
    return scores, metrics.interval(replicates)


def _table(*inputs, **options) -> tuple[dict, dict]:
    """The scores of a table, and their intervals; arguments as `_bootstrap`."""
    table, intervals = jax.device_get(_bootstrap(*inputs, **options))
    return (
        {name: float(value) for name, value in table.items()},
        {name: value.tolist() for name, value in intervals.items()},
    )


def _detection(
    key: jax.Array, examples: Examples, name: str, out: Examples, num_replicates: int
) -> dict[str, Any]:
    """How well each uncertainty tells the examples of another data set."""
    both = [
        {each: uncertainty(found, each) for each in UNCERTAINTIES}
        for found in (examples, out)
    ]
    scores, ends = jax.device_get(_detect(key, *both, num_replicates=num_replicates))
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
