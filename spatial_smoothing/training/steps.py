"""The training step: a pure function of (state, batch), compiled in chunks of steps.

Contract of this file: the state is everything that changes; what happens in a step is
a pure function of (seed, step), so that a run that continues from a checkpoint is the
run that was never interrupted. The state of M members of a deep ensemble is that of one
with a leading axis of M everywhere; member m is what the seed plus m makes alone.
Batches are those of `data.batches`; `prepare(key, images)` augments and normalises
u8[B, H, W, C] to f32[B, H, W, C] inside the step.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from spatial_smoothing.data.batches import Batch
from spatial_smoothing.runtime import cpu, processes, random_bits, sharding
from spatial_smoothing.training.feeds import Feed

Prepare = Callable[[jax.Array, jax.Array], jax.Array]
Advance = Callable[..., "TrainState"]  # see `compile_steps`


class Sums(NamedTuple):
    """Sums over the examples of the epoch so far."""

    count: jax.Array
    loss: jax.Array
    correct: jax.Array


@flax.struct.dataclass
class TrainState:
    """All that changes in training.

    Attributes:
      step: i32, optimiser steps made.
      variables: `{"params", "batch_stats"}`.
      opt_state: Of the optax optimiser.
      sums: Of the epoch so far.
      finite: Whether every loss and gradient up to here was; the step after a False one
        is never made.
    """

    step: jax.Array
    variables: dict[str, Any]
    opt_state: optax.OptState
    sums: Sums
    finite: jax.Array


class Streams(NamedTuple):
    """Independent keys of one seed, one for each consumer."""

    init: jax.Array
    order: jax.Array
    prepare: jax.Array
    dropout: jax.Array
    evaluate: jax.Array

    @classmethod
    def of(cls, seed: int, *, members: int = 1) -> "Streams":
        """Splits the key of `seed` once; for several members, stacks theirs."""
        if members > 1:
            each = [cls.of(seed + member) for member in range(members)]
            return jax.tree.map(lambda *keys: jnp.stack(keys), *each)
        return cls(*jax.random.split(jax.random.key(seed), len(cls._fields)))


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    shape: Sequence[int],
    *,
    seed: int,
    members: int = 1,
) -> TrainState:
    """Returns the state before the first step.

    Args:
      model: The network.
      optimizer: An optax transformation.
      shape: H, W, C of an image.
      seed: Of the run.
      members: If more than one, stacks their states.
    """

    def init(key: jax.Array) -> TrainState:
        variables = dict(model.init(key, jnp.zeros((1, *shape))))
        variables.setdefault("batch_stats", {})
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            variables=variables,
            opt_state=optimizer.init(variables["params"]),
            sums=_no_sums(),
            finite=jnp.ones((), bool),
        )

    keys = Streams.of(seed, members=members).init
    return jax.vmap(init)(keys) if members > 1 else init(keys)


def place_state(
    init: Callable[[], TrainState], mesh: Mesh, *, sharded: bool = False
) -> TrainState:
    """Computes a first state where it is to lie.

    Args:
      init: Returns it; for the state of members, stacked.
      mesh: Devices. Members are split over them, the rest is replicated.
      sharded: Whether parameters and optimiser state are split too, in place of
        replicated: less memory for more communication, and the same results.
    """
    shapes = jax.eval_shape(init)
    everywhere = jax.tree.map(lambda _: sharding.replicated(mesh), shapes)
    options = {"stacked": shapes.step.ndim > 0, "sharded": sharded}
    lie = functools.partial(sharding.state_shardings, mesh=mesh, **options)
    shardings = everywhere.replace(
        variables=lie(shapes.variables), opt_state=lie(shapes.opt_state)
    )
    return jax.jit(init, out_shardings=shardings)()


def steps_made(state: TrainState) -> int:
    """Returns the number of steps that all members have made."""
    return int(np.min(sharding.gather(state.step)))


def _no_sums() -> Sums:
    return Sums(*(jnp.zeros((), jnp.float32) for _ in Sums._fields))


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    dropout_key: jax.Array,
) -> TrainState:
    """Makes one step on the mean cross-entropy of the examples in the mask.

    Args:
      state: Before the step.
      batch: `image` f32[B, H, W, 3] normalised, `label` i32[B], `mask` bool[B].
      model: The network.
      optimizer: An optax transformation.
      dropout_key: Key of this step's dropout.

    Returns:
      The state after the step.
    """
    mask, labels = batch["mask"], batch["label"]
    count = mask.sum()

    def loss_fn(params):
        logits, updates = model.apply(
            {**state.variables, "params": params},
            batch["image"],
            train=True,
            mask=mask,
            rngs={"dropout": random_bits.fused(dropout_key)},
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.where(mask, losses, 0).sum() / count, (logits, updates)

    params = state.variables["params"]
    grads_of = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, (logits, updates)), grads = grads_of(params)
    changes, opt_state = optimizer.update(grads, state.opt_state, params)
    correct = (mask & (logits.argmax(-1) == labels)).sum()
    seen = Sums(count, loss * count, correct)
    return TrainState(
        step=state.step + 1,
        variables={
            "params": optax.apply_updates(params, changes),
            "batch_stats": updates.get("batch_stats", {}),
        },
        opt_state=opt_state,
        sums=jax.tree.map(lambda s, x: s + x.astype(s.dtype), state.sums, seen),
        finite=jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads)),
    )


def compile_steps(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    feed: Feed,
    *,
    prepare: Prepare,
    seed: int,
    steps_per_epoch: int,
    mesh: Mesh,
    on_device: bool | None = None,
) -> Advance:
    """Compiles `advance(state, stop, should_stop)`, which makes the steps up to `stop`.

    Where the loop over steps is not compiled too, it ends before the step at which
    `should_stop()` is true. All steps lie within one epoch; one that is not finite, for
    any member, is the last. Their number is no part of what is compiled, so that
    results do not depend on how a run is cut. The state is donated.

    Args:
      model: The network.
      optimizer: An optax transformation.
      state: The first state, of `place_state`; of members if it is stacked.
      feed: Where batches come from; the axis `data` divides them.
      prepare: Augments and normalises.
      seed: Of the run.
      steps_per_epoch: Batches of an epoch.
      mesh: Where batches are split.
      on_device: Whether the loop over steps is compiled too, which keeps Python off the
        path between them; None for yes, except on CPUs, where XLA runs the gradients
        of convolutions some 15 to 115 times slower inside a loop, and where batches
        come from the host.
    """
    if on_device is None:
        on_device = feed.resident and mesh.devices.flat[0].platform != "cpu"

    def one(of_member: tuple[TrainState, Streams, Any], shared) -> TrainState:
        state, streams, own = of_member
        index = state.step % steps_per_epoch
        batch = sharding.constrain(feed.take(own, shared, index), mesh, "data")
        key = jax.random.fold_in(streams.prepare, state.step)
        return train_step(
            state.replace(
                # Sharded parameters are gathered here.
                variables=sharding.constrain(state.variables, mesh),
                sums=jax.tree.map(lambda x: jnp.where(index == 0, 0, x), state.sums),
            ),
            {**batch, "image": prepare(key, batch["image"])},
            model=model,
            optimizer=optimizer,
            dropout_key=jax.random.fold_in(streams.dropout, state.step),
        )

    members = state.step.size  # of which each group of devices treats its own
    turns = members // mesh.shape["member"]
    if state.step.ndim:
        each = sharding.for_members(one, mesh)
    else:
        each = lambda turn, of_member, shared: one(of_member, shared)

    def turn(state: TrainState, number, streams, own, shared) -> TrainState:
        return each(number, (state, streams, own), shared)

    lies = jax.tree.map(lambda leaf: leaf.sharding, state)
    lie = sharding.by_member if state.step.ndim else sharding.replicated
    streams = jax.jit(
        lambda: Streams.of(seed, members=members), out_shardings=lie(mesh)
    )()
    function = _looped(turn, turns) if on_device else turn
    compiled = cpu.compile_gradients(
        jax.jit(function, donate_argnums=0, out_shardings=lies),
        *(state, 0, streams, feed.struct, feed.shared),
        mesh=mesh,
    )
    processes.largest(0)  # all have compiled, and now make their connections

    def advance(
        state: TrainState,
        stop: int,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> TrainState:
        start = steps_made(state)
        if on_device:
            return compiled(state, stop, streams, feed.own(start), feed.shared)
        for step in range(start, stop):
            own = feed.own(step)  # while the step before is computed
            if not np.all(state.finite) or (step > start and should_stop()):
                break
            for number in range(turns):
                state = compiled(state, number, streams, own, feed.shared)
        return state

    return advance


def _looped(turn: Advance, turns: int) -> Advance:
    """Returns a function that takes all turns of each step up to `stop`."""

    def many(state: TrainState, stop, streams, own, shared) -> TrainState:
        one = lambda number, state: turn(state, number, streams, own, shared)
        return jax.lax.while_loop(
            lambda state: (state.step < stop).all() & state.finite.all(),
            lambda state: jax.lax.fori_loop(0, turns, one, state),
            state,
        )

    return many
