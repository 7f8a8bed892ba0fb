"""Examples in order of a score, ties together, and sums over them.

Contract of this file: scores f[n], of at least one example; weights f[n] >= 0, how
often each example counts. A ranking depends on the scores alone, so that under a `vmap`
over weights it is computed once. Sums of whole weights are exact below 2^24.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

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
        """Sums of the first 0 to n ranks, f[..., n + 1], of values by example."""
        sums = jnp.cumsum(values[..., self.order], axis=-1)
        return jnp.pad(sums, [(0, 0)] * (sums.ndim - 1) + [(1, 0)])

    def before(self, prefixes: jax.Array) -> jax.Array:
        """Sums over the examples with a higher score than each rank's: f[..., n]."""
        return prefixes[..., self.first]

    def until(self, prefixes: jax.Array) -> jax.Array:
        """Sums over the examples with at least the score of each rank: f[..., n]."""
        return prefixes[..., self.last + 1]


def rank(scores: jax.Array) -> Ranking:
    """Ranks scores f[n]; what comes of NaN is for `nan_if_nan` to say."""
    scores = jnp.asarray(scores)
    order = jnp.argsort(scores, descending=True)
    ordered = scores[order]
    change = ordered[1:] != ordered[:-1]
    ranks, end = jnp.arange(len(scores)), len(scores) - 1
    first = jnp.where(jnp.pad(change, (1, 0)), ranks, 0)
    last = jnp.where(jnp.pad(change, (0, 1)), ranks, end)
    return Ranking(order, jax.lax.cummax(first), jax.lax.cummin(last, reverse=True))


def total(values: jax.Array) -> jax.Array:
    """Sums the last axis, block by block, which rounds less than one long sum.

    Args:
      values: f[..., n].

    Returns:
      f[...].
    """
    while values.shape[-1] != 1:
        padding = [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % _BLOCK)]
        blocks = jnp.pad(values, padding)
        values = blocks.reshape(*blocks.shape[:-1], -1, _BLOCK).sum(-1)
    return values[..., 0]


def ratio(part: jax.Array, whole: jax.Array, *, empty: float = 0.0) -> jax.Array:
    """`part / whole`, and `empty` where the whole is 0."""
    return jnp.where(whole == 0, empty, part / jnp.where(whole == 0, 1, whole))


def nan_if_nan(result: jax.Array, *inputs: jax.Array) -> jax.Array:
    """The result, NaN where an input holds NaN, which a comparison would hide."""
    for values in inputs:
        result = jnp.where(jnp.isnan(values).any(), jnp.nan, result)
    return result


def weights_of(scores: jax.Array, weights: jax.Array | None) -> jax.Array:
    """The weights, ones for None, in at least float32."""
    dtype = jnp.promote_types(scores.dtype, jnp.float32)
    if weights is None:
        return jnp.ones(scores.shape, dtype)
    return jnp.asarray(weights, dtype)
