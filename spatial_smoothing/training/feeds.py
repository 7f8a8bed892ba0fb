"""Feeds: where the steps of a run take their batches from.

Contract of this file: a step asks its feed twice. `own(step)`, on the host, returns
arrays on the devices that each member of the run has of its own, with a leading axis of
members where the run has one; `take(own, shared, index)`, inside the compiled step of
a member, turns these and what all share into batch number `index` of an epoch. Batches
are a function of (seed, step), so that a feed has no state to be saved.
"""

import time
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from spatial_smoothing.data import batches
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.data.datasets import AnyDataset, Dataset
from spatial_smoothing.data.images.pipeline import EncodedDataset
from spatial_smoothing.runtime import sharding

Tree = Any
NO_MEMBERS = (
    "members are trained at once on data sets in memory only; train them one by one, "
    "each with its --config.seed, and evaluate the workdirs together"
)


class Feed(Protocol):
    """See the module.

    Attributes:
      resident: Whether `own` is the same for all steps of an epoch, so that a loop over
        them can be compiled.
      shared: Arrays that all members share.
      struct: Shapes, types and shardings of `own`.
    """

    resident: bool
    shared: Tree
    struct: Tree

    def own(self, step: int) -> Tree:
        """Returns what each member has of its own, to make the step of this number."""

    def take(self, own: Tree, shared: Tree, index: jax.Array) -> Batch:
        """Returns batch number `index` of the epoch; traced, for one member."""

    def close(self) -> None:
        """Ends what fetches batches ahead."""


def feed(
    dataset: AnyDataset,
    *,
    order_keys: jax.Array,
    seed: int,
    total: int,
    batch_size: int,
    mesh: Mesh,
) -> Feed:
    """Returns the feed that suits a data set.

    Args:
      dataset: To train on.
      order_keys: Key of the order of examples in memory; of members, stacked.
      seed: Of the order and augmentation of encoded examples.
      total: Steps of the run.
      batch_size: Examples a step and member.
      mesh: Devices.

    Raises:
      ValueError: if several members are to be trained on encoded examples.
    """
    if isinstance(dataset, Dataset):
        return _Resident(dataset, order_keys, batch_size, mesh)
    if order_keys.ndim:
        raise ValueError(NO_MEMBERS)
    return _Encoded(dataset, seed, total, batch_size, mesh)


class Timed:
    """A feed that knows how long its steps have waited for it.

    Attributes:
      seconds: The sum of all waits.
    """

    def __init__(self, feed: Feed):
        self._feed = feed
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._feed, name)

    def own(self, step: int) -> Tree:
        """Returns what the feed does."""
        begin = time.perf_counter()
        try:
            return self._feed.own(step)
        finally:
            self.seconds += time.perf_counter() - begin


class Times:
    """Where the time of the steps since the last record went."""

    def __init__(self, feed: Timed):
        self._feed, self._waited = feed, feed.seconds
        self._steps, self._seconds = 0, 0.0

    def add(self, steps: int, seconds: float) -> None:
        """Counts steps that this process made."""
        self._steps += steps
        self._seconds += seconds

    def record(self, images: float) -> dict[str, float]:
        """Means over steps of so many images; milliseconds of waiting, and the rest."""
        if not self._steps:  # all made before the run continued
            return {}
        waited = self._feed.seconds - self._waited
        return {
            "images_per_second": images * self._steps / self._seconds,
            "data_ms": 1e3 * waited / self._steps,
            "compute_ms": 1e3 * (self._seconds - waited) / self._steps,
        }


class _Resident:
    """Examples that lie on all devices; members differ in their order."""

    resident = True

    def __init__(self, dataset: Dataset, keys: jax.Array, batch_size: int, mesh: Mesh):
        self.shared = sharding.replicate(tuple(dataset), mesh)
        self._batch_size = batch_size
        self._steps_per_epoch = batches.num_batches(dataset.num_examples, batch_size)
        self._epoch = None
        order = lambda key, epoch: batches.epoch_order(key, epoch, dataset.num_examples)
        lies = sharding.replicated(mesh)
        if keys.ndim:
            order = jax.vmap(order, in_axes=(0, None))
            lies = sharding.by_member(mesh)
        self._order = jax.jit(lambda epoch: order(keys, epoch), out_shardings=lies)
        shape = jax.eval_shape(self._order, 0)
        self.struct = jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=lies)

    def own(self, step: int) -> jax.Array:
        epoch = step // self._steps_per_epoch
        if epoch != self._epoch:
            self._epoch, self._current = epoch, self._order(epoch)
        return self._current

    def take(self, own: Tree, shared: Tree, index: jax.Array) -> Batch:
        return batches.take(*shared, own, index, batch_size=self._batch_size)

    def close(self) -> None:
        pass


class _Encoded:
    """Examples decoded on the host, ahead of the steps that take them."""

    resident, shared = False, ()

    def __init__(
        self,
        dataset: EncodedDataset,
        seed: int,
        total: int,
        batch_size: int,
        mesh: Mesh,
    ):
        self._dataset, self._seed, self._total = dataset, seed, total
        self._batch_size, self._mesh = batch_size, mesh
        self._batches, self._next = None, None
        shape = (batch_size, *dataset.image_shape)
        kinds = {
            "image": (shape, jnp.uint8),
            "label": (shape[:1], jnp.int32),
            "mask": (shape[:1], bool),
        }
        lies = sharding.split(mesh)
        self.struct = {
            name: jax.ShapeDtypeStruct(*kind, sharding=lies)
            for name, kind in kinds.items()
        }

    def own(self, step: int) -> Batch:
        if step != self._next:
            self.close()
            self._batches = self._from(step)
        self._next = step + 1
        return next(self._batches)

    def take(self, own: Tree, shared: Tree, index: jax.Array) -> Batch:
        return own

    def close(self) -> None:
        if self._batches is not None:
            self._batches.close()

    def _from(self, step: int) -> Iterator[Batch]:
        data = self._dataset.training_batches(
            self._batch_size,
            seed=self._seed,
            start=step,
            stop=self._total,
            rows=sharding.local_rows(self._batch_size, self._mesh),
        )
        try:
            yield from sharding.join_batches(data, self._mesh)
        finally:
            data.close()
