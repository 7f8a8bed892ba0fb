"""Conformal prediction sets: sets of classes that hold the right one as often as asked.

Contract of this file: `probs` are f[..., K], class probabilities. A score of a class is
high where the class does not fit; a set holds the classes whose score is at most a
threshold, which is found on held-out examples. Sets hold the right class with at least
the probability that was asked for, if held-out and tested examples are exchangeable.
"""

import math

import jax
import jax.numpy as jnp

from spatial_smoothing.lookup import lookup
from spatial_smoothing.metrics.inputs import Values, check_probs, clipped

COVERAGE = 0.9
_PENALTY = 0.01  # RAPS: added to the score for each rank ...
_FREE_RANKS = 5  # ... after these


def class_scores(probs: Values, *, method: str) -> jax.Array:
    """The score of every class.

    Args:
      probs: f[..., K].
      method: "lac", 1 - p (least ambiguous sets); "aps", the sum of the probabilities
        of the class and of all that are more probable, minus 1 (adaptive sets); or
        "raps", the same plus 0.01 for each rank after the fifth (regularised adaptive
        sets). Of equal probabilities the lower class goes first. Scores are not
        randomised.

    Returns:
      f[..., K], in at least float32. Source: Sadinle et al. 2019; Romano et al.,
      NeurIPS 2020; Angelopoulos et al., ICLR 2021.

    Raises:
      ValueError: for an unknown method, or rows that are no probabilities.
    """
    of_method = lookup(METHODS, method, "conformal method")
    check_probs(probs)
    return of_method(clipped(probs))


def conformal_threshold(scores: Values, *, coverage: float = COVERAGE) -> jax.Array:
    """The threshold of sets that hold the right class with a given probability.

    Args:
      scores: f[..., n], score of the right class of each held-out example.
      coverage: The probability, in (0, 1).

    Returns:
      f[...], the score of rank ceil((n + 1) coverage), lowest first; infinite where n
      is too small for the coverage, so that sets hold all classes. NaN gives NaN.
      Source: Vovk et al. 2005; Angelopoulos & Bates 2023, section 1.

    Raises:
      ValueError: if `coverage` lies outside (0, 1).
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must be in (0, 1), got {coverage}")
    scores = jnp.asarray(scores)
    count = scores.shape[-1]
    # 1e-9: (n + 1) 0.9 may be a little above the whole number that it stands for.
    rank = math.ceil((count + 1) * coverage - 1e-9)
    if rank > count:
        threshold = jnp.full(scores.shape[:-1], jnp.inf, scores.dtype)
    else:
        threshold = jnp.sort(scores, axis=-1)[..., rank - 1]
    return jnp.where(jnp.isnan(scores).any(-1), jnp.nan, threshold)


def conformal_sets(scores: Values, threshold: Values) -> jax.Array:
    """Which classes the sets hold.

    Args:
      scores: f[..., K], of `class_scores`.
      threshold: f[], of `conformal_threshold` for the same method.

    Returns:
      bool[..., K].
    """
    return jnp.asarray(scores) <= threshold


def _lac(probs: jax.Array) -> jax.Array:
    return 1 - probs


def _aps(probs: jax.Array) -> jax.Array:
    return _ranked(probs)[0]


def _raps(probs: jax.Array) -> jax.Array:
    masses, ranks = _ranked(probs)
    return masses + _PENALTY * jnp.maximum(ranks - _FREE_RANKS, 0)


def _ranked(probs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Minus the probability of all classes after each, and its rank from 1; f[..., K].

    The sum up to a class would round to 1 for all classes of a certain prediction. What
    comes after it is small there, and keeps its digits.
    """
    order = jnp.argsort(probs, axis=-1, descending=True, stable=True)
    ordered = jnp.take_along_axis(probs, order, axis=-1)
    from_here = jax.lax.cumsum(ordered, axis=ordered.ndim - 1, reverse=True)
    after = jnp.concatenate(
        [from_here[..., 1:], jnp.zeros_like(ordered[..., :1])], axis=-1
    )
    places = jnp.argsort(order, axis=-1)  # the inverse of the order
    return -jnp.take_along_axis(after, places, axis=-1), places + 1


METHODS = {"lac": _lac, "aps": _aps, "raps": _raps}
