"""Commands of the project, run one after the other, each for a limited time."""

import pathlib
import subprocess
import sys
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parents[1]
_GRACE = 60.0
"""Seconds that a command has to save what it was doing; then it is killed."""


def execute(command: Sequence[str], *, seconds: float | None = None) -> int | None:
    """Runs a command of Python in the root of the checkout.

    Args:
      command: What follows `python`, such as a script and its arguments.
      seconds: Time after which the command gets SIGTERM, upon which those of this
        project save and end; None for no limit.

    Returns:
      Its exit code; None where its time was over.

    Raises:
      KeyboardInterrupt: if the user has interrupted it; it has ended then.
    """
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        return None
    except SystemExit:  # this process got SIGTERM, and the command did not
        process.terminate()
        raise
    finally:
        # Ctrl-C reaches both processes.
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_with_children(*_) -> None:
    """Ends this process in order, as a handler of SIGTERM."""
    sys.exit(143)
