"""Random directions in the space of weights, normalised by the weights.

Contract of this file: a direction d is a pytree like the parameters p, drawn once and
added in multiples. Statistics of batch normalisation are no parameters and never move.

Source: Li et al., NeurIPS 2018, section 4.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from spatial_smoothing.lookup import lookup

Params = dict[str, Any]
Directions = tuple[Params, Params]

# Name -> axes of a kernel, whose last axis is that of the outputs, to take norms over.
NORMALIZATIONS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "filter": lambda rank: tuple(range(rank - 1)),
    "reference": lambda rank: (rank - 1,),
}
_EPSILON = 1e-7  # of the reference


def draw(
    key: jax.Array, params: Params, *, normalization: str = "filter"
) -> Directions:
    """Draws two normal random directions, each normalised; see `normalize`."""
    return tuple(
        normalize(_normal(key, params), params, normalization=normalization)
        for key in jax.random.split(key)
    )


def _normal(key: jax.Array, params: Params) -> Params:
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        jax.random.normal(key, leaf.shape, leaf.dtype)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, drawn)


def normalize(
    direction: Params, params: Params, *, normalization: str = "filter"
) -> Params:
    """Gives a direction the norms of the parameters: d |p| / (|d| + 1e-7).

    Args:
      direction: As `params`.
      params: Parameters; kernels have their outputs along the last axis.
      normalization: "filter", one norm for each output (Li et al.); or "reference", the
        paper's code: norms over the outputs, one for each input and position.

    Returns:
      As `params`; zero where a parameter has fewer than two axes (biases, scales).

    Raises:
      ValueError: for an unknown normalisation.
    """
    axes_of = lookup(NORMALIZATIONS, normalization, "normalization")

    def one(d: jax.Array, p: jax.Array) -> jax.Array:
        if p.ndim < 2:
            return jnp.zeros_like(p)
        norm = lambda x: jnp.sqrt(jnp.square(x).sum(axes_of(p.ndim), keepdims=True))
        return d * norm(p) / (norm(d) + _EPSILON)

    return jax.tree.map(one, direction, params)


def shift(params: Params, directions: Directions, a: jax.Array, b: jax.Array) -> Params:
    """Returns the parameters of a point, p + a d0 + b d1; a and b are scalars."""
    return jax.tree.map(lambda p, d0, d1: p + a * d0 + b * d1, params, *directions)


def norms(params: Params) -> dict[str, jax.Array]:
    """Sums over parameters: `l1` of |p|, `sqnorm` of p^2, `l2` of the leaves' norms.

    `l2` is what the reference adds to a loss for L2: neither squared nor halved.
    """
    leaves = jax.tree.leaves(params)
    squares = [jnp.square(leaf).sum() for leaf in leaves]
    return {
        "l1": sum(jnp.abs(leaf).sum() for leaf in leaves),
        "l2": sum(jnp.sqrt(square) for square in squares),
        "sqnorm": sum(squares),
    }
