"""The state of a training, made and placed, and the keys that belong to its seed.

Contract of this file: the state is everything that changes. The state of the M members
of a deep ensemble is the state of one network with a leading axis of M on every array.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from spatial_smoothing.runtime import random_bits, sharding

# What makes the key of mixup of the key of a seed; the others are numbers 0 to 4 of it.
_MIXUP = 0x6D69786D


class Sums(NamedTuple):
    """Sums over the examples of the epoch so far; of segmentation, over the pixels.

    Attributes:
      count: i32[] or i32[M], examples.
      loss: f32[] or f32[M], their cross-entropy in nats, times their weights.
      correct: i32[] or i32[M], examples whose most probable class is their label.
    """

    count: jax.Array
    loss: jax.Array
    correct: jax.Array


@flax.struct.dataclass
class TrainState:
    """All that changes in training; with M members, each array has a leading axis.

    Attributes:
      step: i32[], optimiser steps made.
      variables: Flax variables of the network, `{"params", "batch_stats"}`.
      opt_state: State of the optax optimiser.
      sums: Sums over the examples of the epoch so far.
      finite: bool[], whether all losses and gradients so far are finite. No step is
        made after the first one that is not.
      average: Exponential moving average of `variables`; None where there is none.
    """

    step: jax.Array
    variables: dict[str, Any]
    opt_state: optax.OptState
    sums: Sums
    finite: jax.Array
    average: dict[str, Any] | None = None

    @property
    def evaluated(self) -> dict[str, Any]:
        """The variables to evaluate: their average where there is one."""
        return self.variables if self.average is None else self.average


class Streams(NamedTuple):
    """Independent PRNG keys of one seed, one for each use; key[] or key[M]."""

    init: jax.Array
    order: jax.Array
    prepare: jax.Array
    dropout: jax.Array
    evaluate: jax.Array
    mixup: jax.Array

    @classmethod
    def of(cls, seed: int, *, members: int = 1) -> "Streams":
        """Splits the key of a seed.

        Args:
          seed: Seed in [0, 2**32).
          members: M. With several members, returns the keys of the seeds `seed` to
            `seed + M - 1`, stacked.

        Raises:
          ValueError: if a seed is out of range.
        """
        if members > 1:
            each = [cls.of(seed + member) for member in range(members)]
            return jax.tree.map(lambda *keys: jnp.stack(keys), *each)
        key = random_bits.key(seed)
        # Five keys as they always were: of more, these might be others.
        return cls(*jax.random.split(key, 5), mixup=jax.random.fold_in(key, _MIXUP))


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    shape: Sequence[int],
    *,
    seed: int,
    members: int = 1,
    averages: bool = False,
) -> TrainState:
    """Returns the state before the first step.

    Args:
      model: The network.
      optimizer: An optax transformation.
      shape: (H, W, C) of an image.
      seed: Seed of the run, in [0, 2**32).
      members: M, members of a deep ensemble; 1 for a single network.
      averages: Whether the state has a moving average of the variables.

    Returns:
      The state; of M > 1 members, stacked.
    """

    def init(key: jax.Array) -> TrainState:
        # Shapes of variables do not depend on the number of images: one is enough.
        variables = dict(model.init(key, jnp.zeros((1, *shape))))
        variables.setdefault("batch_stats", {})  # a network without normalisation
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            variables=variables,
            opt_state=optimizer.init(variables["params"]),
            # Counts are integers, which stay exact up to 2^31 examples; f32 does not
            # count beyond 2^24.
            sums=Sums(jnp.int32(0), jnp.float32(0), jnp.int32(0)),
            finite=jnp.ones((), bool),
            average=variables if averages else None,
        )

    keys = Streams.of(seed, members=members).init
    return jax.vmap(init)(keys) if members > 1 else init(keys)


def place_state(
    init: Callable[[], TrainState], mesh: Mesh, *, sharded: bool = False
) -> TrainState:
    """Computes the first state directly on the devices that are to hold it.

    Args:
      init: Function that returns the first state, stacked where there are members.
      mesh: Devices. Members are split over the axis `member`.
      sharded: Whether large parameters and their optimiser state are split over the
        axis `data` too, in place of replicated. This takes less memory and more
        communication; results agree to rounding.
    """
    # Shardings are decided from shapes, so that no device ever holds the whole state.
    placed = abstract_state(init, mesh, sharded=sharded)
    out_shardings = jax.tree.map(lambda leaf: leaf.sharding, placed)
    return jax.jit(init, out_shardings=out_shardings)()


def abstract_state(
    init: Callable[[], TrainState], mesh: Mesh, *, sharded: bool = False
) -> TrainState:
    """Returns shapes, types and shardings of the state that `place_state` returns.

    Args:
      init: Function that returns the first state, stacked where there are members. It
        is traced, and computes nothing.
      mesh: Devices, which need not be here.
      sharded: Whether large parameters and their optimiser state are split over the
        axis `data` too, in place of replicated.

    Returns:
      A state of `jax.ShapeDtypeStruct`.
    """
    shapes = jax.eval_shape(init)

    def shardings(tree: Any) -> Any:
        return sharding.state_shardings(
            tree, mesh, stacked=shapes.step.ndim > 0, sharded=sharded
        )

    # Counters and sums are small, and the host reads them after every chunk of steps:
    # every device has all of them.
    everywhere = jax.tree.map(lambda _: sharding.replicated(mesh), shapes)
    places = everywhere.replace(
        variables=shardings(shapes.variables), opt_state=shardings(shapes.opt_state)
    )
    if shapes.average is not None:
        places = places.replace(average=shardings(shapes.average))
    return sharding.placed(shapes, places)


def with_values(
    variables: dict[str, Any], values: Mapping[tuple[str, ...], np.ndarray]
) -> dict[str, Any]:
    """Returns variables with some values in place of those that were drawn.

    Args:
      variables: Variables on the devices; stacked where there are members.
      values: Path of a variable -> its new value, of its shape. A value without the
        axis of members is that of all members.

    Raises:
      ValueError: There is no such variable, or it has another shape.
    """
    leaves = flax.traverse_util.flatten_dict(variables, keep_empty_nodes=True)
    for path, value in values.items():
        name = "/".join(path)
        if path not in leaves:
            raise ValueError(f"the network has no variable {name} to start from")
        leaf = leaves[path]
        if leaf.shape not in (value.shape, (*leaf.shape[:1], *value.shape)):
            raise ValueError(f"{name} has the shape {leaf.shape}, not {value.shape}")
        whole = np.broadcast_to(np.asarray(value, leaf.dtype), leaf.shape)
        # Each process gives its devices the part of the array that they hold.
        leaves[path] = jax.make_array_from_callback(
            leaf.shape, leaf.sharding, lambda index, whole=whole: whole[index]
        )
    return flax.traverse_util.unflatten_dict(leaves)


def steps_made(state: TrainState) -> int:
    """Returns the number of steps that all members have made; waits for the devices."""
    return int(np.min(sharding.gather(state.step)))
