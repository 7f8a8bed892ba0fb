"""Checkpoints: saved in the background by orbax, verified when they are restored.

Contract of this file: a checkpoint is a step number with named items (pytrees of
arrays) and a JSON object, which also holds a fingerprint of the bits of the items. A
checkpoint gets its name when all of it is written. One that cannot be read, or whose
bits have changed, is damaged: the one before is restored in its place. Damaged
checkpoints are never deleted. They are moved aside, and only after another one was
restored, which shows that the fault is not the reader's.
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
    """A restored checkpoint.

    Attributes:
      step: Its number.
      items: Name -> pytree of arrays, for the names that were asked for.
      metadata: The JSON object.
    """

    step: int
    items: dict[str, Tree]
    metadata: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, oldest first; a context manager.

    Args:
      directory: Their directory. It is made with the first checkpoint, in a folder that
        exists. There must be no other writer: unfinished checkpoints are taken for
        those of a writer that was killed, and removed.
      max_to_keep: Number of complete checkpoints to keep; older ones are deleted.
      read_only: Whether to move and delete nothing, to read beside a running writer.

    Raises:
      ValueError: if checkpoints cannot be saved in such a path; see `check_path`.
    """

    def __init__(self, directory: epath.PathLike, *, max_to_keep=3, read_only=False):
        self.directory = paths.absolute(directory)
        if not read_only:
            check_path(self.directory)
        self._read_only = read_only
        self._manager = None  # opened at the first use, because it makes the directory
        self._max_to_keep = max_to_keep
        self._saving: int | None = None  # step of the newest save, to name in errors

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Waits until the last save is complete; raises OSError if it fails."""
        if self._manager is None:
            return
        manager, self._manager = self._manager, None
        try:
            with self._reported():
                manager.close()
        except OSError:
            # The error of a save in the background is raised once, before the manager
            # has closed the rest.
            manager.close()
            raise

    def check(self) -> None:
        """Raises OSError if the save in the background has failed; does not wait."""
        if self._manager is not None and not self._manager.is_saving_in_progress():
            with self._reported():
                self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints, increasing.

        All processes get those that the first one sees, because a shared file system
        may show a new file to one machine later than to another.
        """
        if not processes.of_first(self.directory.exists()):
            return []
        return processes.of_first(sorted(self._open().all_steps()))

    def save(
        self, step: int, items: Mapping[str, Tree], metadata: Mapping[str, Any]
    ) -> None:
        """Saves in the background; a step that is there already is left as it is.

        Args:
          step: Number of the checkpoint.
          items: Name -> pytree of arrays. They may be donated after the return.
          metadata: Values that JSON can hold.

        Raises:
          OSError: if this save, or the one before it, cannot be written. Complete
            checkpoints are left as they are.
        """
        if step in self.steps():
            return
        # Fingerprints are computed now: the arrays may be donated after the return.
        prints = {name: fingerprint(tree) for name, tree in items.items()}
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        args[_METADATA] = ocp.args.JsonSave({**metadata, "fingerprints": prints})
        with self._reported():
            if self._manager is not None:
                # The save before may still be under way, or may have failed.
                self._manager.wait_until_finished()
            self._saving = step
            # Orbax would make a workdir that was deleted anew, without its config.
            if not self.directory.parent.exists():
                raise FileNotFoundError(f"{self.directory.parent} is gone")
            self._open().save(step, args=ocp.args.Composite(**args))

    def restore(self, **abstract_items: Tree) -> Restored | None:
        """Restores the newest checkpoint that is not damaged.

        Args:
          **abstract_items: Name -> pytree of `jax.ShapeDtypeStruct`, with shardings.
            Arrays that were saved in another type are converted to the one asked for.

        Returns:
          The checkpoint; None where nothing was ever saved.

        Raises:
          ValueError: if there are checkpoints, and all are damaged.
        """
        steps, reasons = self.steps(), {}  # step of a damaged checkpoint -> why
        for step in reversed(steps):
            try:
                restored, error = self._read(step, abstract_items), None
            except Exception as exception:  # whatever damaged files make readers raise
                restored, error = None, exception
            # All processes take the same checkpoint, one that is good for all.
            if not processes.any_process(error is not None):
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
            # A reader must not remove what a writer beside it has not finished yet.
            options = ocp.CheckpointManagerOptions(
                max_to_keep=None if self._read_only else self._max_to_keep,
                create=not self._read_only,
                cleanup_tmp_directories=not self._read_only,
                read_only=self._read_only,
                # Otherwise orbax waits for 20 minutes for a directory that cannot be
                # made.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            )
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        return self._manager

    def _read(self, step: int, abstract_items: Mapping[str, Tree]) -> Restored:
        """Restores one checkpoint; raises ValueError if its bits have changed.

        Fingerprints are of the arrays as they were saved. These may have other types
        than are asked for: where 64-bit types were on in training, or counts were
        floating-point numbers. So they are read as they are, and converted afterwards.
        """
        saved = {
            name: _with_saved_types(tree, self.directory / str(step) / name)
            for name, tree in abstract_items.items()
        }
        args = {n: ocp.args.StandardRestore(tree) for n, tree in saved.items()}
        args[_METADATA] = ocp.args.JsonRestore()
        wide = any(leaf.dtype.itemsize == 8 for leaf in jax.tree.leaves(saved))
        # Without this, JAX would cut 64-bit arrays to 32 bits while it reads them.
        with jax.enable_x64(True) if wide else contextlib.nullcontext():
            found = self._open().restore(step, args=ocp.args.Composite(**args))
            metadata = dict(found[_METADATA])
            prints = metadata.pop("fingerprints")
            for name in abstract_items:
                if fingerprint(found[name]) != prints[name]:
                    raise ValueError(f"the bits of {name!r} have changed")
            items = {n: _convert(found[n], tree) for n, tree in abstract_items.items()}
        return Restored(step, items, metadata)

    def _put_aside(self, steps: Iterable[int]) -> None:
        """Moves damaged checkpoints, so that the run can save these steps again."""
        if self._read_only or not steps:
            return
        if processes.is_first():
            target = self.directory.parent / "damaged_checkpoints"
            target.mkdir(exist_ok=True)
            for step in steps:
                # The same step may have been damaged before: 7, 7-1, 7-2, ...
                taken = {path.name for path in target.iterdir()}
                names = (str(step), *(f"{step}-{n}" for n in range(1, len(taken) + 2)))
                (self.directory / str(step)).rename(
                    target / next(name for name in names if name not in taken)
                )
        processes.barrier()  # the other processes look again when all are moved
        self._manager.reload()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Turns an error of a save into one line that says which checkpoint is left."""
        try:
            yield
        except Exception as error:  # orbax, tensorstore and the system raise their own
            complete = [
                step for step in saved_steps(self.directory) if step != self._saving
            ]
            kept = f"{complete[-1]} is complete" if complete else "there is none before"
            raise OSError(
                f"cannot save checkpoint {self._saving} in {self.directory}: "
                f"{paths.reason(error, self.directory)}; {kept}; put that right, and "
                "the same command continues"
            ) from error


def check_path(path: epath.Path) -> None:
    """Checks that what is saved in a folder can be read again.

    Orbax looks for the parts of a checkpoint by a pattern that begins with the path.
    With one of these characters in it, orbax finds none of them, or those of another
    run, and saves an empty checkpoint without a word. tensorstore takes a backslash for
    the end of a folder's name.

    Args:
      path: Absolute path of a folder.

    Raises:
      ValueError: if its path has such a character.
    """
    if found := [character for character in "[*?\\" if character in str(path)]:
        raise ValueError(
            f"no checkpoint can be saved in {path}, because its path has the character "
            f"{found[0]}; choose a path without *, ?, [ and \\"
        )


def saved_steps(directory: epath.Path) -> list[int]:
    """Returns the steps of the complete checkpoints, increasing.

    Args:
      directory: Directory of the checkpoints, which need not be there.
    """
    return sorted(ocp.utils.checkpoint_steps(directory)) if directory.exists() else []


def _with_saved_types(tree: Tree, path: epath.Path) -> Tree:
    """Returns shapes and shardings of a tree, with the types of a saved item.

    Args:
      tree: Pytree of `jax.ShapeDtypeStruct`.
      path: Folder of the item in a checkpoint.
    """
    if not path.exists():
        return tree  # to be told about by what reads it
    metadata = ocp.StandardCheckpointHandler().metadata(path)
    types = {
        leaf.name: leaf.dtype
        for leaf in jax.tree.leaves(metadata.tree, is_leaf=lambda x: hasattr(x, "name"))
    }

    def with_type(keys: tuple, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        name = jax.tree_util.keystr(keys, simple=True, separator=".")
        dtype = types.get(name, leaf.dtype)
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)

    return jax.tree_util.tree_map_with_path(with_type, tree)


def _convert(tree: Tree, like: Tree) -> Tree:
    """Returns arrays in the types of other arrays, and with their shardings."""

    def one(leaf: jax.Array, wanted: jax.ShapeDtypeStruct) -> jax.Array:
        if leaf.dtype == wanted.dtype:
            return leaf
        convert = jax.jit(
            lambda x: x.astype(wanted.dtype), out_shardings=wanted.sharding
        )
        return convert(leaf)

    return jax.tree.map(one, tree, like)


def fingerprint(tree: Tree) -> list[int]:
    """Returns a number for each leaf, which changes when any one of its bits does.

    The number is a weighted sum of the bits as 32-bit words, modulo 2^32. It is exact
    and the same in any order, so that each device can sum its own shards.

    Args:
      tree: Pytree of arrays, of any type but complex.
    """
    return [int(value) for value in jax.device_get(_fingerprint(jax.tree.leaves(tree)))]


@jax.jit
def _fingerprint(leaves: list[jax.Array]) -> list[jax.Array]:
    def of_leaf(leaf: jax.Array) -> jax.Array:
        leaf = leaf.astype(jnp.uint8) if leaf.dtype == bool else leaf
        width = min(leaf.dtype.itemsize, 4)  # two words for a 64-bit number
        unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[width]
        words = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32).ravel()
        # Odd weights are invertible modulo 2^32: no change of one word is lost.
        weights = 2 * jnp.arange(words.size, dtype=jnp.uint32) + 1
        return (words * weights).sum(dtype=jnp.uint32)

    return [of_leaf(leaf) for leaf in leaves]


def abstract(tree: Tree, *, sharding: jax.sharding.Sharding | None = None) -> Tree:
    """Returns shapes, types and shardings of a tree, to restore it.

    Args:
      tree: Pytree of arrays, or of `jax.ShapeDtypeStruct`.
      sharding: Sharding of all arrays; None for that of each one.
    """
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding or leaf.sharding
        ),
        tree,
    )
