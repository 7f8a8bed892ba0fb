"""The training loop: epochs of compiled chunks, with evaluation, logs, checkpoints.

Contract of this file: a run is a function of its arguments alone. `fit` called again
with the same checkpoints continues from the last one and ends, on a CPU bit by bit,
where an uninterrupted run ends. A checkpoint may lie anywhere in an epoch.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from spatial_smoothing.data.batches import num_batches
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.runtime import processes, sharding
from spatial_smoothing.training import input_pipeline
from spatial_smoothing.training.checkpoints import Checkpoints, Restored, abstract
from spatial_smoothing.training.input_pipeline import StepTimes, TimedPipeline
from spatial_smoothing.training.options import (
    Hyperparameters,
    Monitoring,
    Placement,
    Record,
    Saving,
)
from spatial_smoothing.training.state import (
    Streams,
    TrainState,
    init_state,
    place_state,
    steps_made,
    with_values,
)
from spatial_smoothing.training.steps import Advance, compile_steps

# A chunk of steps takes about so long. Between two of them the host reports progress,
# and answers to interruptions.
_CHUNK_SECONDS = 1.0


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient became infinite or NaN."""


def check_batch_size(batch_size: int, dataset: AnyDataset, mesh: Mesh) -> None:
    """Raises ValueError where `fit` would, before anything is written.

    Args:
      batch_size: Examples of a step of one member.
      dataset: Training examples.
      mesh: Devices.
    """
    sharding.check_batch_size(batch_size, mesh, axes=("data",))
    if batch_size > dataset.num_examples:
        raise ValueError(
            f"batch_size {batch_size} is more than the {dataset.num_examples} examples "
            "to train on; use a smaller one"
        )


