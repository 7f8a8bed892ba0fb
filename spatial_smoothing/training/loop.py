"""The training loop: epochs of compiled chunks, with evaluation, logs, checkpoints.

Contract of this file: a run is a function of its arguments alone. `fit` called again
with the same checkpoints continues where the last one was saved and ends, on a CPU bit
by bit, where an uninterrupted run ends. A checkpoint may lie anywhere in an epoch.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import numpy as np
import optax
from jax.sharding import Mesh

from spatial_smoothing.data.batches import num_batches
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.runtime import processes, sharding
from spatial_smoothing.training import feeds
from spatial_smoothing.training.checkpoints import Checkpoints, abstract
from spatial_smoothing.training.steps import (
    Advance,
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


def check_batch_size(batch_size: int, dataset: AnyDataset, mesh: Mesh) -> None:
    """Raises ValueError where `fit` would, before anything is written.

    Args:
      batch_size: Examples a step and member.
      dataset: To train on.
      mesh: Devices.
    """
    sharding.check_batch_size(batch_size, mesh, axes=("data",))
    if batch_size > dataset.num_examples:
        raise ValueError(
            f"batch_size {batch_size} is more than the {dataset.num_examples} examples "
            "to train on; use a smaller one"
        )


class Log:
    """What `fit` tells while it works; this one is silent."""

    def start(self, *, step: int, total: int, steps_per_epoch: int) -> None:
        """Called once, with the step at which training starts or continues."""

    def progress(self, step: int) -> None:
        """Called after every chunk of steps."""

    def has(self, step: int) -> bool:
        """Whether an earlier call's epoch that ended with this step is recorded."""
        return False

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
    checkpoint_minutes: float = 0,
    evaluate: Callable[[dict[str, Any]], Record | None] | None = None,
    eval_every: int = 1,
    log: Log | None = None,
    profile: Callable[[Advance, int], Advance] | None = None,
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
      checkpoint_minutes: Saves within an epoch too, so long after the last; 0 for not.
      evaluate: Variables -> scores, added to the record of an epoch; None where it was
        told to stop, upon which the epoch is recorded when the run continues.
      eval_every: Epochs between evaluations; the last epoch is always evaluated.
      log: Told of progress; None for silence.
      profile: Wraps what makes steps, given their number in an epoch; see `profiling`.
      should_stop: Where True, saves and returns early. Asked before every step where
        Python makes the steps of a process that is alone, else about once a second.

    Returns:
      The last state, stacked for several members; its `step` tells whether it is the
      end.

    Raises:
      NonFiniteLossError: naming the step. Earlier checkpoints are left as they are.
      ValueError: if the devices cannot divide a batch, or the examples do not fill one.
      OSError: if a checkpoint cannot be written. Earlier ones are left as they are.
    """
    mesh, log = mesh or sharding.mesh(members=members), log or Log()
    steps_per_epoch = num_batches(dataset.num_examples, batch_size)
    total = epochs * steps_per_epoch
    check_batch_size(batch_size, dataset, mesh)
    init = functools.partial(init_state, model, optimizer, dataset.image_shape)
    state = place_state(
        lambda: init(seed=seed, members=members), mesh, sharded=shard_state
    )
    state, recorded = _continued(state, checkpoints)
    feed = feeds.Timed(
        feeds.feed(
            dataset,
            order_keys=Streams.of(seed, members=members).order,
            seed=seed,
            total=total,
            batch_size=batch_size,
            mesh=mesh,
        )
    )
    step, num_steps, elapsed = steps_made(state), 1, 0.0
    times, saves = feeds.Times(feed), _Saves(checkpoints, checkpoint_minutes)
    finish = functools.partial(_finish_epoch, schedule=schedule, log=log)
    at_once = should_stop if processes.is_alone() else lambda: False
    log.start(step=step, total=total, steps_per_epoch=steps_per_epoch)
    try:
        # A checkpoint is not written again once its epoch is recorded; the log knows.
        recorded = bool(*processes.largest(recorded or log.has(step)))
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
        if profile and advance:
            advance = profile(advance, steps_per_epoch)
        while step < total or not recorded:
            # Processes stop and save together, and make chunks of one length.
            stopping, overdue, elapsed = processes.largest(
                should_stop(), saves.overdue(), elapsed
            )
            if stopping:
                break
            if recorded:
                if elapsed:
                    num_steps = max(1, round(_CHUNK_SECONDS * num_steps / elapsed))
                end = (step // steps_per_epoch + 1) * steps_per_epoch
                begin, start = time.perf_counter(), step
                state = advance(state, min(step + num_steps, end), at_once)
                _check_finite(state)
                step, elapsed = steps_made(state), time.perf_counter() - begin
                num_steps = max(step - start, 1)
                times.add(step - start, elapsed)
                log.progress(step)
                recorded = step % steps_per_epoch > 0
            if not recorded:
                epoch = step // steps_per_epoch
                is_due = epoch % eval_every == 0 or step == total
                recorded = finish(state, epoch, times, evaluate if is_due else None)
                if not recorded:
                    break
                times = feeds.Times(feed)
                overdue = overdue or epoch % checkpoint_every == 0
            if overdue:
                saves.save(state, recorded)
            saves.check()
        saves.save(state, recorded)
    finally:
        feed.close()
        log.close()
    return state


def _finish_epoch(
    state: TrainState,
    epoch: int,
    times: feeds.Times,
    evaluate: Callable[[dict[str, Any]], Record | None] | None,
    *,
    schedule: optax.Schedule,
    log: Log,
) -> bool:
    """Evaluates, where that is due, and logs; False where told to stop meanwhile."""
    images_per_step = float(np.sum(state.sums.count)) * epoch / steps_made(state)
    record = _record(state, schedule, epoch) | times.record(images_per_step)
    scores = evaluate(state.variables) if evaluate else {}
    if scores is None:
        return False
    log.epoch(record | scores)
    return True


class _Saves:
    """When to save, and how."""

    def __init__(self, checkpoints: Checkpoints | None, minutes: float):
        self._checkpoints, self._seconds = checkpoints, 60 * minutes
        self._last = time.monotonic()

    def overdue(self) -> bool:
        """Whether the last save is too long ago."""
        return 0 < self._seconds < time.monotonic() - self._last

    def save(self, state: TrainState, recorded: bool) -> None:
        """Saves; `recorded` is whether the log has the epoch, should it end here."""
        self._last = time.monotonic()
        if self._checkpoints is not None:
            step = steps_made(state)
            about = {"step": step, "recorded": recorded}
            self._checkpoints.save(step, _items(state), about)

    def check(self) -> None:
        """Raises OSError if the last save failed meanwhile."""
        if self._checkpoints is not None:
            self._checkpoints.check()


def _continued(
    state: TrainState, checkpoints: Checkpoints | None
) -> tuple[TrainState, bool]:
    """Returns the newest saved state, or `state`; and whether its epoch is recorded."""
    restored = checkpoints and checkpoints.restore(**_items(abstract(state)))
    if restored is None:
        return state, True
    state = state.replace(
        variables=restored.items["variables"], **restored.items["rest"]
    )
    return state, restored.metadata.get("recorded", True)


def _items(state: TrainState) -> dict[str, Any]:
    """The parts of a checkpoint: what evaluation needs, and the rest."""
    rest = {"step": state.step, "opt_state": state.opt_state, "sums": state.sums}
    return {"variables": state.variables, "rest": rest}


def _check_finite(state: TrainState) -> None:
    if not np.all(state.finite):
        raise NonFiniteLossError(
            f"loss or gradient is not finite at step {steps_made(state) - 1}; "
            "checkpoints before it are kept; lower learning_rate or use dtype float32, "
            "in another workdir: this one is for its config"
        )


def _record(state: TrainState, schedule: optax.Schedule, epoch: int) -> Record:
    count, loss, correct = (float(np.sum(value)) for value in state.sums)
    step = steps_made(state)
    return {
        "epoch": epoch,
        "step": step,
        "train_loss": loss / count,
        "train_accuracy": correct / count,
        "learning_rate": float(schedule(step - 1)),
    }
