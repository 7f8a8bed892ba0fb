"""Stopping a run in good order: the first signal asks, the second insists."""

import signal
import threading
from types import FrameType


class Interrupts:
    """A context in which SIGINT and SIGTERM are noted, once, in place of acted upon.

    Attributes:
      received: The signal that came; None so far.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self._previous = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def __bool__(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """The shell's code for a process ended by the signal: 130 or 143."""
        return 128 + self.received if self.received else 0
