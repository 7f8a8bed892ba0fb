"""Checkpoints: saved asynchronously by orbax, verified on the way back.

Contract of this file: a checkpoint is a step number with named items (pytrees of
arrays) and a JSON object. It has its name only when all of it is written. Beside the
items lies a fingerprint of their bits; a checkpoint that cannot be read, or whose bits
have changed, is passed over for the one before. No checkpoint is ever deleted because
it is bad: it is moved aside, once another has shown that the fault is not the reader's.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from spatial_smoothing.runtime import paths, processes

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
      directory: Where they lie; made when the first is saved, in a folder that exists.
        There must be no other writer: what a killed one left unfinished is removed.
      max_to_keep: Older ones are deleted once so many are complete.
      read_only: For readers beside a running writer: nothing is ever moved or deleted.
    """

    def __init__(self, directory: epath.PathLike, *, max_to_keep=3, read_only=False):
        self.directory = paths.absolute(directory)
        self._read_only = read_only
        self._manager = None
        self._max_to_keep = max_to_keep
        self._saving: int | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Waits until the last save is complete; OSError if it fails."""
        if self._manager is None:
            return
        manager, self._manager = self._manager, None
        try:
            with self._reported():
                manager.close()
        except OSError:
            manager.close()  # an error of the last save is raised once, before the rest
            raise

    def check(self) -> None:
        """Raises OSError if the save in the background has failed; does not wait."""
        if self._manager is not None and not self._manager.is_saving_in_progress():
            with self._reported():
                self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints, increasing.

        In all processes those that the first sees: file systems may show others later.
        """
        if not processes.of_first(self.directory.exists()):
            return []
        return processes.of_first(sorted(self._open().all_steps()))

    def save(
        self, step: int, items: Mapping[str, Tree], metadata: Mapping[str, Any]
    ) -> None:
        """Saves in the background; a step that is there already is left as it is.

        Args:
          step: Its number.
          items: Name -> pytree of arrays, which may be donated after the return.
          metadata: JSON-able.

        Raises:
          OSError: if this save, or the one before it, cannot be written. Complete
            checkpoints are left as they are.
        """
        if step in self.steps():
            return
        prints = {name: fingerprint(tree) for name, tree in items.items()}
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        args[_METADATA] = ocp.args.JsonSave({**metadata, "fingerprints": prints})
        with self._reported():
            if self._manager is not None:
                self._manager.wait_until_finished()  # may raise of the step before
            self._saving = step
            if not self.directory.parent.exists():
                raise FileNotFoundError(f"{self.directory.parent} is gone")
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
        steps, reasons = self.steps(), {}
        for step in reversed(steps):
            try:
                restored, error = self._read(step, abstract_items), None
            except Exception as exception:  # whatever damaged files make readers raise
                restored, error = None, exception
            (anywhere,) = processes.largest(error is not None)
            if not anywhere:
                self._put_aside(reasons)
                return restored
            reasons[step] = paths.first_line(error) if error else "to another process"
            _log.warning(
                "checkpoint %s is damaged (%s); trying the one before",
                self.directory / str(step),
                reasons[step],
            )
        if steps:
            raise ValueError(
                f"no usable checkpoint in {self.directory}: {len(steps)} damaged, the "
                f"newest because {reasons[steps[-1]]}; restore a copy, or train in "
                "another workdir"
            )
        return None

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=None if self._read_only else self._max_to_keep,
                create=not self._read_only,
                cleanup_tmp_directories=not self._read_only,
                read_only=self._read_only,
                # Else threads wait 20 minutes for a directory that cannot be made.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
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

    def _put_aside(self, steps: Iterable[int]) -> None:
        """Moves bad checkpoints out of the way of later ones of the same steps."""
        if self._read_only or not steps:
            return
        if processes.is_first():
            target = self.directory.parent / "damaged_checkpoints"
            target.mkdir(exist_ok=True)
            for step in steps:
                taken = {path.name for path in target.iterdir()}
                names = (str(step), *(f"{step}-{n}" for n in range(1, len(taken) + 2)))
                (self.directory / str(step)).rename(
                    target / next(name for name in names if name not in taken)
                )
        processes.largest(0)  # the others look again when all are moved
        self._manager.reload()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Turns what goes wrong with a save into one line, with what is left."""
        try:
            yield
        except Exception as error:  # orbax, tensorstore and the system have their own
            complete = [step for step in _saved(self.directory) if step != self._saving]
            kept = f"{complete[-1]} is complete" if complete else "there is none before"
            raise OSError(
                f"cannot save checkpoint {self._saving} in {self.directory}: "
                f"{paths.reason(error, self.directory)}; {kept}; put that right, and "
                "the same command continues"
            ) from error


def _saved(directory: epath.Path) -> list[int]:
    """The steps of the complete checkpoints, without a manager."""
    return sorted(ocp.utils.checkpoint_steps(directory)) if directory.exists() else []


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


def abstract(tree: Tree, *, sharding: jax.sharding.Sharding | None = None) -> Tree:
    """Returns shapes, types and sharding (None: its own) of a tree, to restore into."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding or leaf.sharding
        ),
        tree,
    )
