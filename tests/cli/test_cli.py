"""How scripts end. What they do before that is in `test_scripts`."""

import io
import os
import subprocess
import sys

import pytest
from checkout import ROOT
from jax.errors import JaxRuntimeError

from spatial_smoothing.cli import output, start

SCRIPT = """
from jax.errors import JaxRuntimeError
from spatial_smoothing.cli import start
from spatial_smoothing.training import NonFiniteLossError
def main():
    raise {error}
start.run(start.Command(main, start.new_flags(), about="A command."))
"""


@pytest.mark.parametrize(
    "text",
    [
        "UNKNOWN: Gloo all-reduce failed: Connection closed by peer [127.0.0.1]:4711",
        "UNAVAILABLE: failed to connect to all addresses",
        "DEADLINE_EXCEEDED: Barrier timed out",
        "ABORTED: the other side has left",
        "INTERNAL: The tasks have crashed: no heartbeat of /job:jax_worker/task:1",
        "INTERNAL: Polled an error from Coordination Service",
        "INTERNAL: read: Connection reset by peer",
    ],
)
def test_errors_of_a_process_that_is_gone(text):
    assert start._lost(JaxRuntimeError(f"{text}\nmore")) == text
    wrapped = RuntimeError("cannot save")
    wrapped.__cause__ = JaxRuntimeError(text)
    assert start._lost(wrapped) == text


@pytest.mark.parametrize(
    "error",
    [
        JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."),
        JaxRuntimeError("INVALID_ARGUMENT: Executable expected parameter 0"),
        JaxRuntimeError("INTERNAL: during context [Unknown]: no kernel image"),
        RuntimeError("UNAVAILABLE, but not of JAX"),
        ValueError("connection closed"),
    ],
)
def test_errors_of_this_process_alone(error):
    assert start._lost(error) == ""


@pytest.mark.parametrize(
    ("error", "code", "last"),
    [
        ("ValueError('no\\nfile')", 2, "error: no file"),
        ("NonFiniteLossError('not finite')", 1, "error: not finite"),
        ("KeyboardInterrupt", 130, "error: interrupted"),
    ],
)
def test_a_mistake_is_one_line(error, code, last):
    assert ended(error) == (code, [last])


def test_a_defect_shows_where_it_is():
    """Also one of arithmetic, which is no divergence of a training."""
    code, lines = ended("ZeroDivisionError('division by zero')")
    assert code == 1
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert any(line.startswith("Traceback") for line in lines)


def ended(error):
    """Exit code, and lines on stderr, of a script that raises this."""
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(error=error)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return process.returncode, process.stderr.splitlines()


TALKING = """
from spatial_smoothing.cli import output, start
def main():
    for number in range(100000):
        print("a line of text", number)
    {last}
command = start.Command(main, start.new_flags(), about="A command.", ends_unread={ends})
start.run(command)
"""


def test_a_closed_pipe_ends_a_command_without_a_word():
    """As `command | head -1` does, with the exit code of tools that SIGPIPE ends."""
    code, err = unread(TALKING.format(ends=True, last="raise ZeroDivisionError"))
    assert (code, err) == (141, "")


def test_a_command_may_go_on_when_its_pipe_is_closed():
    last = "return 7 if output.is_unread() else 8"
    assert unread(TALKING.format(ends=False, last=last)) == (7, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_works_without_stdout_and_stderr(closed, tmp_path):
    """As daemons and cron start commands. Files do not get what is printed."""
    code = f"""
import os
from spatial_smoothing.cli import output
output.watch(end=True)
with open({str(tmp_path / "file")!r}, "w") as file:
    print("out", flush=True)
    os.write(1, b"a library to stdout")
    os.write(2, b"a library to stderr")
    file.write("done")
"""
    command = f'exec "$0" -c "$1" {closed}'
    process = subprocess.run(
        ["sh", "-c", command, sys.executable, code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert process.returncode == 0
    assert (tmp_path / "file").read_text() == "done"


def test_letters_that_stdout_does_not_have_are_written_as_numbers():
    code = """
from spatial_smoothing.cli import output
output.watch(end=True)
print("finished, in Stra\\xdfe")
"""
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert process.stdout == b"finished, in Stra\\xdfe\n"


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_stdout_on_a_full_disk_is_named(arguments):
    code = TALKING.format(ends=False, last="pass")
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.returncode == 2
    assert process.stderr == "error: cannot write to stdout: No space left on device\n"


def test_a_closed_pipe_that_is_noticed_last():
    """A line that is still in the buffer when `main` returns."""
    code = """
import time
from spatial_smoothing.cli import start
def main():
    print("first", flush=True)
    time.sleep(1)
    print("second")
start.run(start.Command(main, start.new_flags(), about="A command."))
"""
    assert unread(code) == (141, "")


def test_names_that_are_no_text_are_printed(monkeypatch):
    """Names of files are bytes: Python holds those that are not UTF-8 in surrogates."""
    for encoding, name, shown in (
        ("utf-8", "caf\udce9.png", "caf\\udce9.png"),
        ("ascii", "café.png", "caf\\xe9.png"),
    ):
        stream = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        output.watch(end=False)
        print(name, end="", flush=True)
        assert stream.buffer.getvalue().decode() == shown


def unread(code):
    """Exit code and stderr of a program of whose output one line is read."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    return process.wait(), err


@pytest.mark.parametrize(
    "error",
    [
        "MemoryError('cannot allocate 1 TiB')",
        "JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.')",
    ],
)
def test_too_little_memory_is_one_line(error):
    code, lines = ended(error)
    assert code == 2
    (line,) = lines
    assert line.startswith("error: not enough memory (")
    assert line.endswith("; use a smaller batch size or network")
