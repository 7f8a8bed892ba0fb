"""The training loop: epochs of compiled chunks, with evaluation, logs, checkpoints.

Contract of this file: a run is a function of its arguments alone. `fit` called again
with the same checkpoints continues where the last one was saved and ends, on a CPU bit
by bit, where an uninterrupted run ends.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import numpy as np
import optax
from jax.sharding import Mesh

from spatial_smoothing import distributed, feeds, processes
from spatial_smoothing.checkpoints import Checkpoints, abstract
from spatial_smoothing.data.batches import num_batches
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.steps import (
    Prepare,
    Streams,
    TrainState,
    compile_steps,
    init_state,
    place_state,
    steps_made,
)

Record = dict[str, float]
_CHUNK_SECONDS = 1.0  # between two looks at the host: progress, interruption


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient became infinite or NaN."""


class Log:
    """What `fit` tells while it works; this one is silent."""

    def start(self, *, step: int, total: int, steps_per_epoch: int) -> None:
        """Called once, with the step at which training starts or continues."""

    def progress(self, step: int) -> None:
        """Called after every chunk of steps."""

    def epoch(self, record: Record) -> None:
        """Called at the end of every epoch."""

    def close(self) -> None:
        """Called last, also on errors."""


def fit(
    model: nn.Module,
    dataset: AnyDataset,
    *,
    prepare: Prepare,
    schedule: optax.Schedule,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int = 128,
    seed: int = 0,
    members: int = 1,
    mesh: Mesh | None = None,
    shard_state: bool = False,
    checkpoints: Checkpoints | None = None,
    checkpoint_every: int = 1,
    evaluate: Callable[[dict[str, Any]], Record] | None = None,
    eval_every: int = 1,
    log: Log | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Trains a network, or continues to.

    Args:
      model: The network.
      dataset: To train on; in memory, where it is put on every device, or encoded.
      prepare: Augments and normalises; see `steps`.
      schedule: Step -> learning rate, for the record.
      optimizer: An optax transformation.
      epochs: In all, warm-up included.
      batch_size: Examples a step and member, over all devices.
      seed: Of initial values, order, augmentation and dropout.
      members: Of a deep ensemble, trained at once; member m has the seed `seed + m`.
      mesh: Devices; None for all.
      shard_state: Whether to split parameters and optimiser state over the devices.
      checkpoints: Where to continue from and save to; None for neither.
      checkpoint_every: Epochs between saves; the end is always saved.
      evaluate: Variables -> scores, added to the record of an epoch.
      eval_every: Epochs between evaluations; the last epoch is always evaluated.
      log: Told of progress; None for silence.
      should_stop: Asked about once a second; where True, saves and returns early.

    Returns:
      The last state, stacked for several members; its `step` tells whether it is the
      end.

    Raises:
      NonFiniteLossError: naming the step. Earlier checkpoints are left as they are.
      ValueError: if the devices cannot divide a batch, or the examples do not fill one.
    """
    mesh, log = mesh or distributed.mesh(members=members), log or Log()
    steps_per_epoch = num_batches(dataset.num_examples, batch_size)
    total = epochs * steps_per_epoch
    distributed.check_batch_size(batch_size, mesh, axes=("data",))
    if batch_size > dataset.num_examples:
        raise ValueError(
            f"batch_size {batch_size} is more than the {dataset.num_examples} examples "
            "to train on; use a smaller one"
        )
    init = functools.partial(init_state, model, optimizer, dataset.image_shape)
    state = place_state(
        lambda: init(seed=seed, members=members), mesh, sharded=shard_state
    )
    state = _continued(state, checkpoints)
    feed = feeds.feed(
        dataset,
        order_keys=Streams.of(seed, members=members).order,
        seed=seed,
        total=total,
        batch_size=batch_size,
        mesh=mesh,
    )
    step, num_steps = steps_made(state), 1
    seconds = elapsed = 0.0
    log.start(step=step, total=total, steps_per_epoch=steps_per_epoch)
    try:
        advance = step < total and compile_steps(
            model,
            optimizer,
            state,
            feed,
            prepare=prepare,
            seed=seed,
            steps_per_epoch=steps_per_epoch,
            mesh=mesh,
        )
        while step < total:
            # Processes stop together, and make chunks of one length.
            stopping, elapsed = processes.largest(should_stop(), elapsed)
            if stopping:
                break
            if elapsed:
                num_steps = max(1, round(_CHUNK_SECONDS * num_steps / elapsed))
            stop = min(
                step + num_steps, (step // steps_per_epoch + 1) * steps_per_epoch
            )
            begin = time.perf_counter()
            state = advance(state, stop)
            _check_finite(state)
            elapsed = time.perf_counter() - begin
            seconds += elapsed
            num_steps, step = stop - step, stop
            log.progress(step)
            if step % steps_per_epoch == 0:
                epoch = step // steps_per_epoch
                record = _record(state, schedule, epoch, seconds)
                if evaluate and (epoch % eval_every == 0 or step == total):
                    record |= evaluate(state.variables)
                log.epoch(record)
                seconds = 0.0
                if epoch % checkpoint_every == 0:
                    _save(checkpoints, state)
        _save(checkpoints, state)
    finally:
        feed.close()
        log.close()
    return state


def _continued(state: TrainState, checkpoints: Checkpoints | None) -> TrainState:
    """Returns the newest saved state, or `state` where there is none."""
    if checkpoints is None:
        return state
    restored = checkpoints.restore(**_items(abstract(state)))
    if restored is None:
        return state
    rest = dict(restored.items["rest"])
    return state.replace(variables=restored.items["variables"], **rest)


def _items(state: TrainState) -> dict[str, Any]:
    """The parts of a checkpoint: what evaluation needs, and the rest."""
    rest = {"step": state.step, "opt_state": state.opt_state, "sums": state.sums}
    return {"variables": state.variables, "rest": rest}


def _save(checkpoints: Checkpoints | None, state: TrainState) -> None:
    if checkpoints is not None:
        step = steps_made(state)
        checkpoints.save(step, _items(state), {"step": step})


def _check_finite(state: TrainState) -> None:
    if not np.all(state.finite):
        raise NonFiniteLossError(
            f"loss or gradient is not finite at step {steps_made(state) - 1}; "
            "checkpoints before it are kept; lower learning_rate or use dtype float32"
        )


def _record(
    state: TrainState, schedule: optax.Schedule, epoch: int, seconds: float
) -> Record:
    count, loss, correct = (float(np.sum(value)) for value in state.sums)
    step = steps_made(state)
    return {
        "epoch": epoch,
        "step": step,
        "train_loss": loss / count,
        "train_accuracy": correct / count,
        "learning_rate": float(schedule(step - 1)),
        "images_per_second": count / seconds,
    }
