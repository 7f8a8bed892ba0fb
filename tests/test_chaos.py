"""Trainings that are killed, and workdirs that fail below them; see `chaos`."""

import os
import random
import re
import signal

import chaos
import pytest
import small_runs

from spatial_smoothing.runs import workdirs


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a small data set."""
    path = tmp_path_factory.mktemp("home")
    small_runs.prepare(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(home):
    """The workdir of a run that was left alone, and its pace."""
    return chaos.reference(home)


def test_killed_again_and_again_it_ends_bit_for_bit_the_same(home, undisturbed):
    expected, pace = undisturbed
    workdir = home / "killed"
    # Ctrl-C twice: the second insists, while the first is still being obeyed.
    process = chaos.start(workdir, home)
    small_runs.wait_for_epochs(process, 1)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert small_runs.without_progress(err) in ("", "error: interrupted\n")
    seen, outcome = chaos.trial(
        workdir,
        expected,
        home=home,
        moments=("saving", "training", "saving"),
        rng=random.Random(0),
        pace=pace,
    )
    assert outcome == "bit-identical", seen


def test_a_terminal_or_a_reader_that_is_gone_ends_it_in_order(home, undisturbed):
    workdir = home / "deserted"
    # The tests may run under `nohup`, which the training would inherit.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    process = chaos.start(workdir, home)
    signal.signal(signal.SIGHUP, before)
    small_runs.wait_for_epochs(process, 1)
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate()
    assert process.returncode == 128 + signal.SIGHUP
    assert "stopped at step" in out
    assert small_runs.without_progress(err) == ""
    process = chaos.start(workdir, home)
    small_runs.wait_for_epochs(process, 2)
    process.stdout.close()  # as `head` does
    err = small_runs.without_progress(process.stderr.read())
    assert process.wait() == 128 + signal.SIGPIPE
    message = (
        r"stopped at step \d+, because nobody reads .*; the same command continues"
    )
    assert re.fullmatch(message, err.strip()), err
    process.stderr.close()
    process = chaos.start(workdir, home)
    out, err = process.communicate()
    assert "continuing from step" in out
    outcome = chaos.outcome(workdir, undisturbed[0], process.returncode, err)
    assert outcome == "bit-identical"


def test_full_disk_is_one_line_and_loses_nothing(home, undisturbed, small_disk):
    workdir = small_disk / "run"
    process = chaos.start(workdir, home)
    small_runs.wait_for_epochs(process, 3)
    with (small_disk / "filler").open("wb", buffering=0) as file:
        while process.poll() is None:
            try:
                file.write(bytes(4096))
            except OSError:
                break
    out, err = process.communicate()
    assert process.returncode == 2
    space = r"No space left on device, [\d.]+ of 8.4 MB are free"
    kept = r"(; \d+ is complete; put that right, and the same command continues)?"
    # Threads of orbax may say beside it that they cannot go on either.
    assert re.search(rf"^error: cannot .*{space}{kept}$", err, re.MULTILINE), err
    (small_disk / "filler").unlink()
    process = chaos.start(workdir, home)
    out, err = process.communicate()
    assert "continuing from step" in out
    outcome = chaos.outcome(workdir, undisturbed[0], process.returncode, err)
    assert outcome == "bit-identical"


def test_workdir_that_vanishes_is_one_line(home):
    workdir = home / "vanishing"
    process = chaos.start(workdir, home)
    small_runs.wait_for_epochs(process, 3)  # by then the first checkpoint is complete
    os.rename(workdir, home / "elsewhere")
    _, err = process.communicate()
    assert process.returncode == 2
    # Threads of orbax may print tracebacks of their own, which do not wait for a line's
    # end.
    assert re.search(rf"error: cannot .*{workdir}|error: .*{workdir} is gone", err), err
    assert workdirs.load(home / "elsewhere").step > 0
