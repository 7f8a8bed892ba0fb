"""Progress of long work: a bar with an ETA on stderr, if that is a terminal."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import rich.console
import rich.progress

Item = TypeVar("Item")


def track(items: Iterable[Item], *, total: int, name: str) -> Iterator[Item]:
    """Yields `items` under a progress bar with an ETA, if there is a terminal."""
    with counted(total=total, name=name) as advance:
        for item in items:
            yield item
            advance()


@contextlib.contextmanager
def counted(*, total: int, name: str) -> Iterator[Callable[[], None]]:
    """Shows the bar of `track` while something else counts, by the function given."""
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
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)
