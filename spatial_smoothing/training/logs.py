"""The log of a training run: terminal, `metrics.jsonl`, TensorBoard.

Contract of this file: `metrics.jsonl` has one line, a JSON object, for each epoch. What
an interrupted run logged after its last checkpoint is dropped when the run continues,
because these steps are made again. Files are written whole, because object stores have
no appending.
"""

import contextlib
import datetime
import json
import math
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

from spatial_smoothing.runtime import paths, progress
from spatial_smoothing.training.options import Log, Record

# Seconds between two points of a curve in TensorBoard within an epoch.
_POINT_SECONDS = 30.0
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
_SPLITS = ("val", "test")


class RunLog(Log):
    """Logs to a workdir and to stdout.

    Args:
      workdir: Directory of the run, where `metrics.jsonl` and `tensorboard/` go.
      name: Name of the run beside the progress bar.
      hyperparameters: Config of the run, shown in TensorBoard; None for none.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        name: str,
        hyperparameters: Mapping[str, Any] | None = None,
    ):
        self._path = epath.Path(workdir) / "metrics.jsonl"
        self._folder = epath.Path(workdir) / "tensorboard"
        self._name, self._hyperparameters = name, dict(hyperparameters or {})
        self._heading = ""
        self._open = contextlib.ExitStack()

    def start(self, *, step: int, total: int, steps_per_epoch: int) -> None:
        """Drops what was logged after `step`, and begins to show progress."""
        self._epochs = total // steps_per_epoch
        # Later records are of steps that an interrupted run did not save.
        self._records = [r for r in read(self._path) if r["step"] <= step]
        self._write()
        self._board = _Board(
            self._folder, after=step, hyperparameters=self._hyperparameters
        )
        if step:
            print(f"continuing from step {step} of {total}", flush=True)
        self._task = self._open.enter_context(
            progress.task(self._name, total=total, done=step)
        )

    def status(self, text: str) -> contextlib.AbstractContextManager:
        """Shows what is being done besides steps."""
        return progress.task(text)

    def has(self, step: int) -> bool:
        """Whether `metrics.jsonl` had a record of this step when training started."""
        return any(record["step"] == step for record in self._records)

    def progress(self, record: Record) -> None:
        """Moves the bar, and adds points to the curves from time to time."""
        self._task.name = f"{self._name}, epoch {record['epoch']} of {self._epochs}"
        self._task.update(int(record["step"]))
        if self._board.seconds_since_last() > _POINT_SECONDS:
            self._board.write(record)

    def epoch(self, record: Record) -> None:
        """Writes the record everywhere, with the time of day."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        # An epoch may be recorded again, after an evaluation that was interrupted.
        before = [r for r in self._records if r["step"] < record["step"]]
        self._records = [*before, {**record, "time": now}]
        self._write()
        self._board.write(record)
        print(self._row(record), flush=True)

    def close(self) -> None:
        """Ends what `start` began."""
        self._open.close()

    def _write(self) -> None:
        # Writing would make a workdir that was deleted anew, without its config.
        if not (folder := self._path.parent).exists():
            raise FileNotFoundError(f"workdir {folder} is gone; nothing can be logged")
        lines = (json.dumps(record) + "\n" for record in self._records)
        paths.write_text(self._path, "".join(lines))

    def _row(self, record: Record) -> str:
        """Returns a line of at most 80 columns, after a heading where that changes."""
        epochs, eta = str(self._epochs), self._task.eta()
        cells = [
            ("epoch", f"{int(record['epoch']):{len(epochs)}}/{epochs}"),
            ("train NLL", f"{record['train_loss']:.4f}"),
            ("acc.", f"{record['train_accuracy']:6.1%}"),
        ]
        for split in _SPLITS:
            if f"{split}_nll" in record:
                cells.append((f"{split} NLL", f"{record[f'{split}_nll']:.4f}"))
                cells.append(("acc.", f"{record[f'{split}_accuracy']:6.1%}"))
        cells += [
            ("lr", f"{record['learning_rate']:6.3g}"),
            ("images/s", f"{record.get('images_per_second', math.nan):.0f}"),
            ("ETA", f"{'-:--:--' if eta is None else eta!s:>7}"),
        ]
        # Each column is as wide as its heading or its value.
        widths = [max(map(len, cell)) for cell in cells]
        heading, row = (
            " ".join(
                f"{text:>{width}}" for text, width in zip(texts, widths, strict=True)
            )
            for texts in zip(*cells, strict=True)
        )
        is_new, self._heading = self._heading != heading, heading
        return f"{heading}\n{row}" if is_new else row


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


class _Board:
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
        self._last = time.monotonic()
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

    def seconds_since_last(self) -> float:
        """Returns how long ago the last values were written."""
        return time.monotonic() - self._last

    def write(self, record: Record) -> None:
        """Writes the values of a record at its step."""
        self._last = time.monotonic()
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


def read(path: epath.PathLike) -> list[Record]:
    """Reads a `metrics.jsonl`.

    Args:
      path: The file, local or remote; it need not exist.

    Returns:
      The last record of each step, by increasing step. Lines that are no records, as a
      crash may leave them, are left out.
    """
    path = epath.Path(path)
    records = {}
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # cut short, or a block that never reached the disk
        if isinstance(record, dict) and "step" in record:
            records[record["step"]] = record
    return [records[step] for step in sorted(records)]
