"""What is fitted to held-out images: temperatures, and thresholds of prediction sets.

Contract of this file: the images are neither trained nor tested on. What is predicted
for them is kept on the host; batch number i draws from `fold_in(key, i)`.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import metrics
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.ensembles import Predict, map_mixtures
from spatial_smoothing.ensembles.mixtures import Mixture
from spatial_smoothing.metrics.conformal import METHODS
from spatial_smoothing.metrics.scores import of_label
from spatial_smoothing.runtime import sharding


class HeldOut(NamedTuple):
    """What is fitted to held-out images, for each ensemble.

    Attributes:
      temperatures: The structure of the predicted mixtures, with an f32[...] for each.
      thresholds: The same structure, with a dict for each: method of
        `metrics.conformal` -> threshold of its prediction sets, f32[...].
    """

    temperatures: Any
    thresholds: Any


def compile_temperatures(
    predict: Predict,
) -> Callable[[Any, jax.Array, Iterable[Batch]], Any]:
    """Compiles `temperatures(variables, key, data)`, which fits one to each ensemble.

    Args:
      predict: `(variables, key, u8[B, H, W, C]) -> Predictions`; see `ensembles`.

    Returns:
      A function to temperatures f32[...], in the structure of the predicted mixtures.
      The data should be others than those that are tested on. It raises ValueError if
      there are no batches.
    """
    collect = compile_collection(predict)

    def temperatures(variables, key, data: Iterable[Batch]) -> Any:
        return fit_temperatures(*collect(variables, key, data))

    return temperatures


def compile_held_out(
    predict: Predict,
) -> Callable[[Any, jax.Array, Iterable[Batch]], HeldOut]:
    """Compiles `held_out(variables, key, data)`, which fits a `HeldOut`.

    Args:
      predict: `(variables, key, u8[B, H, W, C]) -> Predictions`; see `ensembles`.

    Returns:
      A function, for data that are neither trained nor tested on. It raises ValueError
      if there are no batches.
    """
    collect = compile_collection(predict)

    def held_out(variables, key, data: Iterable[Batch]) -> HeldOut:
        log_probs, labels = collect(variables, key, data)
        thresholds = jax.tree.map(
            lambda values: {
                method: _of_each(
                    functools.partial(_conformal_threshold, method=method),
                    values,
                    labels,
                )
                for method in METHODS
            },
            log_probs,
        )
        return HeldOut(fit_temperatures(log_probs, labels), thresholds)

    return held_out


def compile_collection(
    predict: Predict, *, of: Callable[[Mixture], Any] = Mixture.log_probs
) -> Callable[[Any, jax.Array, Iterable[Batch]], tuple[Any, np.ndarray]]:
    """Compiles `collect(variables, key, data)`, which keeps all that is predicted.

    Args:
      predict: `(variables, key, u8[B, H, W, C]) -> Predictions`; see `ensembles`.
      of: Function of a mixture without leading axes to a pytree of f32[B, K].

    Returns:
      A function to the structure of the predicted mixtures, with what `of` makes of
      each as f32[..., n, K] on the host, and to the labels i32[n]. It raises ValueError
      if there are no batches.
    """

    @jax.jit
    def of_batch(variables, key, index, batch: Batch):
        found = predict(variables, jax.random.fold_in(key, index), batch["image"])
        return map_mixtures(of, found.mixtures)

    def collect(variables, key, data: Iterable[Batch]) -> tuple[Any, np.ndarray]:
        parts, labels = [], []
        for index, batch in enumerate(data):
            values = of_batch(variables, key, index, batch)
            mask, label = sharding.gather((batch["mask"], batch["label"]))
            labels.append(label[mask])
            parts.append(
                jax.tree.map(lambda x, m=mask: x[..., m, :], sharding.gather(values))
            )
        if not parts:
            raise ValueError("there is nothing to fit a temperature to: no batches")
        joined = jax.tree.map(lambda *each: np.concatenate(each, axis=-2), *parts)
        return joined, np.concatenate(labels)

    return collect


def fit_temperatures(logits: Any, labels: np.ndarray) -> Any:
    """Fits a temperature to each ensemble.

    Args:
      logits: Pytree of f32[..., n, K], logits or log-probabilities.
      labels: i32[n].

    Returns:
      The same pytree of f32[...].
    """
    return jax.tree.map(
        lambda values: _of_each(metrics.fit_temperature, values, labels), logits
    )


def _of_each(
    function: Callable[[jax.Array, np.ndarray], jax.Array],
    values: np.ndarray,
    labels: np.ndarray,
) -> np.ndarray:
    """A number f32[...] for each ensemble, of f32[..., n, K] and i32[n]."""
    compiled = jax.jit(function)
    flat = values.reshape(-1, *values.shape[-2:])
    found = np.array([compiled(one, labels) for one in flat], np.float32)
    return found.reshape(values.shape[:-2])


def _conformal_threshold(
    log_probs: jax.Array, labels: jax.Array, *, method: str
) -> jax.Array:
    """The threshold f[] of one method, of log-probabilities f[n, K] and labels."""
    scores = metrics.class_scores(jnp.exp(log_probs), method=method)
    return metrics.conformal_threshold(of_label(scores, labels))
