import os
import subprocess
import sys

import pytest
from disks import make_read_only
from etils import epath

from spatial_smoothing.runs import locks


def test_second_is_refused_and_told_who_is_first(tmp_path):
    path = epath.Path(tmp_path)
    for _ in range(2):
        with (
            locks.locked(path),
            pytest.raises(ValueError, match=rf"in use by process {os.getpid()} on"),
            locks.locked(path),
        ):
            pass


def test_ends_with_a_process_that_is_killed(tmp_path):
    code = f"""
import os, signal
from etils import epath
from spatial_smoothing import locks
with locks.locked(epath.Path({str(tmp_path)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    with locks.locked(epath.Path(tmp_path)):
        pass


def test_directory_is_made_where_that_is_asked_for(tmp_path):
    path = epath.Path(tmp_path / "a" / "b")
    with pytest.raises(FileNotFoundError), locks.locked(path):
        pass
    with locks.locked(path, make=True):
        assert (tmp_path / "a" / "b" / "lock").exists()


def test_directory_that_cannot_be_written(small_disk):
    make_read_only(small_disk)
    message = f"Read-only file system: '{small_disk}/lock'"
    with pytest.raises(OSError, match=message), locks.locked(epath.Path(small_disk)):
        pass


def test_object_stores_have_none():
    """Nothing is opened there: two may hold it at once, and no client is needed."""
    path = epath.Path("gs://bucket/run")
    with locks.locked(path), locks.locked(path):
        assert not os.path.exists("gs:")  # as a relative path of this name
