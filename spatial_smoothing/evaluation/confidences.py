"""A pass over data that returns confidences of ensembles for each image.

Contract of this file: a confidence is named by a `Confidence`, which also says what of
the predictions is averaged before it is computed. What is kept of an image is a number
for each confidence and ensemble. Batch number i draws from `fold_in(key, i)`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import metrics
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.ensembles import Predict, map_mixtures
from spatial_smoothing.ensembles.mixtures import LogitMixture
from spatial_smoothing.evaluation.scores import one_ahead
from spatial_smoothing.metrics.confidences import GAMMA
from spatial_smoothing.runtime import sharding

PROBABILITIES, LOGITS, FEATURES = "probabilities", "logits", "features"
WRONG = "wrong"  # no confidence: whether the prediction is wrong


class Confidence(NamedTuple):
    """Names a confidence.

    Attributes:
      name: A key of `AVERAGES`, or one of the confidences of features.
      average: What is averaged over the predictions of an ensemble: "probabilities",
        "logits", or of confidences of features the confidences themselves, "features".
    """

    name: str
    average: str


# Confidence of predictions -> what it can be computed from.
AVERAGES = {
    "msp": (PROBABILITIES, LOGITS),
    "temperature": (PROBABILITIES, LOGITS),
    "entropy": (PROBABILITIES, LOGITS),
    "mutual_information": (PROBABILITIES,),
    "gen": (PROBABILITIES, LOGITS),
    "mls": (LOGITS,),
    "energy": (LOGITS,),
    "odin": (LOGITS,),
}


def confidences_of(names: Iterable[str]) -> list[Confidence]:
    """Returns all confidences of predictions with these names, in the order of names.

    Args:
      names: Names; those that are no keys of `AVERAGES` are left out.
    """
    return [
        Confidence(name, average)
        for name in names
        for average in AVERAGES.get(name, ())
    ]


def averages(mixture: LogitMixture) -> dict[str, jax.Array]:
    """What confidences are computed from: kind of average -> f32[B, K].

    Args:
      mixture: Predictions for B images, without leading axes.

    Returns:
      The logarithm of the mean of the probabilities, and the mean of the logits.
    """
    return {PROBABILITIES: mixture.log_probs(), LOGITS: mixture.mean_logits()}


def compile_confidences(
    predict: Predict,
    chosen: Sequence[Confidence],
    *,
    gammas: Sequence[float] = (GAMMA,),
) -> Callable[..., Any]:
    """Compiles `confidences(variables, key, data, temperatures=None)`.

    Args:
      predict: `(variables, key, u8[B, H, W, C]) -> Predictions`, whose mixtures are
        `LogitMixture`s.
      chosen: The confidences.
      gammas: Exponents of the generalised entropy, G of them.

    Returns:
      A function to the structure of the predicted mixtures, with a dict for each:
      `Confidence` -> f32[..., G', n] on the host, where G' is G for the generalised
      entropy and 1 for all others. `Confidence(WRONG, average)` is among them, for both
      averages. `temperatures` has a dict for each mixture: average -> f32[...]; without
      them, the confidence "temperature" is NaN. It raises ValueError if there are no
      batches.
    """
    of_batch = jax.jit(batch_confidences(predict, chosen, gammas=gammas))

    def confidences(
        variables: Any, key: jax.Array, data: Iterable[Batch], temperatures: Any = None
    ) -> Any:
        steps = (
            of_batch(variables, key, index, batch, temperatures)
            for index, batch in enumerate(data)
        )
        return kept(steps)

    return confidences


def batch_confidences(
    predict: Predict,
    chosen: Sequence[Confidence],
    *,
    gammas: Sequence[float] = (GAMMA,),
) -> Callable[..., Any]:
    """Returns the function of one batch that `compile_confidences` compiles.

    Args:
      predict: `(variables, key, u8[B, H, W, C]) -> Predictions`, whose mixtures are
        `LogitMixture`s.
      chosen: The confidences.
      gammas: Exponents of the generalised entropy, G of them.

    Returns:
      `(variables, key, index, batch, temperatures)` to confidences f32[..., G', B] in
      the structure of the predicted mixtures, and the mask bool[B] of the batch, which
      is batch number `index`.
    """

    def of_mixture(
        mixture: LogitMixture, temperatures: dict[str, jax.Array], labels: jax.Array
    ) -> dict[Confidence, jax.Array]:
        given = averages(mixture)
        found = {}
        for average, logits in given.items():
            wrong = (logits.argmax(-1) != labels).astype(jnp.float32)
            found[Confidence(WRONG, average)] = wrong[None]
        for each in chosen:
            logits = given[each.average]
            if each.name == "mutual_information":
                values = _disagreement(mixture)
            elif each.name == "temperature":
                values = _scaled(logits, temperatures.get(each.average))
            elif each.name == "gen":
                found[each] = _generalised_entropies(logits, gammas)
                continue
            else:
                values = _OF_LOGITS[each.name](logits)
            found[each] = values[None]
        return found

    def of_batch(variables, key, index, batch: Batch, temperatures):
        mixtures = predict(
            variables, jax.random.fold_in(key, index), batch["image"]
        ).mixtures
        if temperatures is None:
            temperatures = map_mixtures(lambda mixture: {}, mixtures)
        found = map_mixtures(
            lambda mixture, scale: of_mixture(mixture, scale, batch["label"]),
            mixtures,
            temperatures,
        )
        return found, batch["mask"]

    return of_batch


def kept(steps: Iterable[tuple[Any, jax.Array]]) -> Any:
    """Joins what is computed of batches, on the host and without padding.

    Args:
      steps: For each batch a pytree of f[..., B], and its mask bool[B].

    Returns:
      The pytree of f[..., n].

    Raises:
      ValueError: if there are no batches.
    """
    parts = []
    for values, mask in one_ahead(iter(steps)):
        mask = sharding.gather(mask)
        parts.append(jax.tree.map(lambda x, m=mask: x[..., m], sharding.gather(values)))
    if not parts:
        raise ValueError("there is nothing to evaluate: no batches")
    return jax.tree.map(lambda *x: np.concatenate(x, axis=-1), *parts)


def _disagreement(mixture: LogitMixture) -> jax.Array:
    """Minus the mutual information; NaN for a single prediction, which has none."""
    values = -mixture.mutual_information()
    return jnp.where(mixture.size > 1, values, jnp.nan)


def _scaled(logits: jax.Array, temperature: jax.Array | None) -> jax.Array:
    """The largest probability at a temperature; NaN where there is none."""
    if temperature is None:
        return jnp.full(logits.shape[:-1], jnp.nan, logits.dtype)
    return metrics.max_probability(metrics.scale_temperature(logits, temperature))


def _generalised_entropies(logits: jax.Array, gammas: Sequence[float]) -> jax.Array:
    """The generalised entropy at each exponent, f32[G, B]."""
    log_probs = jax.nn.log_softmax(logits)
    return jnp.stack(
        [metrics.generalised_entropy(log_probs, gamma=gamma) for gamma in gammas]
    )


# Functions of logits f32[B, K]; log-probabilities are logits of the same predictions.
_OF_LOGITS = {
    "msp": lambda logits: metrics.max_probability(jax.nn.log_softmax(logits)),
    "entropy": lambda logits: -metrics.entropy(jax.nn.softmax(logits)),
    "mls": metrics.max_logit,
    "energy": lambda logits: -metrics.energy(logits),
    "odin": metrics.odin,
}
