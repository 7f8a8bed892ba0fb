"""The log of a training run: terminal, `metrics.jsonl`, TensorBoard.

Contract of this file: one JSON object and one line an epoch. What an interrupted run
logged after its last checkpoint is dropped when it continues, for it is made again.
Files are written whole, for object stores know no appending.
"""

import datetime
import json
import math
import os
import socket
import time
from collections.abc import Mapping

import rich.console
import rich.progress
from etils import epath
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from spatial_smoothing.runtime import paths
from spatial_smoothing.training.loop import Log, Record


class RunLog(Log):
    """Logs to a workdir and the terminal.

    Args:
      workdir: Where `metrics.jsonl` and `tensorboard/` go.
      name: Shown before the progress bar.
    """

    def __init__(self, workdir: epath.PathLike, *, name: str):
        self._path = epath.Path(workdir) / "metrics.jsonl"
        self._board = epath.Path(workdir) / "tensorboard"
        self._name = name
        self._console = rich.console.Console(highlight=False)
        self._progress = None
        self._heading = ""

    def start(self, *, step: int, total: int, steps_per_epoch: int) -> None:
        """Drops what was logged after `step`, and shows the bar."""
        self._records = [r for r in read(self._path) if r["step"] <= step]
        self._write()
        self._events = _Events(self._board, after=step)
        self._steps_per_epoch, self._total = steps_per_epoch, total
        self._first, self._begin = step, time.monotonic()
        if step:
            self._console.print(f"continuing from step {step} of {total}")
        self._progress = rich.progress.Progress(
            rich.progress.TextColumn(self._name),
            rich.progress.BarColumn(bar_width=None),
            rich.progress.TextColumn("epoch {task.fields[epoch]}"),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("ETA {task.fields[eta]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._progress.start()
        self._task = self._progress.add_task(
            "", total=total, completed=step, epoch=self._epoch(step), eta="-:--:--"
        )

    def has(self, step: int) -> bool:
        """Whether `metrics.jsonl` had a record of this step when training started."""
        return any(record["step"] == step for record in self._records)

    def progress(self, step: int) -> None:
        """Moves the bar."""
        self._progress.update(
            self._task, completed=step, epoch=self._epoch(step), eta=self._eta(step)
        )

    def epoch(self, record: Record) -> None:
        """Writes the record everywhere."""
        before = [r for r in self._records if r["step"] < record["step"]]
        self._records = [*before, record]
        self._write()
        scalars = {k: v for k, v in record.items() if k not in ("epoch", "step")}
        self._events.write(int(record["step"]), scalars)
        self._console.print(self._row(record))

    def close(self) -> None:
        """Takes the bar away."""
        if self._progress is not None:
            self._progress.stop()

    def _write(self) -> None:
        if not (folder := self._path.parent).exists():
            raise FileNotFoundError(f"workdir {folder} is gone; nothing can be logged")
        lines = (json.dumps(record) + "\n" for record in self._records)
        paths.write_text(self._path, "".join(lines))

    def _epoch(self, step: int) -> str:
        epochs = self._total // self._steps_per_epoch
        return f"{min(step // self._steps_per_epoch + 1, epochs)}/{epochs}"

    def _eta(self, step: int) -> str:
        done = max(step - self._first, 1)
        seconds = (time.monotonic() - self._begin) * (self._total - step) / done
        return str(datetime.timedelta(seconds=round(seconds)))

    def _row(self, record: Record) -> str:
        """One line of at most 80 columns, under a heading where that changes."""
        epochs = str(self._total // self._steps_per_epoch)
        cells = [
            ("epoch", f"{int(record['epoch']):{len(epochs)}}/{epochs}"),
            ("train NLL", f"{record['train_loss']:.4f}"),
            ("acc.", f"{record['train_accuracy']:6.1%}"),
        ]
        for split in ("val", "test"):
            if f"{split}_nll" in record:
                cells.append((f"{split} NLL", f"{record[f'{split}_nll']:.4f}"))
                cells.append(("acc.", f"{record[f'{split}_accuracy']:6.1%}"))
        cells += [
            ("lr", f"{record['learning_rate']:6.3g}"),
            ("images/s", f"{record.get('images_per_second', math.nan):.0f}"),
            ("ETA", f"{self._eta(int(record['step'])):>7}"),
        ]
        widths = [max(map(len, cell)) for cell in cells]
        lines = [
            " ".join(
                f"{text:>{width}}" for text, width in zip(row, widths, strict=True)
            )
            for row in zip(*cells, strict=True)
        ]
        new_heading, self._heading = self._heading != lines[0], lines[0]
        return "\n".join(lines if new_heading else lines[1:])


class _Events:
    """A file of TensorBoard's events, which makes it forget those after a step."""

    def __init__(self, folder: epath.Path, *, after: int):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / f"events.out.tfevents.{name}"
        self._content = b""
        self._add(Event(file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._add(Event(step=after + 1, session_log=start))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=k, simple_value=v) for k, v in scalars.items()]
        self._add(Event(step=step, summary=Summary(value=values)))
        with paths.naming(self._path):
            self._path.write_bytes(self._content)

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        data = event.SerializeToString()
        size = len(data).to_bytes(8, "little")  # the framing of a TFRecord
        for part in (size, data):
            self._content += part + masked_crc32c(part).to_bytes(4, "little")


def read(path: epath.PathLike) -> list[Record]:
    """Reads a `metrics.jsonl`, the last record of each step.

    Lines that are no records, as a crash may leave them, are left out.
    """
    path = epath.Path(path)
    records = {}
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "step" in record:
            records[record["step"]] = record
    return [records[step] for step in sorted(records)]
