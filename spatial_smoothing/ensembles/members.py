"""Deep ensembles: networks of one kind that were trained from different seeds.

Contract of this file: `images` are f32[B, H, W, 3], normalised; the variables of M
members are stacked along a new first axis of every array.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spatial_smoothing.runtime import random_bits

Variables = Mapping[str, Any]


def deep_ensemble(
    model: nn.Module,
    stacked_variables: Variables,
    images: jax.Array,
    *,
    key: jax.Array | None = None,
) -> jax.Array:
    """Class probabilities of each member of a deep ensemble.

    Args:
      model: The network that all members share.
      stacked_variables: Variables with a leading axis of M members; see `stack`.
      images: f32[B, H, W, 3].
      key: Key of one dropout sample of each member; None for the mean networks.

    Returns:
      f32[M, B, K]. Source: Lakshminarayanan et al., NeurIPS 2017.
    """

    def member(variables: Variables, index: jax.Array) -> jax.Array:
        rngs = {}
        if key is not None:
            rngs["dropout"] = random_bits.fused(jax.random.fold_in(key, index))
        return model.apply(variables, images, train=False, rngs=rngs)

    return jax.nn.softmax(map_members(member, stacked_variables))


def map_members(function: Callable[[Variables, jax.Array], Any], stacked: Variables):
    """Stacks `function(variables, index)` of all members.

    Members are looped over, not vectorised: a convolution with a kernel for each member
    would become a grouped one, which XLA runs more slowly.
    """
    count = jax.tree.leaves(stacked)[0].shape[0]
    return jax.lax.map(lambda args: function(*args), (stacked, jnp.arange(count)))


def stack(variables: Sequence[Variables]) -> Variables:
    """Stacks the variables of members along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)


@jax.jit
def unstack(stacked: Variables) -> list[Variables]:
    """Returns the variables of each member."""
    count = jax.tree.leaves(stacked)[0].shape[0]
    return [jax.tree.map(lambda leaf, m=m: leaf[m], stacked) for m in range(count)]
