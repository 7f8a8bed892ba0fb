"""What a command does when nobody reads its output any more, as in `command | head`.

Other tools are ended by SIGPIPE then, without a word. Python raises BrokenPipeError
instead, out of whatever happens to print. Here the command ends with the same exit code
as those tools, or is told to stop, where it has something to save first.
"""

import os
import sys
from typing import TextIO

# The shell's code for a process that SIGPIPE, the signal 13, has ended.
CLOSED = 128 + 13

_gone = False


def watch(*, end: bool) -> None:
    """Puts streams in the place of stdout and stderr that notice a closed pipe.

    They print escapes for characters that their encoding has not.

    Args:
      end: Whether the process ends at once, by SystemExit. If not, what is printed from
        then on is lost, and the command asks `is_unread` whether to stop.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        # A path need not be UTF-8, and the encoding of a terminal or of a log may lack
        # letters of a path or a class. That is no reason to end a training.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        if isinstance(stream, _Stream):
            stream.end = end
        else:
            stream = _to_nowhere(number) if stream is None else stream
            setattr(sys, name, _Stream(stream, name=name, end=end))


def _to_nowhere(number: int) -> TextIO:
    """Returns a stream in the place of one that was closed before, as by `>&-`.

    Args:
      number: File descriptor of the stream. If it is free, it is taken: a file that
        gets it would also get what libraries print.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.fstat(number)
    except OSError:
        os.dup2(nowhere, number)
        os.close(nowhere)
        nowhere = number
    return open(nowhere, "w", encoding="utf-8", errors="backslashreplace")


def is_unread() -> bool:
    """Returns whether stdout or stderr was a pipe that its reader has closed."""
    return _gone


class _Stream:
    """A text stream that does not raise BrokenPipeError, and names itself in errors."""

    def __init__(self, stream: TextIO, *, name: str, end: bool):
        self._stream, self._name, self.end = stream, name, end

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        # The stream still holds what it could not write, and would raise again when
        # Python closes it at exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if isinstance(error, BrokenPipeError):
            global _gone
            _gone = True
            if self.end:
                sys.exit(CLOSED)
        elif self._name == "stdout":  # such as a file on a full disk
            raise OSError(f"cannot write to stdout: {error.strerror}") from None

    def __getattr__(self, name: str):
        return getattr(self._stream, name)
