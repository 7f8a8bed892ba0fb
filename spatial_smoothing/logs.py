"""The log of a training run: terminal, `metrics.jsonl`, TensorBoard.

Contract of this file: one JSON object and one line an epoch. What an interrupted run
logged after its last checkpoint is dropped when it continues, for it is made again.
"""

import datetime
import json
import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import rich.console
import rich.progress
import tensorboardX
from etils import epath

from spatial_smoothing.training import Log, Record

Item = TypeVar("Item")


def quiet() -> None:
    """Leaves on the terminal what this package says; others' errors are exceptions."""
    for name in ("absl", "jax", "orbax"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    own = logging.getLogger("spatial_smoothing")
    if not own.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("warning: %(message)s"))
        own.addHandler(handler)
        own.propagate = False


def track(items: Iterable[Item], *, total: int, name: str) -> Iterator[Item]:
    """Yields `items` under a progress bar with an ETA, if there is a terminal."""
    columns = (
        rich.progress.TextColumn(name),
        rich.progress.BarColumn(bar_width=None),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("ETA"),
        rich.progress.TimeRemainingColumn(),
    )
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        yield from progress.track(items, total=total)


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
        self._progress = self._writer = None
        self._heading = ""

    def start(self, *, step: int, total: int, steps_per_epoch: int) -> None:
        """Drops what was logged after `step`, and shows the bar."""
        kept = [record for record in read(self._path) if record["step"] <= step]
        temporary = self._path.with_name("metrics.jsonl.tmp")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
        temporary.replace(self._path)
        self._steps_per_epoch, self._total = steps_per_epoch, total
        self._first, self._begin = step, time.monotonic()
        if step:
            self._console.print(f"continuing from step {step} of {total}")
        self._writer = tensorboardX.SummaryWriter(str(self._board), purge_step=step + 1)
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

    def progress(self, step: int) -> None:
        """Moves the bar."""
        self._progress.update(
            self._task, completed=step, epoch=self._epoch(step), eta=self._eta(step)
        )

    def epoch(self, record: Record) -> None:
        """Writes the record everywhere."""
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        step = int(record["step"])
        for name, value in record.items():
            if name not in ("epoch", "step"):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()
        self._console.print(self._row(record))

    def close(self) -> None:
        """Takes the bar away and closes the files."""
        if self._progress is not None:
            self._progress.stop()
            self._writer.close()

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
            ("images/s", f"{record['images_per_second']:.0f}"),
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


def read(path: epath.PathLike) -> list[Record]:
    """Reads a `metrics.jsonl`; a last line cut short by a crash is left out."""
    path = epath.Path(path)
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
