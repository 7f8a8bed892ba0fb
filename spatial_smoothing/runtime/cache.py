"""A disk cache of decoded arrays: one uncompressed .npz file per key.

The cache is a convenience and never a reason to fail: a file that cannot be read back
is made again, and a directory that cannot be written to means no cache. Files appear
under their name only when complete.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence

import numpy as np

Arrays = tuple[np.ndarray, ...]


def cache_dir() -> pathlib.Path:
    """Returns the directory of the cache, which may not exist yet.

    It is $SPATIAL_SMOOTHING_CACHE, else $XDG_CACHE_HOME/spatial_smoothing, else
    ~/.cache/spatial_smoothing.
    """
    if own := os.environ.get("SPATIAL_SMOOTHING_CACHE"):
        return pathlib.Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return pathlib.Path(shared) / "spatial_smoothing"
    return pathlib.Path.home() / ".cache" / "spatial_smoothing"


def cached(label: str, key: Sequence[object], make: Callable[[], Arrays]) -> Arrays:
    """Returns arrays from the cache, or makes them and puts them there.

    Args:
      label: What the arrays are, such as "cifar10-train". The file's name begins with
        it.
      key: Everything else that the arrays depend on, as values that JSON can hold. The
        file's name ends with its hash.
      make: Function that makes the arrays when the cache does not have them.
    """
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    try:
        path = cache_dir() / f"{label}-{digest}.npz"
    except RuntimeError:  # this user has no home directory
        return make()
    # The file may be absent, or damaged in one of the many ways of a zip file: in each
    # case the arrays are made again.
    with contextlib.suppress(Exception):
        return _read(path)
    arrays = make()
    with contextlib.suppress(OSError):
        _write(path, arrays)
    return arrays


def _read(path: pathlib.Path) -> Arrays:
    """Reads the arrays in the order in which they were written, and checks CRCs."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return tuple(arrays[f"arr_{i}"] for i in range(len(arrays)))


def _write(path: pathlib.Path, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name is unique: other processes may write the same file at this moment.
    descriptor, temporary = tempfile.mkstemp(prefix=f"{path.stem}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            np.savez(file, *arrays)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
