"""What is run on a GPU, on CPUs and at a tiny scale."""

import json
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkout import ROOT

from benchmarks import agreement, commands, gpu, row_files, timed
from benchmarks.scales import SCALES


def test_devices_agree_or_are_told_apart(tmp_path, capsys):
    """The op, and what a defect would give; the networks are in the slow test."""
    device, reference = jax.devices()[0], jax.devices()[-1]
    found = {case.name: case for case in agreement.small_cases(SCALES["tiny"])}
    assert len(found) == 5
    (row,) = agreement.compare(found["smooth, stage 4"], device, reference)
    assert (row["name"], row["agrees"]) == ("smooth, stage 4", True)

    def differs():  # between the devices
        (where,) = jax.device_put(jnp.zeros(())).devices()
        return np.array([1.0, 2.0]), np.array([1.0 + 1e-3 * (where == device), 4.0])

    case = agreement.Case("x", differs, 1e-4, ("highest", "default"))
    rows = list(agreement.compare(case, device, reference))
    # Fewer bits than all have no limit.
    assert [row["name"] for row in rows] == ["x, highest", "x, default"]
    assert [row["agrees"] for row in rows] == [False, None]
    for row in rows:
        np.testing.assert_allclose(row["error"], 1e-3 / 4)
    assert "DOES NOT AGREE" in agreement.line(rows[0])
    assert agreement._error(np.array([np.nan]), np.array([1.0])) == np.inf


@pytest.mark.slow
def test_numbers_of_networks_agree_and_are_kept(tmp_path, capsys):
    path = tmp_path / "numbers.json"
    arguments = [f"--output={path}", "--scale=tiny"]
    assert agreement.main(arguments) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["agrees"] for row in rows] == [True] * 5 + [True, None] * 3
    assert agreement.main(arguments) == 0  # nothing is computed again
    assert json.loads(path.read_text())["rows"] == rows


def test_rows_are_kept_with_where_they_come_from(tmp_path, monkeypatch):
    path = tmp_path / "new" / "rows.json"
    file = row_files.RowFile(path)
    file.add({"name": "a"})
    again = row_files.RowFile(path)
    assert again.has("a")
    assert not again.has("b")
    again.add({"name": "b"})  # from the same place, a moment later
    monkeypatch.setattr(row_files, "provenance", lambda: {"device": "another"})
    row_files.RowFile(path).add({"name": "c"})
    content = json.loads(path.read_text())
    assert [row["provenance"] for row in content["rows"]] == [0, 0, 1]
    assert content["provenances"][1] == {"device": "another"}
    path.write_text("[]")
    with pytest.raises(ValueError, match="holds no rows"):
        row_files.RowFile(path)


def test_programs_are_timed_as_they_are_compiled(tmp_path, capsys):
    pytest.importorskip("benchmarks.compiled_programs")
    pattern = "^h200 smooth.* 5x5x512 128 float32 ours"
    keys = [row.key for row in timed.chosen(pattern)]
    assert len(keys) == 2
    path = tmp_path / "programs.json"
    arguments = [f"--output={path}", f"--rows={pattern}", "--rounds=2"]
    assert timed.main([*arguments, "--minutes=0"]) == 0
    assert "2 rows are missing" in capsys.readouterr().out
    for _ in range(2):  # the second time, nothing is left
        assert timed.main(arguments) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["name"] for row in rows] == keys
    for row, moved in zip(rows, (25 + 36, 2 * 25 + 36), strict=True):
        speed = 128 * 512 * 4 * moved / row["seconds"]["median"]
        np.testing.assert_allclose(row["bytes_per_second"], speed)


