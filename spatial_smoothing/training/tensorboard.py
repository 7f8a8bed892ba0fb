"""A run's events for TensorBoard.

Importing this file takes a second where PyTorch is installed, because tensorboardX
imports it. `logs.py` imports it when there is something to write.
"""

import os
import time
from collections.abc import Mapping
from typing import Any

from etils import epath
from tensorboardX import record_writer
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams, scalar

from spatial_smoothing.runtime import paths
from spatial_smoothing.training.options import Record

_SPLITS = ("val", "test")
# Fields of a record -> their tags in TensorBoard, which groups by what is before "/".
# Scores have the tags that `_tag` makes of their names.
_TAGS = {
    "train_loss": "train/nll",
    "train_accuracy": "train/accuracy",
    "learning_rate": "train/learning_rate",
    "images_per_second": "speed/images_per_second",
    "data_ms": "speed/data_ms",
    "compute_ms": "speed/compute_ms",
}


class _WholeFile:
    """A file that is written whole at each flush; see `_WholeFiles`."""

    def __init__(self, path: epath.Path):
        self._path, self._content = path, b""

    def write(self, data: bytes) -> None:
        """Adds bytes, in memory."""
        self._content += data

    def flush(self) -> None:
        """Writes the file."""
        with paths.naming(self._path):
            self._path.write_bytes(self._content)

    def close(self) -> None:
        """Does nothing: what is worth keeping was flushed."""


class _WholeFiles:
    """How tensorboardX opens a path that begins with `epath:`, local or remote."""

    def open(self, path: str) -> _WholeFile:
        """Returns a new file."""
        return _WholeFile(epath.Path(path.partition(":")[2]))

    def directory_check(self, path: str) -> None:
        """Does nothing: the caller has made the folder."""


record_writer.register_writer_factory("epath", _WholeFiles())


class Board:
    """A file of TensorBoard's events.

    It is written without the thread that tensorboardX uses by default, in which errors
    such as a full disk would be lost.

    Args:
      folder: Where the file goes; made if it is not there.
      after: Step after which TensorBoard forgets what earlier files of the folder say.
      hyperparameters: Name -> value; None values are left out.
    """

    def __init__(
        self, folder: epath.Path, *, after: int, hyperparameters: Mapping[str, Any]
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(f"epath:{folder / 'events'}", f".{os.getpid()}")
        self._add(step=after + 1, session_log=SessionLog(status=SessionLog.START))
        if hyperparameters:
            # TensorBoard knows texts, numbers and switches.
            plain = {
                name: value if isinstance(value, str | int | float) else str(value)
                for name, value in hyperparameters.items()
                if value is not None
            }
            shown = dict.fromkeys(("train/nll", "test/nll", "test/accuracy"))
            experiment, session, _ = hparams(plain, shown)  # the last one ends it
            self._add(summary=experiment)
            self._add(summary=session)

    def write(self, record: Record) -> None:
        """Writes the values of a record at its step."""
        scalars = {k: v for k, v in record.items() if k not in ("epoch", "step")}
        # One event for all: they have one step and one time.
        values = [scalar(_tag(name), value).value[0] for name, value in scalars.items()]
        self._add(step=int(record["step"]), summary=Summary(value=values))
        self._writer.flush()

    def _add(self, **fields: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), **fields))


def _tag(name: str) -> str:
    """Returns the tag of a field of a record, such as "test/nll" of `test_nll`."""
    split, _, score = name.partition("_")
    return f"{split}/{score}" if split in _SPLITS else _TAGS.get(name, name)
