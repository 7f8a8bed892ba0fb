import json
import subprocess
import sys
import time

import pytest
from checkout import ROOT

from benchmarks import ablations, analyses, memory, run, timing
from spatial_smoothing.cli import command_line, help_texts


@pytest.mark.parametrize(
    "suites",
    [
        "mc_dropout",
        pytest.param("smoothing,training,landscape", marks=pytest.mark.slow),
    ],
)
def test_suites_run_at_a_tiny_scale(suites, tmp_path):
    path = tmp_path / "results" / "benchmarks.json"
    options = ["--scale=tiny", f"--suite={suites}", f"--output={path}"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", *options, "--cores=1", "--clock=cpu"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    result = json.loads(path.read_text())
    assert {"commit", "device", "libraries", "time"} <= result["provenance"].keys()
    assert result["provenance"]["cores"] == 1
    assert {row["suite"] for row in result["rows"]} == set(suites.split(","))
    for row in result["rows"]:
        taken = row["seconds"]
        assert 0 <= taken["least"] <= taken["median"] <= taken["largest"]
        assert "ratio" in row or "peer" not in row


def test_rivals_take_turns_after_warming_up():
    calls = []
    rivals = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = timing.in_turns(rivals, rounds=3)
    assert "".join(calls) == "aabb" + "ab" * 3
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_a_turn_is_as_many_calls_as_fill_it():
    begin, calls = time.perf_counter(), []
    rivals = {"long": lambda: None, "short": lambda: calls.append(0)}
    seconds = timing.in_turns(rivals, rounds=2, turn=0.01)
    whole = time.perf_counter() - begin
    assert len(calls) > 10
    # What is given is the time of a call: all of them fit into the whole.
    assert sum(seconds["short"]) * (len(calls) - 2) / 2 <= whole


def test_peak_memory_is_that_of_the_process_itself():
    code = "from benchmarks import memory; print(memory.peak_bytes())"
    large = bytearray(b"x") * 2**28
    child = int(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT))
    assert 2**20 < child < len(large) < memory.peak_bytes()


def test_an_unknown_suite_is_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        run.main(["--suite=trainin"])
    assert "did you mean 'training'" in capsys.readouterr().err


@pytest.mark.parametrize("module", [ablations, analyses])
def test_commands_describe_their_flags(module):
    command = module.COMMAND
    text = help_texts.command(command.about, command.flag_values)
    assert all(f"  --{name}" in text for name in command.flag_values)
    with pytest.raises(ValueError, match="unknown flag --tabel"):
        command_line.parse(["benchmark", "--tabel=x"], command.flag_values)
