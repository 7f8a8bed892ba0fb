"""Passes over data that return scores: tallies, and a few numbers for each image.

Contract of this file: probabilities are streamed; what is kept of an image is a few
numbers for each ensemble. Batch number i draws from `fold_in(key, i)`. What a pass
returns has the structure of the mixtures that are predicted, with a `Scored` in place
of each.
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import metrics
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.ensembles import Predict, map_mixtures
from spatial_smoothing.ensembles.mixtures import LogitMixture, Mixture
from spatial_smoothing.evaluation.tallies import add, tally_of
from spatial_smoothing.metrics import Examples, Tally
from spatial_smoothing.metrics.scores import of_label
from spatial_smoothing.runtime import sharding


class Scored(NamedTuple):
    """What is kept of the predictions of an ensemble; arrays may have leading axes.

    Attributes:
      tally: Sums over the images.
      examples: Scores of each image, on the host.
      calibrated: Scores of each image after temperature scaling, on the host; None
        where there was no temperature.
      extra: Name -> further scores of each image, f32[n] on the host; see `_extra`.
    """

    tally: Tally
    examples: Examples
    calibrated: Examples | None
    extra: Mapping[str, Any] = {}


class Scores(NamedTuple):
    """What is kept of a pass.

    Attributes:
      ensembles: The structure of the predicted mixtures, with a `Scored` for each.
      extra: Name -> extra scores of each image, f32[..., n] on the host, in the
        structure of `Predictions.extra`.
      seconds: Mean time of a batch, without the first, which compiles; None for one
        batch.
    """

    ensembles: Any
    extra: Mapping[str, Any]
    seconds: float | None


def compile_scores(
    predict: Predict,
) -> Callable[..., Scores]:
    """Compiles `scores(variables, key, data, temperatures=None, thresholds=None)`.

    Args:
      predict: `(variables, key, u8[B, H, W, C]) -> Predictions`; see `ensembles`.

    Returns:
      A function to `Scores`, for any number of data sets. It is compiled once for all
      batches of one shape. `temperatures` and `thresholds` are those of a `HeldOut`;
      None for no temperature scaling and no prediction sets. The option `label_sets` is
      bool[R, K] where labels are rows of it, see `most_probable_labels`; None for
      labels that are classes. The function raises ValueError if there are no batches.
    """
    of_batch = jax.jit(batch_scores(predict))

    def scores(
        variables,
        key,
        data: Iterable[Batch],
        temperatures=None,
        thresholds=None,
        *,
        label_sets=None,
    ) -> Scores:
        total, parts, times = None, [], []
        steps = (
            of_batch(variables, key, index, batch, temperatures, thresholds, label_sets)
            for index, batch in enumerate(data)
        )
        for tallies, kept, mask in one_ahead(steps):
            total = tallies if total is None else add(total, tallies)
            mask = sharding.gather(mask)
            parts.append(
                jax.tree.map(lambda x, m=mask: x[..., m], sharding.gather(kept))
            )
            times.append(time.perf_counter())
        if total is None:
            raise ValueError("there is nothing to evaluate: no batches")
        examples, calibrated, extra, steadiness = jax.tree.map(
            lambda *x: np.concatenate(x, axis=-1), *parts
        )
        ensembles = _zipped(sharding.gather(total), examples, calibrated, extra)
        several = len(times) > 1
        seconds = (times[-1] - times[0]) / (len(times) - 1) if several else None
        return Scores(ensembles, steadiness, seconds)

    return scores


def batch_scores(predict: Predict) -> Callable[..., Any]:
    """Returns a function of one batch, to be compiled, that `compile_scores` calls.

    Args:
      predict: `(variables, key, u8[B, H, W, C]) -> Predictions`; see `ensembles`.

    Returns:
      `(variables, key, index, batch, temperatures, thresholds, label_sets)`, with the
      number of the batch and the arguments of `compile_scores`, to tallies, what is
      kept of each image, and the mask.
    """

    def of_batch(
        variables, key, index, batch: Batch, temperatures, thresholds, label_sets
    ):
        found = predict(variables, jax.random.fold_in(key, index), batch["image"])

        def labelled(mixture: Mixture) -> Batch:
            if label_sets is None:
                return batch
            log_probs = mixture.log_probs()
            label = most_probable_labels(log_probs, batch["label"], label_sets)
            return {**batch, "label": label}

        tallies = map_mixtures(
            lambda mixture: tally_of(mixture, labelled(mixture)), found.mixtures
        )
        examples = map_mixtures(
            lambda mixture: _examples(mixture, labelled(mixture)["label"]),
            found.mixtures,
        )
        calibrated = None
        if temperatures is not None:
            log_probs = map_mixtures(Mixture.log_probs, found.mixtures)
            calibrated = jax.tree.map(
                functools.partial(_calibrated, labels=batch["label"]),
                log_probs,
                temperatures,
            )
        if thresholds is None:
            thresholds = map_mixtures(lambda mixture: {}, found.mixtures)
        extra = map_mixtures(
            lambda mixture, given: _extra(mixture, labelled(mixture)["label"], given),
            found.mixtures,
            thresholds,
        )
        return tallies, (examples, calibrated, extra, found.extra), batch["mask"]

    return of_batch


def _extra(
    mixture: Mixture, labels: jax.Array, thresholds: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Scores of each image that are not part of `Examples`.

    Args:
      mixture: Predictions for B images, without leading axes.
      labels: i32[B].
      thresholds: Method of `metrics.conformal` -> threshold f32[]; {} for no sets.

    Returns:
      `disagreement` and `ambiguity` of a mixture that has logits; and of each method
      `METHOD_coverage`, 1 where the set holds the label, else 0, and `METHOD_size`, the
      number of classes in the set. Each is f32[B].
    """
    found = {}
    log_probs = mixture.log_probs()
    if isinstance(mixture, LogitMixture):
        found["disagreement"] = metrics.disagreement(mixture.votes)
        gain = metrics.ambiguity(mixture.mean_log_probs(), log_probs, labels)
        # A single member gains nothing by definition: that is no result.
        found["ambiguity"] = jnp.where(mixture.size > 1, gain, jnp.nan)
    for method, threshold in thresholds.items():
        scores = metrics.class_scores(jnp.exp(log_probs), method=method)
        sets = metrics.conformal_sets(scores, threshold).astype(jnp.float32)
        found[f"{method}_coverage"] = of_label(sets, labels)
        found[f"{method}_size"] = sets.sum(-1)
    return found


