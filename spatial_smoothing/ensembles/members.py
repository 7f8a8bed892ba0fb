"""Deep ensembles: networks of one kind that were trained from different seeds.

Contract of this file: the variables of M members are stacked along a new first axis of
every array.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from spatial_smoothing.ensembles.apply import Variables, as_apply


def deep_ensemble(
    model: Any,
    stacked_variables: Variables,
    images: jax.Array,
    *,
    key: jax.Array | None = None,
    apply_kwargs: Mapping[str, Any] | None = None,
) -> jax.Array:
    """Class probabilities of each member of a deep ensemble.

    Args:
      model: The network that all members share: a Linen module, an NNX module, or a
        function `(variables, images, key) -> logits`; see `as_apply`.
      stacked_variables: Variables of M members, stacked along a new first axis of every
        array; see `stack`.
      images: f[B, H, W, C], as the network takes them.
      key: Key of the dropout masks of one sample of each member; None for predictions
        without dropout.
      apply_kwargs: Further arguments of each call of a module.

    Returns:
      f32[M, B, ..., K]; the probabilities of a member sum to one over K. Where each
      network makes several predictions in a pass, M counts all predictions, network by
      network.

    Source: Lakshminarayanan et al., NeurIPS 2017.
    """
    network = as_apply(model, apply_kwargs=apply_kwargs)

    def member(variables: Variables, index: jax.Array) -> jax.Array:
        own_key = None if key is None else jax.random.fold_in(key, index)
        return network.apply(variables, images, own_key)

    logits = map_members(member, stacked_variables)
    # Networks may compute in fewer bits than a mean of probabilities takes.
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if network.has_members:
        logits = logits.reshape(-1, *logits.shape[2:])
    return jax.nn.softmax(logits)


def map_members(
    function: Callable[[Variables, jax.Array], Any], stacked: Variables
) -> Any:
    """Stacks the results of a function of each member.

    Members are looped over and not vectorised: a convolution with a kernel for each
    member would become a grouped one, which XLA runs more slowly.

    Args:
      function: `(variables, index) -> result`, of one member and its number.
      stacked: Stacked variables of M members.

    Returns:
      The results, stacked along a new first axis of size M.
    """
    count = num_members(stacked)
    return jax.lax.map(lambda args: function(*args), (stacked, jnp.arange(count)))


def num_members(stacked: Variables) -> int:
    """Returns M, the number of members whose variables are stacked."""
    return jax.tree.leaves(stacked)[0].shape[0]


def stack(variables: Sequence[Variables]) -> Variables:
    """Stacks the variables of M members along a new first axis of every array."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)


@jax.jit
def unstack(stacked: Variables) -> list[Variables]:
    """Returns the variables of each member, the reverse of `stack`."""
    return [
        jax.tree.map(lambda leaf, m=member: leaf[m], stacked)
        for member in range(num_members(stacked))
    ]
