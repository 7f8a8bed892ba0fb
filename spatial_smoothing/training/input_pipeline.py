"""The input pipeline: where the steps of a run take their batches from.

Contract of this file: batches are a pure function of (seed, step), so that a pipeline
has no state to save in a checkpoint. Each step uses the pipeline twice.
`member_inputs(step)` runs on the host and returns arrays on the devices; where a run
trains several members, they have a leading axis of members. `batch(...)` runs inside
the compiled step of one member, and turns its inputs, with the arrays that all members
share, into the batch of this step.
"""

import math
import time
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from spatial_smoothing.data import batches
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.data.datasets import AnyDataset, Dataset, DatasetShape
from spatial_smoothing.data.images.pipeline import EncodedDataset
from spatial_smoothing.data.segmentation.sets import SegmentationDataset
from spatial_smoothing.runtime import sharding

Tree = Any
NO_MEMBERS = (
    "members are trained at once on data sets in memory only; train them one by one, "
    "each with its --config.seed, and evaluate the workdirs together"
)


class InputPipeline(Protocol):
    """Makes the batches of a run; see the module for when each method is called.

    Attributes:
      resident: Whether the data set lies on the devices. `member_inputs` is then the
        same for all steps of an epoch, so that a loop over them can be compiled.
      steps_per_epoch: Batches of an epoch; the last one may be short, and padded.
      shared_arrays: Tree of arrays that all members use, replicated on all devices.
      inputs_struct: Tree of `jax.ShapeDtypeStruct`, with shardings: what
        `member_inputs` returns.
    """

    resident: bool
    steps_per_epoch: int
    shared_arrays: Tree
    inputs_struct: Tree

    def member_inputs(self, step: int) -> Tree:
        """Returns the arrays that differ from member to member.

        Args:
          step: Number of the step in the run, from 0.
        """

    def batch(
        self, member_inputs: Tree, shared_arrays: Tree, index: jax.Array
    ) -> Batch:
        """Returns one batch of one member; traced inside its compiled step.

        Args:
          member_inputs: The inputs of the member, without the axis of members.
          shared_arrays: The attribute of this name. It is passed through the compiled
            step as an argument, because a closure would make it a constant of the
            program.
          index: i32[], number of the batch in its epoch.
        """

    def close(self) -> None:
        """Ends the threads or processes that fetch batches ahead."""


def create(
    dataset: AnyDataset,
    *,
    order_keys: jax.Array,
    seed: int,
    total_steps: int,
    batch_size: int,
    mesh: Mesh,
) -> InputPipeline:
    """Returns the input pipeline that suits a data set.

    Args:
      dataset: Training examples, in memory or encoded in files.
      order_keys: PRNG key of the order of examples in memory: key[] for one network,
        key[M] for M members.
      seed: Seed of the order and of the augmentation of encoded examples.
      total_steps: Steps of the whole run.
      batch_size: Examples of a step of one member.
      mesh: Devices to put the batches on.

    Raises:
      ValueError: if several members are to be trained on encoded examples.
    """
    if isinstance(dataset, Dataset) or _is_in_memory(dataset):
        return _ResidentPipeline(dataset, order_keys, batch_size, mesh)
    if order_keys.ndim:
        raise ValueError(NO_MEMBERS)
    return _EncodedPipeline(dataset, seed, total_steps, batch_size, mesh)


def _is_in_memory(dataset: AnyDataset) -> bool:
    """Whether a data set is one of segmentation whose examples are in memory."""
    return isinstance(dataset, SegmentationDataset) and dataset.in_memory