def fit(
    model: nn.Module,
    dataset: AnyDataset,
    hyperparameters: Hyperparameters,
    *,
    placement: Placement | None = None,
    saving: Saving | None = None,
    monitoring: Monitoring | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Trains a network, or continues to.

    Args:
      model: The network.
      dataset: Training examples: in memory, from where they are put on every device, or
        encoded in files.
      hyperparameters: How the network learns.
      placement: Where it trains; None for all devices, replicated.
      saving: Where and when checkpoints are saved; None for none.
      monitoring: What is measured and reported; None for nothing.
      should_stop: Function that says whether to save and return early. It is called
        before every step where Python makes the steps and the process is alone, and
        before every chunk of about a second elsewhere.

    Returns:
      The last state, stacked for several members. Its `step` tells whether the run has
      ended.

    Raises:
      NonFiniteLossError: if loss or gradient are not finite; names the step. Earlier
        checkpoints are left as they are.
      ValueError: if the devices cannot divide a batch, the examples do not fill one, or
        there are more or fewer of them than when the run began.
      OSError: if a checkpoint cannot be written. Earlier ones are left as they are.
    """
    monitoring, saving = monitoring or Monitoring(), saving or Saving()
    saves, log = _Saves(saving, dataset), monitoring.log
    with log.status("preparing the run"):
        mesh, pipeline, state, epoch_to_log = _prepare_run(
            model,
            dataset,
            hyperparameters,
            placement or Placement(),
            saving.checkpoints,
        )
    step, total = steps_made(state), hyperparameters.epochs * pipeline.steps_per_epoch
    epochs = _Epochs(monitoring, hyperparameters, pipeline, dataset)
    try:
        log.start(step=step, total=total, steps_per_epoch=pipeline.steps_per_epoch)
        # A checkpoint is not saved again after its epoch is logged, so that it cannot
        # know about it. The log does, in the process that writes it.
        epoch_to_log &= not processes.any_process(log.has(step))
        if step < total:
            chunks = _Chunks(
                _compile(model, hyperparameters, state, pipeline, mesh, monitoring),
                epochs,
                # One process must not stop within a chunk that others make to its end.
                should_stop if processes.is_alone() else lambda: False,
            )
        chunk_seconds = 0.0  # of the last chunk, in the slowest process
        while step < total or epoch_to_log:
            # Processes stop and save together, and make chunks of one length.
            stopping, overdue, chunk_seconds = processes.max_over_processes(
                should_stop(), saves.is_overdue(), chunk_seconds
            )
            if stopping:
                break
            # A run may begin with a record that is still to be made, and no step.
            if not epoch_to_log:
                state, chunk_seconds = chunks.make(state, after_seconds=chunk_seconds)
                step = steps_made(state)
                epoch_to_log = step % pipeline.steps_per_epoch == 0
            if epoch_to_log:
                if not epochs.finish(state, is_last=step == total):
                    break  # told to stop while it evaluated: the next start does it
                epoch_to_log = False
                overdue = overdue or epochs.of(step) % saving.every_epochs == 0
            if overdue:
                saves.save(state, epoch_to_log)
            saves.check()
        # The end of the run, or an interruption. No step is saved twice.
        saves.save(state, epoch_to_log)
    finally:
        pipeline.close()
        log.close()
    return state


def _prepare_run(
    model: nn.Module,
    dataset: AnyDataset,
    hyperparameters: Hyperparameters,
    placement: Placement,
    checkpoints: Checkpoints | None,
) -> tuple[Mesh, TimedPipeline, TrainState, bool]:
    """Puts a run on the devices, at its beginning or where a checkpoint has it.

    Returns:
      The mesh; the input pipeline; the state; and whether this is the end of an epoch
      that is still to be logged. It is where a run was told to stop in the evaluation
      at the end of an epoch: its steps are made, and saved, but its record is not.
    """
    seed, members = hyperparameters.seed, hyperparameters.members
    mesh = placement.mesh or sharding.mesh(members=members)
    check_batch_size(hyperparameters.batch_size, dataset, mesh)
    optimizer = hyperparameters.optimizer
    state = place_state(
        lambda: init_state(
            model,
            optimizer,
            dataset.image_shape,
            seed=seed,
            members=members,
            averages=hyperparameters.step_options.ema > 0,
        ),
        mesh,
        sharded=placement.shard_state,
    )
    # The fresh state tells the shapes, types and shardings of the saved one.
    epoch_to_log = False
    restored = checkpoints and checkpoints.restore(**_items(abstract(state)))
    if restored is not None:
        _check_same_examples(dataset, restored)
        state = _with_items(state, restored.items)
        # The oldest checkpoints do not say it: they were saved after the record.
        epoch_to_log = not restored.metadata.get("recorded", True)
    elif hyperparameters.initial is not None:
        variables = with_values(state.variables, hyperparameters.initial)
        state = state.replace(variables=variables)
        if state.average is not None:
            # Arrays of its own: a step is given the memory of both.
            state = state.replace(average=jax.tree.map(jnp.copy, variables))
    # The last batch of an epoch may be short.
    batch_size = hyperparameters.batch_size
    steps_per_epoch = num_batches(dataset.num_examples, batch_size)
    pipeline = input_pipeline.create(
        dataset,
        order_keys=Streams.of(seed, members=members).order,
        seed=seed,
        total_steps=hyperparameters.epochs * steps_per_epoch,
        batch_size=batch_size,
        mesh=mesh,
    )
    return mesh, TimedPipeline(pipeline), state, epoch_to_log


def _check_same_examples(dataset: AnyDataset, restored: Restored) -> None:
    """Raises ValueError if a run goes on with more or fewer examples than before.

    Its epochs would begin at other steps: some examples would be left out of the epoch
    that is under way, and the learning rate would fall at another place.
    """
    count = restored.metadata.get("num_examples", dataset.num_examples)
    if count != dataset.num_examples:
        raise ValueError(
            f"there are {dataset.num_examples} examples to train on, and there were "
            f"{count} when checkpoint {restored.step} was saved; restore the data, or "
            "train in another workdir"
        )


def _compile(
    model: nn.Module,
    hyperparameters: Hyperparameters,
    state: TrainState,
    pipeline: TimedPipeline,
    mesh: Mesh,
    monitoring: Monitoring,
) -> Advance:
    """Compiles what makes steps, and wraps it in the profiler if there is one."""
    with monitoring.log.status("compiling the training step"):
        advance = compile_steps(
            model,
            hyperparameters.optimizer,
            state,
            pipeline,
            prepare=hyperparameters.prepare,
            seed=hyperparameters.seed,
            mesh=mesh,
            frozen=hyperparameters.frozen,
            options=hyperparameters.step_options,
        )
    if monitoring.profile is None:
        return advance
    return monitoring.profile(advance, pipeline.steps_per_epoch)


class _Epochs:
    """What is known of the epoch that is under way, and what its end does."""

    def __init__(
        self,
        monitoring: Monitoring,
        hyperparameters: Hyperparameters,
        pipeline: TimedPipeline,
        dataset: AnyDataset,
    ):
        self._monitoring, self._pipeline = monitoring, pipeline
        self._images = dataset.num_examples * hyperparameters.members
        self._counts_pixels = bool(dataset.label_shape)
        self._schedule = hyperparameters.schedule
        self._times = StepTimes(pipeline)
        self.steps_per_epoch = pipeline.steps_per_epoch

    def of(self, step: int) -> int:
        """Returns the number of the epoch, from 1, whose last step so far is `step`."""
        return (step - 1) // self.steps_per_epoch + 1

    def add(self, state: TrainState, steps: int, seconds: float) -> None:
        """Counts a chunk of steps, after which the state is `state`."""
        self._times.add(steps, seconds)
        self._monitoring.log.progress(self._record(state))

    def finish(self, state: TrainState, *, is_last: bool) -> bool:
        """Evaluates where that is due, and logs the epoch.

        Returns:
          False if the evaluation was told to stop; nothing is logged then.
        """
        # The record is made first: the evaluation takes no part in the times.
        record, scores = self._record(state), {}
        due = is_last or record["epoch"] % self._monitoring.eval_every == 0
        if due and self._monitoring.evaluate is not None:
            with self._monitoring.log.status("evaluating"):
                scores = self._monitoring.evaluate(state.evaluated)
        if scores is None:
            return False
        self._monitoring.log.epoch(record | scores)
        self._times = StepTimes(self._pipeline)  # those of the next epoch
        return True

    def _record(self, state: TrainState) -> Record:
        """Returns the record of the epoch so far; see `Log.epoch`."""
        # Of several members, the mean; each has seen as many examples.
        count, loss, correct = (float(np.sum(value)) for value in state.sums)
        step = steps_made(state)
        steps_of_epoch = (step - 1) % self.steps_per_epoch + 1
        images = count / steps_of_epoch
        if self._counts_pixels:
            images = self._images / self.steps_per_epoch
        # All pixels so far may be void.
        some = max(count, 1.0)
        return {
            "epoch": self.of(step),
            "step": step,
            "train_loss": loss / some,
            "train_accuracy": correct / some,
            "learning_rate": float(self._schedule(step - 1)),
            **self._times.record(images),
        }


class _Chunks:
    """Makes steps in chunks of about `_CHUNK_SECONDS`, none across the end of an epoch.

    Args:
      advance: Makes steps; see `steps.compile_steps`.
      epochs: Told of each chunk.
      should_stop: Asked before each step within a chunk.
    """

    def __init__(
        self, advance: Advance, epochs: _Epochs, should_stop: Callable[[], bool]
    ):
        self._advance, self._epochs = advance, epochs
        self._should_stop, self._num_steps = should_stop, 1

    def make(
        self, state: TrainState, *, after_seconds: float
    ) -> tuple[TrainState, float]:
        """Makes the next chunk.

        Args:
          state: The state, which is donated.
          after_seconds: Time of the chunk before, the longest over all processes; 0 for
            none. It decides the length of this one.

        Returns:
          The new state, and the time in seconds that this chunk took.

        Raises:
          NonFiniteLossError: if a step is not finite.
        """
        if after_seconds:
            steps = round(_CHUNK_SECONDS * self._num_steps / after_seconds)
            self._num_steps = max(1, steps)
        # The inputs of a chunk are those of one epoch; see `input_pipeline`.
        first, steps_per_epoch = steps_made(state), self._epochs.steps_per_epoch
        end_of_epoch = (first // steps_per_epoch + 1) * steps_per_epoch
        stop = min(first + self._num_steps, end_of_epoch)
        begin = time.perf_counter()
        state = self._advance(state, stop, self._should_stop)
        made = steps_made(state) - first  # waits for the devices
        seconds = time.perf_counter() - begin
        if not np.all(state.finite):
            raise NonFiniteLossError(
                f"loss or gradient is not finite at step {first + made - 1}; "
                "checkpoints before it are kept; lower learning_rate or use dtype "
                "float32, in another workdir: this one is for its config"
            )
        # Fewer steps than asked for, at an interruption, took this time.
        self._num_steps = max(made, 1)
        self._epochs.add(state, made, seconds)
        return state, seconds


class _Saves:
    """When to save, and how.

    Args:
      saving: What `fit` is told about it.
      dataset: Training examples.
    """

    def __init__(self, saving: Saving, dataset: AnyDataset):
        self._checkpoints, self._dataset = saving.checkpoints, dataset
        self._seconds = 60 * saving.every_minutes
        self._last = time.monotonic()

    def is_overdue(self) -> bool:
        """Whether the last checkpoint is too old; never where minutes do not count."""
        return 0 < self._seconds < time.monotonic() - self._last

    def save(self, state: TrainState, epoch_to_log: bool) -> None:
        """Saves a state; `epoch_to_log` says that it ends an epoch without record."""
        self._last = time.monotonic()
        if self._checkpoints is not None:
            step = steps_made(state)
            metadata = {
                "step": step,
                "recorded": not epoch_to_log,
                "num_examples": self._dataset.num_examples,
            }
            self._checkpoints.save(step, _items(state), metadata)

    def check(self) -> None:
        """Raises OSError if the last save, in the background, has failed."""
        if self._checkpoints is not None:
            self._checkpoints.check()


def _items(state: TrainState) -> dict[str, Any]:
    """Returns the items of a checkpoint: what evaluation needs, and the rest."""
    # `finite` is not saved: a state that is not finite never is.
    rest = {"step": state.step, "opt_state": state.opt_state, "sums": state.sums}
    if state.average is not None:
        rest["trained"] = state.variables
    return {"variables": state.evaluated, "rest": rest}


def _with_items(state: TrainState, items: Mapping[str, Any]) -> TrainState:
    """Returns a state with the values of a checkpoint that `_items` made."""
    variables, rest = items["variables"], dict(items["rest"])
    trained = rest.pop("trained", None)
    if trained is None:
        return state.replace(variables=variables, **rest)
    return state.replace(variables=trained, average=variables, **rest)
