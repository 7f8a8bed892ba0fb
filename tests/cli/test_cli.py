"""How scripts end. What they do before that is in `test_scripts`."""

import os
import subprocess
import sys

import pytest
from checkout import ROOT
from jax.errors import JaxRuntimeError

from spatial_smoothing.cli import start

SCRIPT = """
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
