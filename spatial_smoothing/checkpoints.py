"""Checkpoints: saved asynchronously by orbax, verified on the way back.

Contract of this file: a checkpoint is a step number with named items (pytrees of
arrays) and a JSON object. Beside the items lies a fingerprint of their bits; a
checkpoint that cannot be read, or whose bits have changed, is passed over for the one
before. No checkpoint is ever deleted because it is bad: it is moved aside.
"""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

Tree = Any
_METADATA = "metadata"
_log = logging.getLogger(__name__)


class Restored(NamedTuple):
    """What came back: the step, the items asked for, and the JSON object."""

    step: int
    items: dict[str, Tree]
    metadata: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, newest last; a context manager.

    Args:
      directory: Where they lie; made when the first is saved.
      max_to_keep: Older ones are deleted once so many are complete.
      read_only: For readers beside a running writer: nothing is ever moved or deleted.
    """

    def __init__(self, directory: epath.PathLike, *, max_to_keep=3, read_only=False):
        self.directory = epath.Path(directory).absolute()
        self._read_only = read_only
        self._manager = None
        self._max_to_keep = max_to_keep

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Waits until the last save is complete."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints, increasing."""
        return sorted(self._open().all_steps()) if self.directory.exists() else []

    def save(
        self, step: int, items: Mapping[str, Tree], metadata: Mapping[str, Any]
    ) -> None:
        """Saves in the background; a step that is there already is left as it is.

        Args:
          step: Its number.
          items: Name -> pytree of arrays, which may be donated after the return.
          metadata: JSON-able.
        """
        if step in self.steps():
            return
        prints = {name: fingerprint(tree) for name, tree in items.items()}
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        args[_METADATA] = ocp.args.JsonSave({**metadata, "fingerprints": prints})
        self._open().save(step, args=ocp.args.Composite(**args))

    def restore(self, **abstract_items: Tree) -> Restored | None:
        """Reads the newest good checkpoint.

        Args:
          **abstract_items: Name -> pytree of `jax.ShapeDtypeStruct`, with shardings.

        Returns:
          Step, items and metadata; None where nothing was ever saved.

        Raises:
          ValueError: if there are checkpoints and none is good.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._read(step, abstract_items)
            except Exception as error:  # whatever a damaged file makes its reader raise
                reason = str(error).splitlines()[0][:200] if str(error) else repr(error)
                _log.warning(
                    "checkpoint %s is damaged (%s); trying the one before",
                    self.directory / str(step),
                    reason,
                )
                self._put_aside(step)
        if steps:
            raise ValueError(
                f"no usable checkpoint in {self.directory}: {len(steps)} damaged; "
                "restore a copy, or train in another workdir"
            )
        return None

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=None if self._read_only else self._max_to_keep,
                create=not self._read_only,
                read_only=self._read_only,
            )
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        return self._manager

    def _read(self, step: int, abstract_items: Mapping[str, Tree]) -> Restored:
        args = {n: ocp.args.StandardRestore(t) for n, t in abstract_items.items()}
        args[_METADATA] = ocp.args.JsonRestore()
        found = self._open().restore(step, args=ocp.args.Composite(**args))
        metadata = dict(found[_METADATA])
        prints = metadata.pop("fingerprints")
        items = {name: found[name] for name in abstract_items}
        for name, tree in items.items():
            if fingerprint(tree) != prints[name]:
                raise ValueError(f"the bits of {name!r} have changed")
        return Restored(step, items, metadata)

    def _put_aside(self, step: int) -> None:
        """Moves a bad checkpoint out of the way of a later one of the same step."""
        if self._read_only:
            return
        target = self.directory.parent / "damaged_checkpoints"
        target.mkdir(exist_ok=True)
        taken = {path.name for path in target.iterdir()}
        names = (f"{step}", *(f"{step}-{count}" for count in range(1, len(taken) + 2)))
        (self.directory / str(step)).rename(
            target / next(name for name in names if name not in taken)
        )
        self._manager.reload()


def fingerprint(tree: Tree) -> list[int]:
    """Returns a number a leaf that changes when any one of its bits does.

    A weighted sum of the bits as 32-bit words, modulo 2^32: exact and the same in any
    order, so that it can be computed where the shards lie.
    """
    return [int(value) for value in jax.device_get(_fingerprint(jax.tree.leaves(tree)))]


@jax.jit
def _fingerprint(leaves: list[jax.Array]) -> list[jax.Array]:
    def of_leaf(leaf: jax.Array) -> jax.Array:
        leaf = leaf.astype(jnp.uint8) if leaf.dtype == bool else leaf
        width = min(leaf.dtype.itemsize, 4)
        unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[width]
        words = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32).ravel()
        weights = 2 * jnp.arange(words.size, dtype=jnp.uint32) + 1  # odd: invertible
        return (words * weights).sum(dtype=jnp.uint32)

    return [of_leaf(leaf) for leaf in leaves]


def abstract(tree: Tree, sharding: jax.sharding.Sharding) -> Tree:
    """Returns shapes, types and sharding of a tree, to restore into."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
    )
