"""The mesh and its shardings: the only file that knows how many devices there are.

Contract of this file: a mesh has the axes `member` and `data`. The members of a deep
ensemble trained at once are split over `member`, the batch of each over `data`;
evaluation splits its batches over both. Steps are written for one logical batch, so
that results depend neither on the number of devices nor on that of processes.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

Tree = TypeVar("Tree")
_AXES = ("member", "data")
_SHARDED_SIZE = 4096  # numbers in the smallest array that is worth sharding


def mesh(num_devices: int | None = None, *, members: int = 1) -> Mesh:
    """Returns a mesh of the first `num_devices` devices of all processes (None: all).

    Args:
      num_devices: How many devices.
      members: Of a deep ensemble. As many groups of devices as divide both numbers
        share the members; the axis `data` is what is left.

    Raises:
      ValueError: if there are not so many devices.
    """
    devices = jax.devices()
    count = len(devices) if num_devices is None else num_devices
    if not 1 <= count <= len(devices):
        raise ValueError(f"asked for {count} devices, there are {len(devices)}")
    groups = math.gcd(count, members)
    return jax.make_mesh(
        (groups, count // groups),
        _AXES,
        axis_types=(AxisType.Auto,) * 2,
        devices=devices[:count],
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of an array."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Each device holds its part of the first axis of an array."""
    return NamedSharding(mesh, PartitionSpec(_AXES))


def by_member(mesh: Mesh) -> NamedSharding:
    """Each group of devices holds its members, along the first axis of an array."""
    return NamedSharding(mesh, PartitionSpec("member"))


def state_shardings(tree: Any, mesh: Mesh, *, stacked: bool, sharded: bool) -> Any:
    """Returns how parameters, or what is shaped like them, lie on the devices.

    Args:
      tree: Arrays, or their shapes.
      mesh: The devices.
      stacked: Whether the first axis of all is that of members.
      sharded: Whether large arrays are split over `data` too, along the largest axis
        that can be (as in ZeRO and FSDP), in place of replicated.

    Returns:
      A tree of shardings.
    """
    parts = mesh.shape["data"]

    def of_leaf(leaf) -> NamedSharding:
        spec = ["member"] if stacked else []
        sizes = leaf.shape[len(spec) :]
        possible = [axis for axis, size in enumerate(sizes) if size % parts == 0]
        if sharded and possible and math.prod(sizes) >= _SHARDED_SIZE:
            axis = max(possible, key=lambda axis: sizes[axis])
            spec += [None] * axis + ["data"]
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(of_leaf, tree)


def constrain(tree: Tree, mesh: Mesh, *axes: str) -> Tree:
    """Inside a compiled function, lays the first axis of arrays along `axes`.

    Without axes, each device, of those that work on a member, has all of the arrays.
    """
    # Within `for_members` the mesh is another, in which `member` is taken.
    within = jax.sharding.get_abstract_mesh()
    sharding = NamedSharding(mesh if within.empty else within, PartitionSpec(*axes))
    return jax.lax.with_sharding_constraint(tree, sharding)


def for_members(function: Callable[..., Tree], mesh: Mesh) -> Callable[..., Tree]:
    """Returns a function of stacked arrays that treats one member on each group.

    Members are not vectorised: a convolution with a kernel for each member would become
    a grouped one, which XLA runs more slowly.

    Args:
      function: `(member, shared) -> new`, of trees, `new` like the first part of
        `member`.
      mesh: The devices.

    Returns:
      `(index, (first, *rest), shared) -> first`, in which every group of devices has
      treated its member number `index`; `first` and `rest` are stacked over members.
    """

    def local(index, stacked, shared):
        take = functools.partial(
            jax.lax.dynamic_index_in_dim, index=index, keepdims=False
        )
        new = function(jax.tree.map(take, stacked), shared)
        put = functools.partial(
            jax.lax.dynamic_update_index_in_dim, index=index, axis=0
        )
        return jax.tree.map(put, stacked[0], new)

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("member"), PartitionSpec()),
        out_specs=PartitionSpec("member"),
        axis_names={"member"},
    )


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Puts every array of `tree`, the same in all processes, on all devices."""
    leaves = jax.tree.leaves(tree)
    if any(isinstance(x, jax.Array) and not x.is_fully_addressable for x in leaves):
        return jax.jit(_same, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda leaf: _put(leaf, replicated(mesh)), tree)


def split_batches(data: Iterable[Tree], mesh: Mesh) -> Iterator[Tree]:
    """Puts each batch of `data` on the devices, split.

    Every process has whole batches, and all the same.
    """
    for batch in data:
        yield jax.tree.map(lambda leaf: _put(leaf, split(mesh)), batch)


def _same(tree: Tree) -> Tree:
    return tree


def load_batches(dataset: Any, batch_size: int, mesh: Mesh) -> Iterator[Any]:
    """Puts all examples of a data set of `data.datasets` on the devices, in order."""
    data = dataset.batches(batch_size, rows=local_rows(batch_size, mesh))
    return join_batches(data, mesh)


def local_rows(batch_size: int, mesh: Mesh) -> np.ndarray | None:
    """Returns the rows of a batch that this process takes, in order; None for all."""
    if split(mesh).is_fully_addressable:
        return None
    parts = split(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique([row for (part,) in parts for row in range(batch_size)[part]])


def join_batches(data: Iterable[Tree], mesh: Mesh) -> Iterator[Tree]:
    """Puts batches on the devices, split; each process has its own `local_rows`."""
    join = functools.partial(jax.make_array_from_process_local_data, split(mesh))
    for batch in data:
        yield jax.tree.map(join, batch)


def _put(leaf: Any, sharding: Sharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    leaf = np.asarray(leaf)
    return jax.make_array_from_process_local_data(sharding, leaf, leaf.shape)


def gather(tree: Tree) -> Tree:
    """Fetches arrays to the host of every process, whole, however they are split."""

    def of_leaf(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return multihost_utils.process_allgather(leaf, tiled=True)
        return jax.device_get(leaf)

    return jax.tree.map(of_leaf, tree)


def check_batch_size(
    batch_size: int, mesh: Mesh, *, axes: tuple = _AXES, name: str = "batch_size"
) -> None:
    """Raises ValueError if the devices along `axes` cannot divide a batch.

    Args:
      batch_size: Examples.
      mesh: The devices.
      axes: Along which batches are split.
      name: What the caller calls it, for the message.
    """
    count = math.prod(mesh.shape[axis] for axis in axes)
    if batch_size < 1 or batch_size % count:
        near = max(batch_size // count, 1) * count
        raise ValueError(
            f"{name} {batch_size} cannot be divided by {count} devices; "
            f"use a multiple such as {near}"
        )
