"""Paths of files that are local or objects in a store such as `gs://`."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator

from etils import epath

# How a file system says that it has no hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
# Errors of disks. Users get the words of the system for them, not those of a library.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns an absolute path, without "..", links left as they are.

    Args:
      path: A path, local or remote; "~" is the user's home.
    """
    # `epath.Path.absolute` and `resolve` take `gs://bucket` for a relative path.
    if is_remote(path):
        return epath.Path(path)
    return epath.Path(os.path.abspath(os.path.expanduser(path)))


def is_remote(path: epath.PathLike) -> bool:
    """Returns whether a path is in an object store."""
    return "://" in os.fspath(path)


def is_same(path: epath.PathLike, other: epath.PathLike) -> bool:
    """Returns whether two paths lead to one file or folder, through links or not.

    Args:
      path: A path, local or remote.
      other: Another one.
    """
    path, other = (os.fspath(absolute(each)) for each in (path, other))
    if is_remote(path) or is_remote(other):
        return path == other
    return os.path.realpath(path) == os.path.realpath(other)


def stamp(path: epath.Path) -> list[int]:
    """Returns the size of a file and the time of its last change, as values for JSON.

    Args:
      path: A file, local or remote.

    Returns:
      Bytes, and nanoseconds; seconds where it is remote.
    """
    # Of local files epath tells whole seconds only, and a script may write a file, read
    # it and write it again within one.
    if is_remote(path):
        stat = path.stat()
        return [stat.length, stat.mtime]
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns]


def write_text(path: epath.Path, text: str) -> None:
    """Writes a file in one piece: under a temporary name, which is then changed.

    Args:
      path: The file, local or remote.
      text: Its new content.

    Raises:
      OSError: if it cannot be written; names the file, and the space left on its disk.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with naming(path):
        temporary.write_text(text)
        temporary.replace(path)


def write_new_text(path: epath.Path, text: str) -> bool:
    """Writes a file in one piece, unless there is one of this name.

    Of several processes that do so at the same moment, one writes. In object stores it
    may be the last one.

    Args:
      path: The file, local or remote, in a folder that exists.
      text: Its content.

    Returns:
      Whether it was written: False if there is a file of this name.

    Raises:
      OSError: if it cannot be written; names the file, and the space left on its disk.
    """
    if is_remote(path):
        if path.exists():
            return False
        write_text(path, text)
        return True
    # Another process may write to a temporary file of its own.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    with naming(path):
        try:
            temporary.write_text(text)
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if path.exists():
                return False
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def naming(path: epath.Path) -> Iterator[None]:
    """Turns an OSError of the body into one that says in a line what was written.

    Args:
      path: The file that the body writes.
    """
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write {path}: {reason(error, path.parent)}") from error


def reason(error: Exception, directory: epath.Path) -> str:
    """Returns why something cannot be written, in one line.

    Args:
      error: What was raised. If a library wraps an error of the disk, its text contains
        the words of the system.
      directory: Where the file should be, to say how much space is left.
    """
    texts = (os.strerror(number) for number in _DISK_ERRORS)
    text = next((text for text in texts if text in str(error)), first_line(error))
    if text == os.strerror(errno.ENOSPC):
        with contextlib.suppress(OSError):  # object stores are no disks
            usage = shutil.disk_usage(directory)
            free, total = usage.free / 1e6, usage.total / 1e6
            return f"{text}, {free:,.1f} of {total:,.1f} MB are free"
    return text


def first_line(error: Exception) -> str:
    """Returns at most 500 characters of the first line of an error, or its type."""
    text = str(error).strip()
    return text.splitlines()[0][:500] if text else repr(error)
