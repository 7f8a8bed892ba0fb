import io
import re
import sys
import time

from spatial_smoothing.runtime import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def replace_stderr(monkeypatch, *, seconds=0.02):
    """Puts a file in the place of stderr, to which lines come every few seconds."""
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", seconds)
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    return file


def wait_for(file, pattern):
    deadline = time.monotonic() + 20
    while not re.search(pattern, file.getvalue(), re.M):
        assert time.monotonic() < deadline, file.getvalue()
        time.sleep(0.01)


def test_without_a_terminal_lines_say_what_is_being_done(monkeypatch):
    plain = replace_stderr(monkeypatch)
    with progress.status("suite 3 of 8"):
        wait_for(plain, r"^\[0:00:00\] suite 3 of 8$")
        for item in progress.track(range(10), total=10, name="Corruptions"):
            if item == 1:  # one is done, which says nothing of the time of the others
                wait_for(plain, r"\] suite 3 of 8 \| Corruptions: 1 of 10$")
            if item == 2:
                wait_for(plain, r"Corruptions: 2 of 10, ETA \d:\d\d:\d\d$")
                break


def test_nothing_is_written_for_what_is_short(monkeypatch):
    plain = replace_stderr(monkeypatch, seconds=10)
    for _ in progress.track(range(3), total=3, name="a"):
        pass
    with progress.counted(total=1, name="b") as advance:
        advance()
    assert plain.getvalue() == ""


def test_nothing_is_written_after_the_end(monkeypatch):
    plain = replace_stderr(monkeypatch)
    with progress.status("a"):
        wait_for(plain, "a$")
    before = plain.getvalue()
    time.sleep(0.2)
    assert plain.getvalue().startswith(before)
    assert len(plain.getvalue()) <= len(before) + len("[0:00:00] a\n")


def test_a_stderr_that_is_gone_ends_no_work(monkeypatch):
    plain = replace_stderr(monkeypatch)
    with progress.status("a"):
        plain.close()
        time.sleep(0.1)


def test_the_first_item_is_no_part_of_the_eta(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    task = progress.Task("a", total=10)
    assert task.eta() is None
    now[0] = 100.0  # compiles
    task.update(1)
    assert task.eta() is None
    now[0] = 102.0
    task.update(3)
    assert task.eta().total_seconds() == 7


def test_a_terminal_has_bars_of_all_tasks(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(sys, "stdout", file := io.StringIO())
    with progress.status("outer"):
        for _ in progress.track(range(2), total=2, name="inner"):
            print("a result")
        wait_for(terminal, "outer")
        wait_for(terminal, "inner")
    wait_for(terminal, r"of 2")
    assert file.getvalue() == "a result\n" * 2  # and not among the bars