def most_probable_labels(
    log_probs: jax.Array, rows: jax.Array, label_sets: jax.Array
) -> jax.Array:
    """Returns for each image that of its right labels which is predicted most.

    With it, an image is classified correctly exactly if the predicted class is one of
    its labels, and its NLL is that of the most probable of them.

    Args:
      log_probs: f32[B, K], log-probabilities of the classes.
      rows: i32[B], row of `label_sets` of each image.
      label_sets: bool[R, K], which labels are right.
    """
    return jnp.where(label_sets[rows], log_probs, -jnp.inf).argmax(-1)


def _examples(mixture: Mixture, labels: jax.Array) -> Examples:
    return metrics.per_example(
        mixture.log_probs(),
        labels,
        mutual_information=mixture.mutual_information(),
        variation_ratio=mixture.variation_ratio(),
        energy=mixture.mean_energy(),
    )


def _calibrated(
    log_probs: jax.Array, temperatures: jax.Array, *, labels: jax.Array
) -> Examples:
    """Scores after temperature scaling, of f32[..., B, K] and f32[...]."""

    def one(log_probs: jax.Array, temperature: jax.Array) -> Examples:
        scaled = metrics.scale_temperature(log_probs, temperature)
        return metrics.per_example(scaled, labels)

    mapped = one
    for _ in range(log_probs.ndim - 2):
        mapped = jax.vmap(mapped)
    return mapped(log_probs, temperatures)


def _zipped(tallies: Any, examples: Any, calibrated: Any, extra: Any) -> Any:
    """One tree of `Scored` in place of four trees of its fields."""
    is_leaf = lambda x: isinstance(x, Tally | Examples)
    if calibrated is None:
        join = lambda tally, each, more: Scored(tally, each, None, more)
        return jax.tree.map(join, tallies, examples, extra, is_leaf=is_leaf)
    return jax.tree.map(Scored, tallies, examples, calibrated, extra, is_leaf=is_leaf)


def one_ahead(steps: Iterator[Any]) -> Iterator[Any]:
    """Yields each item when the next is under way: the device never waits."""
    previous = None
    for item in steps:
        if previous is not None:
            yield previous
        previous = item
    if previous is not None:
        yield previous
