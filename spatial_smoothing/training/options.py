"""What `fit` is told, in groups: what to learn, where, what to save and what to report.

Contract of this file: `Hyperparameters` decides what is learned, together with the
network and the data set. `Placement`, `Saving` and `Monitoring` change no more than the
rounding of it.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optax
from jax.sharding import Mesh

from spatial_smoothing.training.checkpoints import Checkpoints
from spatial_smoothing.training.objectives import PLAIN, StepOptions
from spatial_smoothing.training.steps import Advance, Prepare

Record = dict[str, float]
Evaluate = Callable[[dict[str, Any]], Record | None]


class Log:
    """What `fit` calls while it works; this one is silent."""

    def start(self, *, step: int, total: int, steps_per_epoch: int) -> None:
        """Called once, before the first step.

        Args:
          step: Steps made by earlier starts of the run.
          total: Steps of the whole run.
          steps_per_epoch: Steps of an epoch.
        """

    def status(self, text: str) -> contextlib.AbstractContextManager:
        """Returns a context around work other than steps.

        Args:
          text: What is being done, such as "compiling the training step".
        """
        return contextlib.nullcontext()

    def progress(self, record: Record) -> None:
        """Called after every chunk of steps, about once a second.

        Args:
          record: The record of the epoch so far, as `epoch` gets it, without scores.
        """

    def has(self, step: int) -> bool:
        """Whether the epoch that ends with a step was recorded by an earlier start.

        Args:
          step: Steps made at the end of the epoch.
        """
        return False

    def epoch(self, record: Record) -> None:
        """Called at the end of every epoch.

        Args:
          record: `epoch` and `step`, counted from 1; `train_loss` in nats and
            `train_accuracy` in [0, 1], means over the examples of the epoch as they
            were trained on, 0 if all pixels so far are void; `learning_rate`; where
            this start made steps of the epoch, `images_per_second`, `data_ms` and
            `compute_ms`; and the scores of `Monitoring.evaluate`.
        """

    def close(self) -> None:
        """Called last, also after an error."""


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """How a network learns.

    Attributes:
      prepare: `prepare(key, images)` augments and normalises u8[B, H, W, C] to
        f32[B, H, W, C], inside the step.
      optimizer: An optax transformation.
      schedule: Function from step to learning rate, to record it; the one that the
        optimizer uses.
      epochs: Number of epochs, warm-up included, at least 1.
      batch_size: Examples of a step of one member, over all devices.
      seed: Seed of initial values, order, augmentation and dropout, in [0, 2**32).
      members: M, members of a deep ensemble that are trained at once; member m has
        the seed `seed + m`. 1 for a single network.
      initial: Path of a variable, such as ("params", "stem_conv", "kernel"), -> the
        value that it starts from, of its shape. With several members, a value has the
        shape of one network and is that of all, or an axis of members. Variables that
        are left out are drawn from the seed. A run that continues does not use it.
      frozen: Names of the parts of the network that keep their weights, such as "stem"
        and "stage1"; see `freezing`. The optimiser has to know of them too.
      step_options: How a step departs from the paper's. Of a step with R samples of
        each example, `batch_size` counts the examples once.
    """

    prepare: Prepare
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    epochs: int
    batch_size: int = 128
    seed: int = 0
    members: int = 1
    initial: Mapping[tuple[str, ...], np.ndarray] | None = None
    frozen: tuple[str, ...] = ()
    step_options: StepOptions = PLAIN


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a network trains.

    Attributes:
      mesh: Mesh of `runtime.sharding`; None for all devices of all processes.
      shard_state: Whether large parameters and their optimiser state are split over the
        devices, in place of replicated.
    """

    mesh: Mesh | None = None
    shard_state: bool = False


@dataclasses.dataclass(frozen=True)
class Saving:
    """When checkpoints are saved. The end of a run, and an interruption, always save.

    Attributes:
      checkpoints: Where to continue from, and to save to; None for neither.
      every_epochs: Epochs between two checkpoints, at least 1.
      every_minutes: Saves within an epoch too, when the last checkpoint is so many
        minutes old; 0 for never.
    """

    checkpoints: Checkpoints | None = None
    every_epochs: int = 1
    every_minutes: float = 0


@dataclasses.dataclass(frozen=True)
class Monitoring:
    """What is measured and reported on the way.

    Attributes:
      evaluate: Function from variables to scores, which are added to the record of an
        epoch. It returns None if it was told to stop: the epoch is then evaluated and
        recorded when the run continues. None for no scores.
      eval_every: Epochs between two evaluations, at least 1. The last epoch is always
        evaluated.
      log: Where records and progress go.
      profile: Function from (`advance`, steps of an epoch) to another `advance`, such
        as one that traces; see `training.profiling`. None for the plain one.
    """

    evaluate: Evaluate | None = None
    eval_every: int = 1
    log: Log = dataclasses.field(default_factory=Log)
    profile: Callable[[Advance, int], Advance] | None = None
