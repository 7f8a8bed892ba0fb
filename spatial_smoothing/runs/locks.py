"""Locks of directories: one training in a workdir, one evaluation in its output."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator

from etils import epath

from spatial_smoothing.runtime import paths, processes


@contextlib.contextmanager
def locked(directory: epath.Path, *, make: bool = False) -> Iterator[None]:
    """Keeps other runs out of a directory while the body runs.

    The system ends the lock with the process, however it ends. Of the processes of one
    run, the first holds the lock for all. Object stores, and file systems without
    `flock`, have no locks.

    Args:
      directory: The directory to lock.
      make: Whether to make it if it is not there.

    Raises:
      ValueError: if another process holds the lock; names it.
      OSError: if the directory cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with processes.together():
            if make and processes.is_first():
                directory.mkdir(parents=True, exist_ok=True)
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
        except OSError:
            pass  # this file system has no locks
        # The file says who holds the lock. The disk may be full; what is written next
        # tells the user better.
        with contextlib.suppress(OSError):
            file.truncate()
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield
