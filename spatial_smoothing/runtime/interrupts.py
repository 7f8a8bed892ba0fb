"""Stopping a run in good order: the first signal asks, the second insists."""

import signal
import threading
from types import FrameType

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
