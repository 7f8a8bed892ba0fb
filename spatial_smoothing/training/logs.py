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
import time
from collections.abc import Mapping
from typing import Any

from etils import epath

from spatial_smoothing.runtime import paths, progress
from spatial_smoothing.training.options import Log, Record

# Seconds between two points of a curve in TensorBoard within an epoch.
_POINT_SECONDS = 30.0
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
        self._step, self._board = step, None
        self._last_point = time.monotonic()
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
        if time.monotonic() - self._last_point > _POINT_SECONDS:
            self._add_point(record)

    def epoch(self, record: Record) -> None:
        """Writes the record everywhere, with the time of day."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        # An epoch may be recorded again, after an evaluation that was interrupted.
        before = [r for r in self._records if r["step"] < record["step"]]
        self._records = [*before, {**record, "time": now}]
        self._write()
        self._add_point(record)
        print(self._row(record), flush=True)

    def close(self) -> None:
        """Ends what `start` began."""
        self._open.close()

    def _add_point(self, record: Record) -> None:
        """Adds a record to the curves in TensorBoard."""
        self._last_point = time.monotonic()
        if self._board is None:
            # Imported when there is something to write, so that the first step does
            # not wait for it.
            from spatial_smoothing.training.tensorboard import Board

            self._board = Board(
                self._folder, after=self._step, hyperparameters=self._hyperparameters
            )
        self._board.write(record)

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
