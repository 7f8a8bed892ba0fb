"""Progress of long work on stderr: bars with an ETA, or plain lines.

Contract of this file: long work is never silent. On a terminal, each task under way has
a line with a bar. Elsewhere (`nohup`, CI), one line such as

    [0:00:50] suite 3 of 8 | Corruptions: 12 of 95, ETA 0:05:10

is written every 25 s while a task is under way, with tasks within tasks after "|", and
nothing is written for what ends sooner. Tasks may be nested. Of several processes, the
first one writes.
"""

import contextlib
import datetime
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import jax
import rich.console
import rich.progress
import rich.text

from spatial_smoothing.runtime import processes

Item = TypeVar("Item")
_PLAIN_SECONDS = 25.0  # between two plain lines


def track(items: Iterable[Item], *, total: int, name: str) -> Iterator[Item]:
    """Yields items, and counts those that are done.

    Args:
      items: What to yield.
      total: Number of items.
      name: What is shown, such as "Corruptions".
    """
    with task(name, total=total) as under_way:
        for item in items:
            yield item
            under_way.update(under_way.done + 1)


@contextlib.contextmanager
def counted(*, total: int, name: str) -> Iterator[Callable[[], None]]:
    """Shows what `track` does while something else counts.

    Args:
      total: Number of items.
      name: What is shown.

    Yields:
      A function to call when another item is done.
    """
    with task(name, total=total) as under_way:
        yield lambda: under_way.update(under_way.done + 1)


@contextlib.contextmanager
def status(name: str) -> Iterator[None]:
    """Shows what is being done while the body runs, where nothing can be counted.

    Args:
      name: What is shown, such as "compiling the training step".
    """
    with task(name):
        yield


class Task:
    """Work that is under way; made by `task`.

    Args:
      name: What is shown.
      total: Number of items; None where they cannot be counted.
      done: Items that are done already.

    Attributes:
      name: What is shown; may be changed.
      total: Number of items, or None.
      done: Items that are done.
    """

    def __init__(self, name: str, *, total: int | None, done: int = 0):
        self.name, self.total, self.done = name, total, done
        self._first: tuple[int, float] | None = None

    def update(self, done: int) -> None:
        """Says how many items are done now."""
        self.done = done
        if self._first is None:
            self._first = (done, time.monotonic())

    def eta(self) -> datetime.timedelta | None:
        """Returns the time left; None while it is unknown.

        It goes by the items after the first, which is slower: it compiles.
        """
        if self.total is None or self._first is None:
            return None
        first, begin = self._first
        if self.done <= first:
            return None
        seconds = (time.monotonic() - begin) / (self.done - first)
        return datetime.timedelta(seconds=round(seconds * (self.total - self.done)))

    def count(self) -> str:
        """Returns how much is done, such as "12 of 95, ETA 0:05:10"."""
        if self.total is None:
            return ""
        eta = self.eta()
        return f"{self.done} of {self.total}" + (
            f", ETA {eta}" if eta is not None else ""
        )

    def line(self) -> str:
        """Returns the name and how much is done."""
        count = self.count()
        return f"{self.name}: {count}" if count else self.name


@contextlib.contextmanager
def task(name: str, *, total: int | None = None, done: int = 0) -> Iterator[Task]:
    """Shows a task while the body runs.

    Args:
      name: What is shown.
      total: Number of items; None where they cannot be counted.
      done: Items that are done already.
    """
    under_way = Task(name, total=total, done=done)
    if not _is_shown():
        yield under_way
        return
    _display.add(under_way)
    try:
        yield under_way
    finally:
        _display.remove(under_way)


def _is_shown() -> bool:
    # `is_first` starts JAX's backends, which is too early before processes have met.
    return not jax.distributed.is_initialized() or processes.is_first()


class _Count(rich.progress.ProgressColumn):
    """How much of a task is done, as the task itself says it."""

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        """Returns the text of a task of this module."""
        return rich.text.Text(task.fields["own"].count())


class _Display:
    """Shows all tasks under way: bars on a terminal, plain lines elsewhere."""

    def __init__(self):
        self._lock = threading.Lock()
        self._tasks: list[Task] = []
        self._numbers: dict[Task, rich.progress.TaskID] = {}
        self._bars: rich.progress.Progress | None = None
        self._ended: threading.Event | None = None

    def add(self, under_way: Task) -> None:
        """Begins to show a task; the first one starts the display."""
        with self._lock:
            self._tasks.append(under_way)
            if len(self._tasks) == 1:
                self._start()
            if self._bars is not None:
                self._numbers[under_way] = self._bars.add_task("", own=under_way)

    def remove(self, under_way: Task) -> None:
        """Ends to show a task; the last one stops the display."""
        with self._lock:
            self._tasks.remove(under_way)
            if self._bars is not None:
                self._bars.remove_task(self._numbers.pop(under_way))
            if not self._tasks:
                self._stop()

    def _start(self) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            self._bars = _Bars(
                _Name(),
                rich.progress.BarColumn(bar_width=None),
                rich.progress.TimeElapsedColumn(),
                _Count(),
                console=rich.console.Console(stderr=True),
                transient=True,
                # What is printed meanwhile goes above the bars, if it is shown there.
                redirect_stdout=sys.stdout.isatty(),
            )
            self._bars.start()
        else:
            self._ended = threading.Event()
            arguments = (self._ended, time.monotonic())
            threading.Thread(
                target=self._write_lines, args=arguments, daemon=True
            ).start()

    def _stop(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        if self._ended is not None:
            self._ended.set()
            self._ended = None

    def _write_lines(self, ended: threading.Event, begin: float) -> None:
        """Writes a line from time to time, in a thread, until the last task ends."""
        while not ended.wait(_PLAIN_SECONDS):
            with self._lock:
                lines = [under_way.line() for under_way in self._tasks]
            elapsed = datetime.timedelta(seconds=round(time.monotonic() - begin))
            # Nobody may be there to read; that is no reason to end the work.
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(f"[{elapsed}] {' | '.join(lines)}\n")
                sys.stderr.flush()


class _Name(rich.progress.ProgressColumn):
    """The name of a task, as the task itself says it."""

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        """Returns the text of a task of this module."""
        return rich.text.Text(task.fields["own"].name)


class _Bars(rich.progress.Progress):
    """Bars that follow the tasks of this module each time they are drawn."""

    def get_renderables(self) -> Iterable[rich.console.RenderableType]:
        """Takes over how much is done, and draws."""
        for shown in self.tasks:
            own = shown.fields["own"]
            shown.completed, shown.total = own.done, own.total
        yield from super().get_renderables()


_display = _Display()
