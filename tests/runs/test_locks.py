import os
import re
import subprocess
import sys

import pytest
import random_runs
from checkout import ROOT
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


def test_a_second_evaluation_into_the_same_report_is_refused(tmp_path):
    """Otherwise the one that ends last would drop the rows of the other."""
    run = random_runs.write_run(tmp_path / "run", model="resnet_dnn_18")
    output = tmp_path / "run" / "evaluation"
    command = [sys.executable, ROOT / "evaluate.py", f"--workdir={run}"]
    with locks.locked(epath.Path(output), make=True):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    message = f"error: {output} is in use by process {os.getpid()} on .*; wait for its"
    assert re.match(message, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in output.iterdir()] == ["lock"]
