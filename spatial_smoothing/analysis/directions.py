"""Random directions in the space of weights, normalised by the weights.

Contract of this file: a direction d is a pytree with the structure and the shapes of
the parameters p. It is drawn once, and multiples of it are added to p. The running
statistics of batch normalisation are not parameters, so that they never move.

Source: Li et al., NeurIPS 2018, section 4; Park & Kim, ICML 2022, section 3.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from spatial_smoothing.lookup import lookup

Params = dict[str, Any]
Directions = tuple[Params, Params]


def _all_but_outputs(rank: int) -> tuple[int, ...]:
    """Axes of one output filter: all but the last, which is that of the outputs."""
    return tuple(range(rank - 1))


def _outputs(rank: int) -> tuple[int, ...]:
    """The axis of the outputs, which is the last one of a kernel."""
    return (rank - 1,)


# Name -> function from the rank of a kernel to the axes that a norm is taken over.
NORMALIZATIONS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "filter": _all_but_outputs,
    "reference": _outputs,
}
_EPSILON = 1e-7  # the reference adds it to the norm of a direction


def draw(
    key: jax.Array, params: Params, *, normalization: str = "filter"
) -> Directions:
    """Draws two normal random directions, and normalises each.

    Args:
      key: PRNG key of the two directions.
      params: Parameters of the network, a pytree of float arrays.
      normalization: "filter" or "reference"; `normalize` says what they are.

    Returns:
      Two pytrees with the structure, shapes and dtypes of `params`.

    Raises:
      ValueError: for an unknown normalisation.

    Source: Li et al., NeurIPS 2018, section 4.
    """
    first_key, second_key = jax.random.split(key)
    return (
        normalize(_normal(first_key, params), params, normalization=normalization),
        normalize(_normal(second_key, params), params, normalization=normalization),
    )


def _normal(key: jax.Array, params: Params) -> Params:
    """Draws a standard normal number for every parameter, in its dtype."""
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

    A network with ReLU and batch normalisation does not change when a filter is scaled,
    so that the length of a step means nothing by itself. Relative to the norm of the
    filter it does, and landscapes of different networks can be compared.

    Args:
      direction: Pytree with the structure and shapes of `params`.
      params: Parameters of the network, a pytree of float arrays; kernels have their
        outputs along the last axis.
      normalization: "filter" takes one norm for each output filter (Li et al.).
        "reference" takes norms over the outputs, one for each input and position, as
        the paper's code does.

    Returns:
      A pytree with the structure, shapes and dtypes of `params`. It is zero where a
      parameter has fewer than two axes: biases and scales do not move.

    Raises:
      ValueError: for an unknown normalisation.

    Source: Li et al., NeurIPS 2018, section 4.
    """
    axes_of = lookup(NORMALIZATIONS, normalization, "normalization")

    def norm(array: jax.Array) -> jax.Array:
        squares = jnp.square(_wide(array))
        return jnp.sqrt(squares.sum(axes_of(array.ndim), keepdims=True))

    def of_parameter(d: jax.Array, p: jax.Array) -> jax.Array:
        if p.ndim < 2:
            return jnp.zeros_like(p)
        return (_wide(d) * norm(p) / (norm(d) + _EPSILON)).astype(p.dtype)

    return jax.tree.map(of_parameter, direction, params)


def shift(params: Params, directions: Directions, a: jax.Array, b: jax.Array) -> Params:
    """Returns the parameters of a point, p + a d0 + b d1.

    Args:
      params: Parameters p at the point (0, 0), a pytree.
      directions: Two pytrees d0 and d1 with the structure and shapes of `params`.
      a: f[], the coordinate along d0; 1 is the norm of the weights.
      b: f[], the coordinate along d1; 1 is the norm of the weights.
    """
    return jax.tree.map(lambda p, d0, d1: p + a * d0 + b * d1, params, *directions)


def norms(params: Params) -> dict[str, jax.Array]:
    """Returns three norms of all parameters together.

    Args:
      params: Parameters, a pytree of float arrays.

    Returns:
      `l1`, the sum of |p|; `sqnorm`, the sum of p^2; and `l2`, the sum over arrays of
      the norm of each, which is what the reference adds to a loss for L2: neither
      squared nor halved. Each is f[], at least float32.
    """
    leaves = [_wide(leaf) for leaf in jax.tree.leaves(params)]
    squares = [jnp.square(leaf).sum() for leaf in leaves]
    return {
        "l1": sum(jnp.abs(leaf).sum() for leaf in leaves),
        "l2": sum(jnp.sqrt(square) for square in squares),
        "sqnorm": sum(squares),
    }


def _wide(array: jax.Array) -> jax.Array:
    """Returns an array in float32 or wider, so that sums over it do not lose digits."""
    return jnp.asarray(array, jnp.promote_types(array.dtype, jnp.float32))
