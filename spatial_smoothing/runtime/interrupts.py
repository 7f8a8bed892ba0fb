"""Stopping a run in good order: the first signal asks, the second insists."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

Value = TypeVar("Value")

# Ctrl-C; the end of a job, or of a machine that is taken back; a terminal that is gone.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """A context in which signals are noted, once, instead of ending the process.

    The signals are SIGINT, SIGTERM, and SIGHUP unless `nohup` has switched it off.
    After the first of them, all act as they did before the context.

    Attributes:
      received: The signal that came; None so far.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self._previous = {}

    def __enter__(self) -> "Interrupts":
        # Python allows signal handlers in the main thread alone.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                ignored = signal.getsignal(number) is signal.SIG_IGN
                if not (number == signal.SIGHUP and ignored):
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Nothing else happens here: a handler may run between any two instructions.
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def __bool__(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """The shell's code for a process that a signal ended: 129, 130 or 143; or 0."""
        return 128 + self.received if self.received else 0


def in_thread(function: Callable[[], Value]) -> Value:
    """Calls a function that may compute for minutes outside of Python.

    Python answers to Ctrl-C when a call returns. Here the call is in another thread, so
    that the caller gets the `KeyboardInterrupt` at once. The thread goes on; it ends
    with the process.

    Args:
      function: Function without arguments.

    Returns:
      The result of the function. What it raises is raised here.
    """
    results: list[Value] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
    if errors:
        raise errors[0]
    return results[0]
