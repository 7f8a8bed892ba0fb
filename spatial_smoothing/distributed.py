"""The mesh and its shardings: the only file that knows how many devices there are.

Contract of this file: batches are split over the axis `data`; parameters, statistics
and data sets that lie on the device are replicated. Steps are written for one logical
batch, so that results do not depend on the number of devices.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")


def mesh(num_devices: int | None = None) -> Mesh:
    """Returns a mesh of the first `num_devices` devices (None: all), axis `data`.

    Raises:
      ValueError: if there are not so many devices.
    """
    devices = jax.devices()
    count = len(devices) if num_devices is None else num_devices
    if not 1 <= count <= len(devices):
        raise ValueError(f"asked for {count} devices, there are {len(devices)}")
    return Mesh(np.array(devices[:count]), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of an array."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Each device holds its part of the first axis of an array."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Puts every array of `tree` on all devices."""
    return jax.device_put(tree, replicated(mesh))


def split_batches(data: Iterable[Tree], mesh: Mesh) -> Iterator[Tree]:
    """Puts each batch of `data` on the devices, split."""
    return (jax.device_put(batch, split(mesh)) for batch in data)


def load_batches(dataset: Any, batch_size: int, mesh: Mesh) -> Iterator[Any]:
    """Puts all examples of a data set of `data.datasets` on the devices, in order."""
    return split_batches(dataset.batches(batch_size), mesh)


def gather(tree: Tree) -> Tree:
    """Fetches arrays to the host of every process, whole, however they are split."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises ValueError if the devices cannot divide a batch."""
    count = mesh.devices.size
    if batch_size < 1 or batch_size % count:
        near = max(batch_size // count, 1) * count
        raise ValueError(
            f"batch_size {batch_size} cannot be divided by {count} devices; "
            f"use a multiple such as {near}"
        )
