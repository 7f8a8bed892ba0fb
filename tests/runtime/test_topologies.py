"""One, two, four, eight devices, and two processes: the same numbers."""

import json
import math
import os
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import topology_worker as worker
from checkout import ROOT

from spatial_smoothing.runtime import sharding

TOLERANCE = {"float32": 1e-5, "float64": 1e-8}


def free_port():
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """The results of two processes with two devices each."""
    folder = tmp_path_factory.mktemp("processes")
    address = f"localhost:{free_port()}"
    script = ROOT / "tests" / "helpers" / "topology_worker.py"
    workers = [
        subprocess.Popen(
            [sys.executable, script, address, "2", str(number), folder],
            env={**os.environ, "PYTHONPATH": f"{ROOT}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in workers:
        _, err = process.communicate()
        assert process.returncode == 0, err
    return [
        {
            **json.loads((folder / f"{number}.json").read_text()),
            **np.load(folder / f"{number}.npz"),
        }
        for number in range(2)
    ]


@pytest.fixture(scope="module")
def alone():
    """The losses of seed and type on one device."""
    mesh = sharding.mesh(1)
    return {
        (worker.SEED, "float32"): worker.train(mesh),
        (worker.SEED + 1, "float32"): worker.train(mesh, seed=worker.SEED + 1),
        (worker.SEED, "float64"): worker.train(mesh, "float64"),
    }


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_losses_do_not_depend_on_the_number_of_devices(num_devices, dtype, alone):
    losses, _ = worker.train(sharding.mesh(num_devices), dtype)
    expected, _ = alone[worker.SEED, dtype]
    assert len(set(expected)) == worker.STEPS
    np.testing.assert_allclose(losses, expected, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_losses_do_not_depend_on_the_number_of_processes(dtype, alone, two_processes):
    expected, _ = alone[worker.SEED, dtype]
    for process in two_processes:
        np.testing.assert_allclose(process[dtype], expected, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("num_devices", "options"),
    [
        (1, {}),  # looped over
        (1, {"on_device": True}),
        (4, {}),  # two devices each
        (4, {"sharded": True}),
    ],
)
def test_members_are_what_their_seeds_make_alone(
    num_devices, options, alone, monkeypatch
):
    monkeypatch.setattr(sharding, "_SHARDED_SIZE", 16)
    mesh = sharding.mesh(num_devices, members=2)
    losses, state = worker.train(mesh, members=2, **options)
    # In loops, XLA on CPUs takes another algorithm for convolutions.
    tolerance = 1e-4 if options.get("on_device") else 1e-5
    for member in range(2):
        expected, one = alone[worker.SEED + member, "float32"]
        np.testing.assert_allclose(losses[:, member], expected, rtol=tolerance)
        jax.tree.map(
            lambda a, b, m=member: np.testing.assert_allclose(
                a[m], b, rtol=10 * tolerance, atol=tolerance
            ),
            state.variables,
            one.variables,
        )


def test_sharded_members_of_two_processes(alone, two_processes):
    for process in two_processes:
        for member in range(2):
            expected, _ = alone[worker.SEED + member, "float32"]
            np.testing.assert_allclose(
                process["members"][:, member], expected, rtol=1e-5
            )
        assert process["restored"]
        assert process["restored_step"] == [2, 2]
        assert any(
            "'member'" in spec and "'data'" in spec for spec in process["shards"]
        )


def test_evaluation_does_not_depend_on_the_topology(two_processes):
    tallies = [worker.leaves(worker.evaluate(sharding.mesh(n))) for n in (1, 4)]
    for other in (tallies[1], *two_processes):
        for name, value in tallies[0].items():
            np.testing.assert_allclose(other[name], value, rtol=1e-5, atol=1e-6)


def test_processes_agree(two_processes):
    first, second = two_processes
    assert (first["first"], second["first"]) == (True, False)
    assert first["max"] == second["max"] == [1, 3]
    assert first["any"] == second["any"] == [True, False]


def test_a_mistake_of_one_process_is_one_of_all(two_processes):
    first, second = (process["mistakes"] for process in two_processes)
    assert (
        first[0]
        == second[0]
        == ("seed is 0 on process 0 and 1 on process 1; all processes need the same")
    )
    assert first[1] == second[1]
    assert re.match("train is '14 examples with .* and '9 examples with ", first[1])
    assert first[2] == "process 1: could not convert string to float: 'many'"
    assert second[2] == "could not convert string to float: 'many'"


COLLECTIVE = re.compile(
    r" = (?P<shapes>.*?) (?P<kind>all-reduce|all-gather|all-to-all|reduce-scatter|"
    r"collective-permute|collective-broadcast)(-start)?\("
)


def collectives(monkeypatch, **options):
    """Returns kind -> numbers in the results of each collective of a compiled step."""
    programs, compile_ = [], jax.stages.Lowered.compile

    def record(lowered, *args, **kwargs):
        programs.append(compile_(lowered, *args, **kwargs))
        return programs[-1]

    monkeypatch.setattr(jax.stages.Lowered, "compile", record)
    monkeypatch.setattr(worker, "STEPS", 1)
    _, state = worker.train(sharding.mesh(4), **options)
    found = {}
    for match in COLLECTIVE.finditer(programs[-1].as_text()):
        shapes = re.findall(r"\w+\[([\d,]*)\]", match["shapes"])
        sizes = [math.prod(int(n) for n in s.split(",") if n) for s in shapes]
        found.setdefault(match["kind"], []).append(sizes)
    return found, state.variables


def sizes(tree):
    return [leaf.size for leaf in jax.tree.leaves(tree)]


def test_a_step_moves_gradients_and_statistics_once(monkeypatch):
    found, variables = collectives(monkeypatch)
    assert found.keys() == {"all-reduce"}
    moved = [size for one in found["all-reduce"] for size in one]
    statistics = sizes(variables["batch_stats"])  # mean and variance of each layer
    # The two go forwards, and the gradients with respect to them backwards.
    once = sum(sizes(variables["params"])) + 2 * sum(statistics)
    assert once <= sum(moved) <= once + 8  # counts of examples, loss
    for size in set(sizes(variables["params"])) - set(statistics):
        assert moved.count(size) == sizes(variables["params"]).count(size)
    # What is ready together goes together: four for a normalisation, two more.
    assert len(found["all-reduce"]) <= 2 * len(statistics) + 2


def test_sharded_parameters_are_gathered_once(monkeypatch):
    monkeypatch.setattr(sharding, "_SHARDED_SIZE", 16)
    found, variables = collectives(monkeypatch, sharded=True)
    assert found.keys() <= {"all-reduce", "all-gather", "reduce-scatter"}
    sharded = [
        leaf.size
        for leaf in jax.tree.leaves(variables)
        if not leaf.sharding.is_fully_replicated
    ]
    assert len(sharded) == 2  # the kernels
    assert sorted(size for one in found["all-gather"] for size in one) == sorted(
        sharded
    )