def test_arguments_of_a_program_are_valid():
    infos = {
        "image": jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((2,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((2,), bool),
        "key": jax.eval_shape(lambda: jax.random.key(0)),
        "var": jax.ShapeDtypeStruct((4,), jnp.bfloat16),
    }
    device = jax.sharding.SingleDeviceSharding(jax.devices()[1])
    found = timed.filled(infos, dict.fromkeys(infos, device))
    for name, info in infos.items():
        assert (found[name].shape, found[name].dtype) == (info.shape, info.dtype)
        assert found[name].sharding == device
    assert len(np.unique(found["image"])) > 50
    assert np.all(found["mask"])
    assert not np.any(found["label"])
    assert np.all(np.asarray(found["var"], np.float32) > 0)
    jax.random.bits(found["key"])


class State(NamedTuple):
    step: jax.Array
    x: jax.Array


def loop(state, stop, change):
    return jax.lax.while_loop(
        lambda state: state.step < stop,
        lambda state: State(state.step + 1, state.x + change),
        state,
    )


def test_a_program_is_called_with_what_it_has_returned():
    x = jax.ShapeDtypeStruct((3,), jnp.float32)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    traced = jax.jit(loop, donate_argnums=0).trace(State(step, x), 0, x)
    calls = timed.Calls(traced.lower().compile(), traced.args_info, loops=True)
    before = np.array(calls.arguments[0].x)
    calls()
    calls()  # the memory of the first state is gone
    assert int(calls.arguments[0].step) == calls.steps == 20
    change = np.asarray(calls.arguments[2])
    np.testing.assert_allclose(calls.arguments[0].x, before + 20 * change, rtol=1e-5)

    def several(x, y, z):
        return x + z, y - z, z.sum()

    traced = jax.jit(several, donate_argnums=(0, 1)).trace(x, x, x)
    calls = timed.Calls(traced.lower().compile(), traced.args_info, loops=False)
    first, second, third = map(np.array, calls.arguments)
    calls()
    calls()
    np.testing.assert_allclose(calls.arguments[0], first + 2 * third, rtol=1e-6)
    np.testing.assert_allclose(calls.arguments[1], second - 2 * third, rtol=1e-5)


class Recorder:
    """Runs nothing; `codes` has the exit codes, and `writes` makes the outputs."""

    def __init__(self, codes=(), *, writes=True):
        self.commands, self.limits = [], []
        self._codes, self._writes = list(codes), writes

    def __call__(self, command, *, seconds):
        self.commands.append(command)
        self.limits.append(seconds)
        option = dict(c.split("=", 1) for c in command if "=" in c)
        if self._writes and option["--output"].endswith(".json"):
            path = gpu.pathlib.Path(option["--output"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
        return self._codes.pop(0) if self._codes else 0

    @property
    def names(self):
        return [command[1].removeprefix("benchmarks.") for command in self.commands]


ALL = ["agreement", "timed", "run", "run", "reproduce"]


def run(tmp_path, *arguments, codes=(), **options):
    recorder = Recorder(codes, **options)
    code = gpu.main(
        [f"--results={tmp_path}", f"--runs={tmp_path / 'runs'}", *arguments],
        execute=recorder,
    )
    return code, recorder


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """Lets the tests set a variable of the environment."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: name)


def test_parts_come_in_the_order_of_their_worth(tmp_path, capsys):
    code, done = run(tmp_path, "--minutes=10", "--data_dir=/data", "--seeds=1,2")
    assert (code, done.names) == (0, ALL)
    assert done.limits == [120, 75, 60, 75, None]
    last = dict(c.split("=", 1) for c in done.commands[-1] if "=" in c)
    assert (last["--scale"], last["--dtype"]) == ("full", "bfloat16")
    assert last["--models"] == "resnet_mcdo_18,resnet_mcdo_smoothing_18"
    assert (last["--seeds"], last["--data_dir"]) == ("1,2", "/data")
    assert 9.5 < float(last["--minutes"]) <= 10  # nothing before took any time
    assert last["--output"] == str(tmp_path / "cifar100_resnet18")
    out = capsys.readouterr().out
    assert "[1 of 5] numbers: float32 beside the CPU: 120 s at most, 600 s" in out


def test_what_is_done_is_not_done_again_and_what_fails_keeps_nothing_back(tmp_path):
    code, done = run(tmp_path, codes=[0, None, 0, 3])
    assert (code, done.names) == (3, ALL)
    # Rows of the first two are in files that these read; the others are done.
    assert run(tmp_path)[1].names == ["agreement", "timed", "reproduce"]
    assert run(tmp_path / "other", writes=False)[1].names == ALL
    assert run(tmp_path / "other", writes=False)[1].names == ALL


def test_parts_can_be_chosen_and_time_ends(tmp_path, capsys):
    assert run(tmp_path, "--parts=numbers,reproduction")[1].names == [ALL[0], ALL[-1]]
    assert run(tmp_path, "--minutes=0.1")[1].names == []
    assert "no time is left" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, "--parts=nmbers")
    assert "unknown part 'nmbers'" in capsys.readouterr().err


def test_a_module_that_is_not_there_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    assert run(tmp_path)[1].names == [name for name in ALL if name != "timed"]
    assert "compiled_programs is not part of this checkout" in capsys.readouterr().out


SLEEPER = """
import pathlib, signal, sys, time
path = pathlib.Path(sys.argv[1])
def end(*_):
    path.write_text("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
path.write_text("begun")
time.sleep(60)
"""


def wait_for(path, text):
    end = time.monotonic() + 60
    while not (path.exists() and path.read_text() == text):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_command_whose_time_is_over_saves_and_ends(tmp_path):
    path = tmp_path / "state"
    assert commands.execute(["-c", "import sys; sys.exit(3)"], seconds=60) == 3
    assert commands.execute(["-c", SLEEPER, str(path)], seconds=2) is None
    assert path.read_text() == "saved"


def test_a_command_ends_with_the_process_that_called_it(tmp_path):
    path = tmp_path / "state"
    code = (
        "import signal, sys\nfrom benchmarks import commands\n"
        "signal.signal(signal.SIGTERM, commands.end_with_children)\n"
        f"commands.execute(['-c', sys.argv[1], {str(path)!r}])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, SLEEPER], cwd=ROOT)
    wait_for(path, "begun")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert path.read_text() == "saved"