def abstract(
    dataset: DatasetShape, *, members: int, batch_size: int, mesh: Mesh
) -> "_ResidentBatches | _EncodedBatches":
    """Returns what a step has to know of an input pipeline to be compiled.

    Args:
      dataset: The shape of the training examples.
      members: M, members that are trained at once.
      batch_size: Examples of a step of one member.
      mesh: Devices that the step is compiled for. They need not be here.

    Returns:
      The pipeline that `create` makes of such a data set, with the shapes of
      `shared_arrays` in the place of arrays, and without `member_inputs`.

    Raises:
      ValueError: if several members are to be trained on encoded examples.
    """
    if not dataset.in_memory:
        if members > 1:
            raise ValueError(NO_MEMBERS)
        return _EncodedBatches(dataset, batch_size, mesh)
    pipeline = _ResidentBatches(dataset, batch_size, mesh, members=members)
    shape = (dataset.num_examples, math.prod(dataset.image_shape))
    images = jax.ShapeDtypeStruct(shape, jnp.uint8)
    labels = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    if dataset.label_shape:
        flat = (dataset.num_examples, math.prod(dataset.label_shape))
        labels = jax.ShapeDtypeStruct(flat, jnp.uint8)
    everywhere = sharding.replicated(mesh)
    pipeline.shared_arrays = sharding.placed((images, labels), everywhere)
    return pipeline


class TimedPipeline:
    """An input pipeline that measures how long the steps wait for it.

    Args:
      pipeline: The input pipeline to measure.

    Attributes:
      seconds: Sum of all waits so far.
    """

    def __init__(self, pipeline: InputPipeline):
        self._pipeline = pipeline
        self.seconds = 0.0

    # All else is passed on to the pipeline that is measured.
    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)

    def member_inputs(self, step: int) -> Tree:
        """Returns what the measured pipeline returns, and adds the time it took."""
        # The devices may compute meanwhile: this is how long the host waits, which is
        # the time of a step if the input pipeline is the bottleneck.
        begin = time.perf_counter()
        try:
            return self._pipeline.member_inputs(step)
        finally:
            self.seconds += time.perf_counter() - begin


class StepTimes:
    """Where the time of the steps went since the last record of an epoch.

    Args:
      pipeline: The measured input pipeline of the run.
    """

    def __init__(self, pipeline: TimedPipeline):
        self._pipeline, self._waited_before = pipeline, pipeline.seconds
        self._steps, self._seconds = 0, 0.0

    def add(self, steps: int, seconds: float) -> None:
        """Counts a chunk of steps.

        Args:
          steps: Number of steps that this process made.
          seconds: Time that they took, waits included.
        """
        self._steps += steps
        self._seconds += seconds

    def record(self, images: float) -> dict[str, float]:
        """Returns means over the counted steps; empty where there are none.

        Args:
          images: Images of a step, on average.

        Returns:
          `images_per_second`; `data_ms`, milliseconds that a step waited for its batch;
          `compute_ms`, milliseconds of the rest of the step.
        """
        if not self._steps:  # an earlier start of the run made all steps of the epoch
            return {}
        waited = self._pipeline.seconds - self._waited_before
        return {
            "images_per_second": images * self._steps / self._seconds,
            "data_ms": 1e3 * waited / self._steps,
            "compute_ms": 1e3 * (self._seconds - waited) / self._steps,
        }


class _ResidentBatches:
    """What a compiled step knows of examples that are on all devices.

    Each member has an order of its own: `member_inputs` is the order of the examples in
    the epoch, i32[n] or i32[M, n]. Images are u8[n, H W C]: of u8[n, H, W, C] a TPU
    would copy the whole data set into a layout of four times its bytes. Labels are
    i32[n], or of segmentation u8[n, H W].
    """

    resident = True
    shared_arrays: Tree

    def __init__(
        self,
        dataset: Dataset | SegmentationDataset | DatasetShape,
        batch_size: int,
        mesh: Mesh,
        *,
        members: int,
    ):
        self._batch_size, self._image_shape = batch_size, dataset.image_shape
        self._label_shape = dataset.label_shape
        self.steps_per_epoch = batches.num_batches(dataset.num_examples, batch_size)
        shape, order_sharding = (dataset.num_examples,), sharding.replicated(mesh)
        if members > 1:
            shape, order_sharding = (members, *shape), sharding.by_member(mesh)
        # The step is compiled for these shapes before the first order is computed.
        self.inputs_struct = jax.ShapeDtypeStruct(
            shape, jnp.int32, sharding=order_sharding
        )

    def batch(
        self, member_inputs: jax.Array, shared_arrays: Tree, index: jax.Array
    ) -> Batch:
        # Takes rows on the device, in the order of the epoch; a short batch is padded.
        images, labels = shared_arrays
        batch = batches.take(
            images, labels, member_inputs, index, batch_size=self._batch_size
        )
        shape = (self._batch_size, *self._image_shape)
        batch = {**batch, "image": batch["image"].reshape(shape)}
        if self._label_shape:
            return batches.with_pixel_mask(batch, self._label_shape)
        return batch


