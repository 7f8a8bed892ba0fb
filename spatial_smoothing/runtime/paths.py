"""Paths of files that are local or objects in a store such as `gs://`."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator

from etils import epath

# What goes wrong with disks, to be said in their words and not in those of a library.
_TROUBLES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns a path that is good in any working directory; ~ is the user's home.

    `epath.Path.absolute` and `resolve` take `gs://bucket` for a relative path.
    """
    if is_remote(path):
        return epath.Path(path)
    return epath.Path(os.path.abspath(os.path.expanduser(path)))


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path is of an object store."""
    return "://" in os.fspath(path)


def write_text(path: epath.Path, text: str) -> None:
    """Writes a file in one piece: to a temporary name, then renamed.

    Raises:
      OSError: naming the file, and how full its disk is.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with naming(path):
        temporary.write_text(text)
        temporary.replace(path)


@contextlib.contextmanager
def naming(path: epath.Path) -> Iterator[None]:
    """Makes an OSError of the body, which writes `path`, one line that says so."""
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write {path}: {reason(error, path.parent)}") from error


def reason(error: Exception, directory: epath.Path) -> str:
    """Returns what the system says of an error, where it does, and the space left."""
    texts = (os.strerror(number) for number in _TROUBLES)
    text = next((text for text in texts if text in str(error)), first_line(error))
    if text == os.strerror(errno.ENOSPC):
        with contextlib.suppress(OSError):  # object stores are no disks
            usage = shutil.disk_usage(directory)
            free, total = usage.free / 1e6, usage.total / 1e6
            return f"{text}, {free:,.1f} of {total:,.1f} MB are free"
    return text


def first_line(error: Exception) -> str:
    """Returns the first line of an error's text, not too long, or else its type."""
    text = str(error).strip()
    return text.splitlines()[0][:500] if text else repr(error)
