"""The training step: a pure function of (state, batch), compiled in chunks of steps.

Contract of this file: the state, of `training.state`, is everything that changes. What
happens in a step is a pure function of (seed, step), so that a run that continues from
a checkpoint ends as the run that was never interrupted. Member m of a deep ensemble
trains as a single network with the seed `seed + m` does. Batches are those of
`data.batches`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding

from spatial_smoothing.data.augment import JointPreparation
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.forms import gradients
from spatial_smoothing.runtime import cpu, processes, sharding
from spatial_smoothing.training import freezing, objectives
from spatial_smoothing.training.input_pipeline import InputPipeline
from spatial_smoothing.training.losses import LossOutputs, training_loss
from spatial_smoothing.training.objectives import PLAIN, StepOptions
from spatial_smoothing.training.state import Streams, Sums, TrainState, steps_made

# The names under which other code knows the functions of `training.state`.
from spatial_smoothing.training.state import abstract_state as abstract_state
from spatial_smoothing.training.state import init_state as init_state
from spatial_smoothing.training.state import place_state as place_state
from spatial_smoothing.training.state import with_values as with_values

# `(key, images) -> images`, or a preparation of images and labels together.
Prepare = Callable[[jax.Array, jax.Array], jax.Array] | JointPreparation
Advance = Callable[..., TrainState]  # see `compile_steps`
_MemberStep = Callable[..., TrainState]  # see `_member_step`


def prepared(prepare: Prepare, key: jax.Array, batch: Batch) -> Batch:
    """Returns a batch as the network takes it, augmented and normalised.

    Args:
      prepare: What changes the images, or images and labels together.
      key: Key of the augmentation.
      batch: A batch with `image` u8[B, H, W, C].
    """
    if isinstance(prepare, JointPreparation):
        return prepare(key, batch)
    return {**batch, "image": prepare(key, batch["image"])}


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    dropout_key: jax.Array,
    frozen: Sequence[str] = (),
    options: StepOptions = PLAIN,
) -> TrainState:
    """Makes one step of one network.

    Args:
      state: The state before the step, without an axis of members.
      batch: The batch, as `training_loss` takes it.
      model: The network.
      optimizer: An optax transformation.
      dropout_key: PRNG key of the dropout masks of this step.
      frozen: Names of the parts that are not differentiated; the optimiser has to leave
        them as they are too, because weight decay would change them.
      options: How the step departs from the plain one.

    Returns:
      The state after the step.
    """

    # The gradient is with respect to the parameters alone. The statistics are an input
    # beside them, and come back updated.
    def loss_fn(params: Any) -> tuple[jax.Array, LossOutputs]:
        params = freezing.without_gradient(params, frozen)
        variables = {**state.variables, "params": params}
        return training_loss(
            model,
            variables,
            batch,
            dropout_key=dropout_key,
            frozen=frozen,
            options=options,
        )

    params = state.variables["params"]
    grads_of = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, outputs), grads = grads_of(params)
    grads = gradients.for_update(grads)
    changes, opt_state = optimizer.update(grads, state.opt_state, params)
    # The record of an epoch weights each example the same: batches count by their size.
    mask, labels = batch["mask"], batch["label"]
    count = mask.sum()
    correct = (mask & (outputs.logits.argmax(-1) == labels)).sum()
    of_batch = Sums(count, loss * count, correct)
    variables = {
        "params": optax.apply_updates(params, changes),
        "batch_stats": outputs.batch_stats,
    }
    average = state.average
    if average is not None:
        average = objectives.moving_average(
            average, variables, step=state.step, decay=options.ema
        )
    return TrainState(
        step=state.step + 1,
        variables=variables,
        average=average,
        opt_state=opt_state,
        sums=jax.tree.map(lambda s, x: s + x.astype(s.dtype), state.sums, of_batch),
        # The norm is infinite or NaN if any gradient is.
        finite=jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads)),
    )


class StepProgram(NamedTuple):
    """The function that is compiled to make steps, and what it is compiled for.

    Attributes:
      jitted: Function of `arguments` to the new state; it donates the first of them.
      arguments: The state, an int, `Streams`, and the inputs and arrays of the
        pipeline; of arrays their shapes, types and shardings are enough. The int is the
        step to stop at if the loop over steps is part of the function, and the number
        of a member in its group if it makes a single step.
      on_device: Whether the loop over steps is part of the function.
      members_per_group: Members that each group of devices trains in turn.
    """

    jitted: jax.stages.Wrapped
    arguments: tuple[Any, ...]
    on_device: bool
    members_per_group: int


def step_program(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    pipeline: InputPipeline,
    *,
    prepare: Prepare,
    seed: int,
    mesh: Mesh,
    on_device: bool | None = None,
    frozen: Sequence[str] = (),
    options: StepOptions = PLAIN,
) -> StepProgram:
    """Returns the function that training compiles, for devices that may not be here.

    Args:
      model: The network.
      optimizer: An optax transformation.
      state: First state, from `place_state` or `abstract_state`.
      pipeline: Where the batches come from; from `input_pipeline.create` or `abstract`.
      prepare: `prepare(key, images)` augments and normalises u8[B, H, W, C] to
        f32[B, H, W, C].
      seed: Seed of the run, in [0, 2**32).
      mesh: Devices. The axis `data` splits each batch, the axis `member` the members.
      on_device: Whether the loop over steps is part of the function; see
        `compile_steps`.
      frozen: Names of the parts of the network that keep their weights.
      options: How a step departs from the plain one.
    """
    if on_device is None:
        on_device = pipeline.resident and mesh.devices.flat[0].platform != "cpu"
    num_members = state.step.size  # 1 where the state has no axis of members
    # Each group of devices makes the step of its members one after the other.
    members_per_group = num_members // mesh.shape["member"]
    step = _member_step(
        model,
        optimizer,
        state,
        pipeline,
        prepare=prepare,
        mesh=mesh,
        frozen=tuple(frozen),
        options=options,
    )
    jitted = jax.jit(
        _many_steps(step, members_per_group) if on_device else step,
        donate_argnums=0,  # the new state takes the memory of the old one
        # The compiled function accepts its own result again, and no other shardings.
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, state),
    )
    streams = sharding.placed(
        jax.eval_shape(lambda: Streams.of(seed, members=num_members)),
        _stream_sharding(state, mesh),
    )
    # 0 stands for any int.
    arguments = (state, 0, streams, pipeline.inputs_struct, pipeline.shared_arrays)
    return StepProgram(jitted, arguments, on_device, members_per_group)


def compile_steps(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    pipeline: InputPipeline,
    *,
    prepare: Prepare,
    seed: int,
    mesh: Mesh,
    on_device: bool | None = None,
    frozen: Sequence[str] = (),
    options: StepOptions = PLAIN,
) -> Advance:
    """Compiles `advance(state, stop, should_stop)`, which makes steps.

    Args:
      model: The network.
      optimizer: An optax transformation.
      state: First state, from `place_state`; stacked where there are members.
      pipeline: Where the batches come from.
      prepare: `prepare(key, images)` augments and normalises u8[B, H, W, C] to
        f32[B, H, W, C].
      seed: Seed of the run, in [0, 2**32).
      mesh: Devices. The axis `data` splits each batch, the axis `member` the members.
      on_device: Whether the loop over steps is part of the compiled program. True
        saves a round trip through Python for each step. None chooses True, except on
        CPUs, where XLA runs gradients of convolutions 15 to 115 times more slowly
        inside a loop, and where batches come from the host.
      frozen: Names of the parts of the network that keep their weights.
      options: How a step departs from the plain one.

    Returns:
      `advance(state, stop, should_stop) -> state`. It makes steps until the state has
      made `stop`, an int within the epoch or at its end. It returns earlier after a
      step that is not finite, and before a step at which `should_stop()` is true, a
      question that only the loop on the host asks. It donates `state`: the arrays
      given to it cannot be used again. Results do not depend on how the steps of a run
      are divided into calls.
    """
    program = step_program(
        model,
        optimizer,
        state,
        pipeline,
        prepare=prepare,
        seed=seed,
        mesh=mesh,
        on_device=on_device,
        frozen=frozen,
        options=options,
    )
    # Keys are made on the devices that use them: each group has those of its members.
    streams = jax.jit(
        lambda: Streams.of(seed, members=state.step.size),
        out_shardings=_stream_sharding(state, mesh),
    )()
    compiled = cpu.compile_gradients(program.jitted, *program.arguments, mesh=mesh)
    if program.on_device:
        advance = _device_loop(compiled, pipeline, streams=streams)
    else:
        advance = _host_loop(
            compiled,
            pipeline,
            streams=streams,
            members_per_group=program.members_per_group,
        )
    # All processes have compiled when one of them opens the connections of a step.
    processes.barrier()
    return advance


def _member_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    pipeline: InputPipeline,
    *,
    prepare: Prepare,
    mesh: Mesh,
    frozen: tuple[str, ...],
    options: StepOptions,
) -> _MemberStep:
    """Returns a function, to be traced, that makes one step of one member a group.

    Returns:
      `(state, member_index, streams, member_inputs, shared_arrays) -> state`. Each
      group of devices makes one step of its member number `member_index`, i32[];
      without an axis of members there is only this one, and the index is not used.
    """

    def one_step(
        member: tuple[TrainState, Streams, Any], shared_arrays: Any
    ) -> TrainState:
        state, streams, member_inputs = member
        # The number of the step is in the state, on the device: what follows needs
        # nothing from the host.
        index = state.step % pipeline.steps_per_epoch
        batch = pipeline.batch(member_inputs, shared_arrays, index)
        # From here on, the compiler splits the batch over the devices of the group, and
        # adds up gradients and statistics where that is needed.
        batch = sharding.constrain(batch, mesh, "data")
        prepare_key = jax.random.fold_in(streams.prepare, state.step)
        dropout_key = jax.random.fold_in(streams.dropout, state.step)
        batch = prepared(prepare, prepare_key, batch)
        if options.mixup:
            mixup_key = jax.random.fold_in(streams.mixup, state.step)
            batch = objectives.mixed(mixup_key, batch, alpha=options.mixup)
        return train_step(
            state.replace(
                # Parameters that are split over `data` are gathered here, once a step.
                variables=sharding.constrain(state.variables, mesh),
                # The first step of an epoch begins its sums.
                sums=jax.tree.map(lambda x: jnp.where(index == 0, 0, x), state.sums),
            ),
            batch,
            model=model,
            optimizer=optimizer,
            dropout_key=dropout_key,
            frozen=frozen,
            options=options,
        )

    if state.step.ndim:
        step_of_members = sharding.for_members(one_step, mesh)
    else:

        def step_of_members(member_index, member, shared_arrays):
            return one_step(member, shared_arrays)

    # Flat arguments, of which the first one is donated.
    def step(
        state, member_index, streams: Streams, member_inputs, shared_arrays
    ) -> TrainState:
        member = (state, streams, member_inputs)
        return step_of_members(member_index, member, shared_arrays)

    return step


def _stream_sharding(state: TrainState, mesh: Mesh) -> NamedSharding:
    """Returns how the devices share the keys of the members."""
    return sharding.by_member(mesh) if state.step.ndim else sharding.replicated(mesh)


def _many_steps(step: _MemberStep, members_per_group: int) -> Callable[..., TrainState]:
    """Returns a function, to be traced, that makes many steps of all members.

    `stop` is an argument of the program, not a constant of it: chunks of any length run
    the same program, so that the division of a run into chunks cannot change a bit.

    Args:
      step: Makes a step of one member of each group; see `_member_step`.
      members_per_group: Members of each group, whose steps are made in turn.
    """

    def many_steps(
        state: TrainState, stop, streams, member_inputs, shared_arrays
    ) -> TrainState:
        def step_of_member(member_index: jax.Array, state: TrainState) -> TrainState:
            return step(state, member_index, streams, member_inputs, shared_arrays)

        # The body makes a step of all members; none follows one that is not finite.
        return jax.lax.while_loop(
            lambda state: (state.step < stop).all() & state.finite.all(),
            lambda state: jax.lax.fori_loop(
                0, members_per_group, step_of_member, state
            ),
            state,
        )

    return many_steps


def _device_loop(
    compiled: Callable[..., TrainState], pipeline: InputPipeline, *, streams: Streams
) -> Advance:
    """Returns `advance` of a program that makes many steps."""

    def advance(
        state: TrainState,
        stop: int,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> TrainState:
        # All steps up to `stop` are of one epoch, for which a resident data set has
        # the same inputs.
        inputs = pipeline.member_inputs(steps_made(state))
        return compiled(state, stop, streams, inputs, pipeline.shared_arrays)

    return advance


def _host_loop(
    compiled: Callable[..., TrainState],
    pipeline: InputPipeline,
    *,
    streams: Streams,
    members_per_group: int,
) -> Advance:
    """Returns `advance` as a loop in Python over a program that makes one step."""

    def advance(
        state: TrainState,
        stop: int,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> TrainState:
        first = steps_made(state)
        for number in range(first, stop):
            # The host fetches this batch while the devices compute the step before,
            # for which `state.finite` waits.
            inputs = pipeline.member_inputs(number)
            if not np.all(state.finite):
                break
            # The caller asked before the first step.
            if number > first and should_stop():
                break
            # Each call works on one member of every group. JAX queues the calls, and
            # does not wait for them here.
            for member_index in range(members_per_group):
                state = compiled(
                    state, member_index, streams, inputs, pipeline.shared_arrays
                )
        return state

    return advance