class _ResidentPipeline(_ResidentBatches):
    """Examples that are on all devices."""

    def __init__(
        self,
        dataset: Dataset | SegmentationDataset,
        order_keys: jax.Array,
        batch_size: int,
        mesh: Mesh,
    ):
        super().__init__(dataset, batch_size, mesh, members=order_keys.size)
        flat, labels = dataset.images.reshape(dataset.num_examples, -1), dataset.labels
        if dataset.label_shape:
            labels = labels.reshape(dataset.num_examples, -1)
        self.shared_arrays = sharding.replicate((flat, labels), mesh)
        self._epoch = None

        def order(key: jax.Array, epoch: jax.Array) -> jax.Array:
            return batches.epoch_order(key, epoch, dataset.num_examples)

        if order_keys.ndim:  # one key for each member
            order = jax.vmap(order, in_axes=(0, None))
        self._order = jax.jit(
            lambda epoch: order(order_keys, epoch),
            out_shardings=self.inputs_struct.sharding,
        )

    def member_inputs(self, step: int) -> jax.Array:
        # Steps of one epoch share its order, which is computed once.
        epoch = step // self.steps_per_epoch
        if epoch != self._epoch:
            self._epoch, self._epoch_order = epoch, self._order(epoch)
        return self._epoch_order

    def close(self) -> None:
        pass


class _EncodedBatches:
    """What a compiled step knows of examples that the host decodes.

    `member_inputs` is the batch itself, split over the devices.
    """

    resident, shared_arrays = False, ()

    def __init__(
        self,
        dataset: EncodedDataset | SegmentationDataset | DatasetShape,
        batch_size: int,
        mesh: Mesh,
    ):
        self.steps_per_epoch = batches.num_batches(dataset.num_examples, batch_size)
        # A short batch is padded, so that all batches have these shapes.
        shape = (batch_size, *dataset.image_shape)
        kinds = {
            "image": (shape, jnp.uint8),
            "label": ((batch_size, *dataset.label_shape), jnp.int32),
            "mask": ((batch_size, *dataset.label_shape), bool),
        }
        self.inputs_struct = {
            name: jax.ShapeDtypeStruct(*kind, sharding=sharding.split(mesh))
            for name, kind in kinds.items()
        }

    def batch(
        self, member_inputs: Batch, shared_arrays: Tree, index: jax.Array
    ) -> Batch:
        return member_inputs


class _EncodedPipeline(_EncodedBatches):
    """Examples that the host decodes ahead of the steps that use them."""

    def __init__(
        self,
        dataset: EncodedDataset | SegmentationDataset,
        seed: int,
        total_steps: int,
        batch_size: int,
        mesh: Mesh,
    ):
        super().__init__(dataset, batch_size, mesh)
        self._dataset, self._seed, self._total_steps = dataset, seed, total_steps
        self._batch_size, self._mesh = batch_size, mesh
        self._batches, self._next_step = None, None

    def member_inputs(self, step: int) -> Batch:
        # Decoding runs ahead in the order of steps. Any other step, such as the first
        # one after a restart, begins it anew at this step.
        if step != self._next_step:
            self.close()
            self._batches = self._batches_from(step)
        self._next_step = step + 1
        return next(self._batches)

    def close(self) -> None:
        if self._batches is not None:
            self._batches.close()

    def _batches_from(self, step: int) -> Iterator[Batch]:
        data = self._dataset.training_batches(
            self._batch_size,
            seed=self._seed,
            start=step,
            stop=self._total_steps,
            # Each process decodes only the images that its own devices need.
            rows=sharding.local_rows(self._batch_size, self._mesh),
        )
        # Closing this generator ends the threads or processes that decode.
        try:
            yield from sharding.join_batches(data, self._mesh)
        finally:
            data.close()
