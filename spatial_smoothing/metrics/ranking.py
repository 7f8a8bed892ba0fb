"""Examples in order of a score, ties together, and sums over them.

Contract of this file: scores are [n], of at least one example; weights are f[n], at
least 0, how often each example counts. A ranking depends on the scores alone, so that
under a `vmap` over weights it is computed once. Sums of whole weights are exact below
2^24, and rounded to float32 above.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.metrics import formulas
from spatial_smoothing.metrics.inputs import Values, accumulator, type_of, widened

_BLOCK = 32


class Ranking(NamedTuple):
    """Examples from the highest score to the lowest.

    Attributes:
      order: i32[n], the example of each rank.
      first: i32[n], the first rank with the score of this one.
      last: i32[n], the last rank with the score of this one.
    """

    order: jax.Array
    first: jax.Array
    last: jax.Array

    def prefixes(self, values: jax.Array) -> jax.Array:
        """Sums over the first ranks.

        Args:
          values: f[..., n], by example.

        Returns:
          f[..., n + 1], the sums over the first 0 to n ranks.
        """
        sums = jnp.cumsum(values[..., self.order], axis=-1)
        return jnp.pad(sums, [(0, 0)] * (sums.ndim - 1) + [(1, 0)])

    def before(self, prefixes: jax.Array) -> jax.Array:
        """Sums over the examples with a higher score than each rank's: f[..., n]."""
        return prefixes[..., self.first]

    def until(self, prefixes: jax.Array) -> jax.Array:
        """Sums over the examples with at least the score of each rank: f[..., n]."""
        return prefixes[..., self.last + 1]

    def reversed(self) -> "Ranking":
        """The ranking from the lowest score to the highest."""
        end = len(self.order) - 1
        return Ranking(self.order[::-1], end - self.last[::-1], end - self.first[::-1])


def rank(scores: jax.Array) -> Ranking:
    """Ranks scores, the highest first.

    Args:
      scores: [n] of any type that JAX sorts; see `sortable`. What comes of NaN is for
        `nan_if_nan` to say.

    Returns:
      The ranking.
    """
    order = jnp.argsort(scores, descending=True)
    ordered = scores[order]
    change = ordered[1:] != ordered[:-1]
    ranks, end = jnp.arange(len(scores)), len(scores) - 1
    # The first rank of a score is the last rank so far at which the score changed.
    first = jnp.where(jnp.pad(change, (1, 0)), ranks, 0)
    last = jnp.where(jnp.pad(change, (0, 1)), ranks, end)
    return Ranking(order, jax.lax.cummax(first), jax.lax.cummin(last, reverse=True))


def sortable(scores: Values) -> jax.Array:
    """Scores as a JAX array that sorts as they do.

    Without x64, JAX rounds 64-bit numbers to 32 bits, where confidences near 1 become
    equal and large integers wrap. Of these the result is the number of distinct scores
    below each.

    Args:
      scores: [n], of any real type.

    Returns:
      [n], in the type of `scores`; i32 for 64-bit numbers that JAX has no type for.
    """
    if isinstance(scores, jax.Array):
        return scores
    scores = np.asarray(scores)
    is_wide = scores.dtype.itemsize == 8 and not jax.config.jax_enable_x64
    if is_wide and not np.isnan(scores).any():
        scores = np.unique(scores, return_inverse=True)[1].astype(np.int32)
    return jnp.asarray(scores)


def joined(first: Values, second: Values) -> jax.Array:
    """Two sets of scores as one that sorts as they do.

    Args:
      first: [n], of any real type.
      second: [m], of any real type.

    Returns:
      [n + m].
    """
    both = (first, second)
    if any(isinstance(values, jax.core.Tracer) for values in both):
        both = [jnp.asarray(values) for values in both]
        if both[0].dtype != both[1].dtype:
            both = [widened(values) for values in both]
        return jnp.concatenate(both)
    # NumPy has a type for both, of 64 bits where they need it.
    return sortable(np.concatenate([np.asarray(values) for values in both]))


def total(values: jax.Array) -> jax.Array:
    """Sums the last axis, block by block, which rounds less than one long sum.

    Args:
      values: f[..., n].

    Returns:
      f[...].
    """
    while values.shape[-1] > 1:
        padding = [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % _BLOCK)]
        blocks = jnp.pad(values, padding)
        values = blocks.reshape(*blocks.shape[:-1], -1, _BLOCK).sum(-1)
    return values.sum(-1)


def ratio(part: jax.Array, whole: jax.Array, *, empty: float = 0.0) -> jax.Array:
    """`formulas.ratio` for JAX arrays.

    Args:
      part: f[...].
      whole: f[...], of a shape that broadcasts with `part`.
      empty: Value where `whole` is 0.

    Returns:
      f[...].
    """
    return formulas.ratio(part, whole, xp=jnp, empty=empty)


def nan_if_nan(result: jax.Array, *inputs: jax.Array) -> jax.Array:
    """The result, NaN where an input holds NaN, which a comparison would hide.

    Args:
      result: f[...].
      *inputs: Arrays of any shapes.

    Returns:
      f[...], of the shape of `result`.
    """
    for values in inputs:
        result = jnp.where(jnp.isnan(values).any(), jnp.nan, result)
    return result


def weights_of(scores: jax.Array, weights: Values | None) -> jax.Array:
    """The weights in at least float32, and in the type of wider scores.

    Args:
      scores: [n], of which the shape and the type are read.
      weights: f[n]; None for ones.

    Returns:
      f[n].
    """
    dtype = accumulator(type_of(scores))
    if weights is None:
        return jnp.ones(np.shape(scores), dtype)
    return jnp.asarray(weights).astype(dtype)
