"""Paths of files that are local or objects in a store such as `gs://`."""

import os

from etils import epath


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
    """Writes a file in one piece: to a temporary name, then renamed."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)
