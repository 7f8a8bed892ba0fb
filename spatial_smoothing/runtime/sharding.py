"""The mesh and its shardings: the only file that knows how many devices there are.

Contract of this file: a mesh has the axes `member` and `data`. The members of a deep
ensemble that are trained at once are split over `member`, the batch of each member over
`data`; evaluation splits its batches over both. Steps are written for one logical
batch: the numbers of devices and processes change the order of sums, and so no more
than the rounding of a step. Over many steps of training, rounding grows as any small
change does.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

Tree = TypeVar("Tree")
_AXES = ("member", "data")
_SHARDED_SIZE = 4096  # smaller arrays are not split: the exchange would cost more


def mesh(
    num_devices: int | None = None,
    *,
    members: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """Returns a mesh of the first `num_devices` devices of all processes (None: all).

    Args:
      num_devices: Number of devices, at least 1; None for all.
      members: M, members of a deep ensemble that are trained at once. The axis `member`
        has the greatest size that divides both numbers; `data` has the rest.
      devices: The devices to choose from, such as those of `topologies`; None for those
        of all processes.

    Raises:
      ValueError: if there are not so many devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices) if num_devices is None else num_devices
    if not 1 <= count <= len(devices):
        raise ValueError(f"asked for {count} devices, there are {len(devices)}")
    # As many groups of devices as divide both numbers: each has as many members.
    groups = math.gcd(count, members)
    return jax.make_mesh(
        (groups, count // groups),
        _AXES,
        axis_types=(AxisType.Auto,) * 2,
        devices=devices[:count],
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array whose first axis is split over all devices."""
    return NamedSharding(mesh, PartitionSpec(_AXES))


def by_member(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array whose first axis is that of members."""
    return NamedSharding(mesh, PartitionSpec("member"))


def state_shardings(tree: Any, mesh: Mesh, *, stacked: bool, sharded: bool) -> Any:
    """Returns the shardings of parameters, and of optimiser state of their shapes.

    Args:
      tree: Pytree of arrays, or of their shapes.
      mesh: Devices.
      stacked: Whether the first axis of all arrays is that of members.
      sharded: Whether large arrays are split over `data` too, in place of replicated,
        along their largest axis that the devices divide (as in ZeRO and FSDP).

    Returns:
      A pytree of shardings.
    """
    parts = mesh.shape["data"]

    def of_leaf(leaf) -> NamedSharding:
        spec = ["member"] if stacked else []
        sizes = leaf.shape[len(spec) :]
        possible = [axis for axis, size in enumerate(sizes) if size % parts == 0]
        if sharded and possible and math.prod(sizes) >= _SHARDED_SIZE:
            # The last axes need no entry: they are not split.
            axis = max(possible, key=lambda axis: sizes[axis])
            spec += [None] * axis + ["data"]
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(of_leaf, tree)


def placed(shapes: Tree, shardings: Any) -> Tree:
    """Returns what functions are compiled for in the place of arrays.

    Args:
      shapes: Pytree of arrays or of `jax.ShapeDtypeStruct`.
      shardings: A sharding, or a pytree of them with the structure of `shapes`.

    Returns:
      A pytree of `jax.ShapeDtypeStruct` with these shardings.
    """
    if isinstance(shardings, Sharding):
        every = shardings
        shardings = jax.tree.map(lambda _: every, shapes)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        shardings,
    )


def constrain(tree: Tree, mesh: Mesh, *axes: str) -> Tree:
    """Says, inside a compiled function, how the devices share some arrays.

    Args:
      tree: Pytree of arrays.
      mesh: Devices.
      *axes: Mesh axes that split the first axis of each array. Without any, each device
        of those that work on a member holds the arrays whole.
    """
    # Inside `for_members` there is another mesh, which has the axis `data` only: each
    # group of devices works on its own member.
    within = jax.sharding.get_abstract_mesh()
    sharding = NamedSharding(mesh if within.empty else within, PartitionSpec(*axes))
    return jax.lax.with_sharding_constraint(tree, sharding)


def for_members(function: Callable[..., Tree], mesh: Mesh) -> Callable[..., Tree]:
    """Returns a function of stacked arrays that works on one member in each group.

    Members are not vectorised: a convolution with a kernel for each member would become
    a grouped one, which XLA runs more slowly.

    Args:
      function: `((state, *rest), shared) -> state`, a function of pytrees of one member
        and of pytrees that all members share.
      mesh: Devices.

    Returns:
      `(index, (state, *rest), shared) -> state` of the same pytrees, stacked over
      members. Each group of devices replaces the state of its member number `index`.
    """

    def of_group(index, stacked, shared):
        # `stacked` has the members of this group only.
        # `index` is not known when this is compiled: one program serves all members.
        take = functools.partial(
            jax.lax.dynamic_index_in_dim, index=index, keepdims=False
        )
        new = function(jax.tree.map(take, stacked), shared)
        put = functools.partial(
            jax.lax.dynamic_update_index_in_dim, index=index, axis=0
        )
        return jax.tree.map(put, stacked[0], new)

    return jax.shard_map(
        of_group,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("member"), PartitionSpec()),
        out_specs=PartitionSpec("member"),
        axis_names={"member"},  # within a group, the compiler splits over `data`
    )


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Puts arrays on all devices, whole.

    Args:
      tree: Pytree of arrays, the same in all processes.
      mesh: Devices.
    """
    leaves = jax.tree.leaves(tree)
    # Of arrays on devices of other processes no process can copy all; a compiled
    # function can.
    if any(isinstance(x, jax.Array) and not x.is_fully_addressable for x in leaves):
        return jax.jit(_same, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda leaf: _put(leaf, replicated(mesh)), tree)


def split_batches(data: Iterable[Tree], mesh: Mesh) -> Iterator[Tree]:
    """Puts batches on the devices, split along the first axis.

    Args:
      data: Batches, pytrees of arrays; whole, and the same in all processes.
      mesh: Devices.
    """
    for batch in data:
        yield jax.tree.map(lambda leaf: _put(leaf, split(mesh)), batch)


def _same(tree: Tree) -> Tree:
    return tree


def load_batches(dataset: Any, batch_size: int, mesh: Mesh) -> Iterator[Any]:
    """Puts all examples of a data set on the devices, in order, batch by batch.

    Args:
      dataset: Data set of `data.datasets`.
      batch_size: Examples of a batch, over all devices.
      mesh: Devices.
    """
    data = dataset.batches(batch_size, rows=local_rows(batch_size, mesh))
    return join_batches(data, mesh)


def local_rows(batch_size: int, mesh: Mesh) -> np.ndarray | None:
    """Returns the rows of a batch that go to devices of this process.

    Args:
      batch_size: Examples of a batch, over all devices.
      mesh: Devices.

    Returns:
      Increasing numbers of rows; None where a single process takes all rows.
    """
    if split(mesh).is_fully_addressable:
        return None
    # Several devices may hold the same rows; each row is taken once.
    parts = split(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique([row for (part,) in parts for row in range(batch_size)[part]])


def join_batches(data: Iterable[Tree], mesh: Mesh) -> Iterator[Tree]:
    """Puts batches on the devices, split along the first axis.

    Args:
      data: Batches, pytrees of arrays, of which this process has its `local_rows`.
      mesh: Devices.
    """
    join = functools.partial(jax.make_array_from_process_local_data, split(mesh))
    for batch in data:
        yield jax.tree.map(join, batch)


def _put(leaf: Any, sharding: Sharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    # This process has the whole array, of which its devices take their parts.
    leaf = np.asarray(leaf)
    return jax.make_array_from_process_local_data(sharding, leaf, leaf.shape)


def gather(tree: Tree) -> Tree:
    """Fetches arrays to the host of every process, whole.

    Args:
      tree: Pytree of arrays, however they are split.
    """

    def of_leaf(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return multihost_utils.process_allgather(leaf, tiled=True)
        return jax.device_get(leaf)

    return jax.tree.map(of_leaf, tree)


def check_batch_size(
    batch_size: int, mesh: Mesh, *, axes: tuple = _AXES, name: str = "batch_size"
) -> None:
    """Raises ValueError if the devices cannot divide a batch evenly.

    Args:
      batch_size: Examples of a batch.
      mesh: Devices.
      axes: Mesh axes that split the batch.
      name: What the caller calls the size, for the message.
    """
    count = math.prod(mesh.shape[axis] for axis in axes)
    if batch_size < 1 or batch_size % count:
        near = max(batch_size // count, 1) * count  # a size to suggest
        raise ValueError(
            f"{name} {batch_size} cannot be divided by {count} devices; "
            f"use a multiple such as {near}"
        )
