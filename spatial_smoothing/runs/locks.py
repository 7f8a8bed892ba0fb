"""Locks of directories: one run in a workdir at a time."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator

from etils import epath

from spatial_smoothing.runtime import paths, processes


@contextlib.contextmanager
def locked(directory: epath.Path) -> Iterator[None]:
    """Keeps other processes out of a directory; ends with the process, however it ends.

    Of several processes, the first holds the lock for all. Object stores, and file
    systems without locks, have none.

    Raises:
      ValueError: if another process holds it.
      OSError: if the directory cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with processes.together():
            if processes.is_first() and not paths.is_remote(directory):
                stack.enter_context(_lock(directory))
        yield


@contextlib.contextmanager
def _lock(directory: epath.Path) -> Iterator[None]:
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{directory} is in use by {file.read() or 'another process'}; "
                "wait for its end, or choose another"
            ) from None
        except OSError:  # a file system without locks
            pass
        with contextlib.suppress(OSError):  # a full disk; others tell of it better
            file.truncate()
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield
