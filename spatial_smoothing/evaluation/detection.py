"""Out-of-distribution (OOD) detection: how well a confidence tells sets of images.

Contract of this file: confidences are f[n] on the host, high for what is in
distribution. OOD images are the positive class. A set is near or far; the score of all
near sets is their unweighted mean.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import metrics

DISTANCES = ("near", "far")
_POINTS = 101  # of a ROC curve
_BINS = 40  # of a histogram


class Detected(NamedTuple):
    """Scores of one confidence.

    Attributes:
      scores: Name of a score -> its value: those of `metrics.ood`, and `scod`.
      intervals: Name of a score -> [low, high], 95 %; {} without a bootstrap.
    """

    scores: dict[str, float]
    intervals: dict[str, list[float]]


def detect(
    key: jax.Array,
    inside: np.ndarray,
    wrong: np.ndarray,
    outside: Sequence[np.ndarray],
    *,
    distances: Sequence[str],
    num_replicates: int = 1000,
) -> tuple[list[Detected], dict[str, Detected]]:
    """Scores a confidence on several sets of OOD images.

    Args:
      key: Key of the bootstrap. All sets are resampled apart, and the images in
        distribution are the same in a replicate for all OOD sets.
      inside: f[n], confidences of images in distribution.
      wrong: f[n], 1 where their prediction is wrong, else 0.
      outside: Confidences of each set of OOD images, f[m] each.
      distances: For each set "near" or "far".
      num_replicates: Number of replicates of the bootstrap; 0 for no intervals.

    Returns:
      The scores on each set, and the means over near and over far sets, as far as there
      are any. A score is NaN where a confidence is.
    """
    values, ends = jax.device_get(
        _detect(
            key,
            inside,
            wrong,
            tuple(outside),
            distances=tuple(distances),
            num_replicates=num_replicates,
        )
    )

    def detected(name: str) -> Detected:
        found = {score: float(value) for score, value in values[name].items()}
        intervals = ends.get(name, {})
        return Detected(found, {k: end.tolist() for k, end in intervals.items()})

    singles = [detected(str(index)) for index in range(len(outside))]
    return singles, {name: detected(name) for name in DISTANCES if name in values}


@functools.partial(jax.jit, static_argnames=("distances", "num_replicates"))
def _detect(key, inside, wrong, outside, *, distances, num_replicates):
    """Scores by number of the set and by distance, and their intervals."""

    def scores(weights: list[jax.Array]) -> dict[str, dict[str, jax.Array]]:
        found = {}
        for index, values in enumerate(outside):
            both = jnp.concatenate([weights[0], weights[index + 1]])
            scod = metrics.scod(inside, wrong, values, both)
            found[str(index)] = {**metrics.ood(-inside, -values, both), "scod": scod}
        for distance in DISTANCES:
            group = [found[str(i)] for i, d in enumerate(distances) if d == distance]
            if group:
                mean = lambda *each: jnp.stack(each).mean()
                found[distance] = jax.tree.map(mean, *group)
        return found

    def replicate(number: jax.Array) -> dict[str, dict[str, jax.Array]]:
        sizes = [len(values) for values in (inside, *outside)]
        keys = jax.random.split(jax.random.fold_in(key, number), len(sizes))
        drawn = [metrics.resample(*pair) for pair in zip(keys, sizes, strict=True)]
        # Number 0 is the sets themselves: one program for both halves the compilation.
        return scores([jnp.where(number == 0, 1, weights) for weights in drawn])

    numbers = jnp.arange(1 + num_replicates)
    found = jax.lax.map(replicate, numbers, batch_size=min(50, len(numbers)))
    values = jax.tree.map(lambda each: each[0], found)
    if not num_replicates:
        return values, {}
    return values, metrics.interval(jax.tree.map(lambda each: each[1:], found))


def best_choice(inside: np.ndarray, outside: np.ndarray) -> int:
    """The choice of a constant by which a confidence tells two sets best.

    Args:
      inside: f[G, n], confidences of images in distribution for each choice.
      outside: f[G, m], those of OOD images; none of the images is tested.

    Returns:
      The number of the choice with the highest AUROC, the first of equal ones.
    """
    found = [
        float(_auroc(-one, -other)) for one, other in zip(inside, outside, strict=True)
    ]
    # NaN compares as less than anything: it is not the best choice.
    return int(np.argmax(np.nan_to_num(found, nan=-1.0)))


@jax.jit
def _auroc(inside: jax.Array, outside: jax.Array) -> jax.Array:
    return metrics.ood(inside, outside)["auroc"]


def curves(inside: np.ndarray, outside: np.ndarray) -> Mapping[str, Any]:
    """What figures draw of one confidence and one set of OOD images.

    Args:
      inside: f[n], confidences of images in distribution.
      outside: f[m], those of OOD images.

    Returns:
      `roc`, f32[101], the share of OOD images that is found where 0, 1, ..., 100 % of
      the others are taken for OOD; and `histogram`, f32[3, 40], centres of bins of
      equal width, and the share of either set in each. {} where a confidence is not
      finite.
    """
    both = np.concatenate([inside, outside])
    if not np.isfinite(both).all():
        return {}
    thresholds = np.unique(both)
    # Share of each set with at most the confidence of each threshold.
    false, true = (
        np.searchsorted(np.sort(values), thresholds, side="right") / len(values)
        for values in (inside, outside)
    )
    rates = np.linspace(0, 1, _POINTS)
    roc = np.interp(rates, np.append(0, false), np.append(0, true))
    edges = np.linspace(thresholds[0], thresholds[-1], _BINS + 1)
    if edges[0] == edges[-1]:  # all confidences are alike
        edges = edges[0] + np.linspace(-0.5, 0.5, _BINS + 1)
    shares = [np.histogram(x, edges)[0] / len(x) for x in (inside, outside)]
    histogram = np.stack([(edges[1:] + edges[:-1]) / 2, *shares])
    return {"roc": np.float32(roc), "histogram": np.float32(histogram)}
