"""The two scripts as a user runs them: processes, exit codes, files."""

import json
import re
import shutil
import signal
import socket

import jax
import numpy as np
import pytest
from small_runs import prepare, run, start, train, without_progress

from spatial_smoothing import report
from spatial_smoothing.cli import config_files
from spatial_smoothing.cli import train as train_command
from spatial_smoothing.runs import workdirs
from spatial_smoothing.training import logs


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a small prepared CIFAR-10 in `tfds`."""
    path = tmp_path_factory.mktemp("home")
    prepare(path)
    return path


@pytest.fixture(scope="module")
def finished(home):
    """A run that was never interrupted: 1 + 3 epochs."""
    code, out, err = run(*train(home / "straight", home=home), home=home)
    assert (code, err) == (0, "")
    assert out.startswith(
        "resnet_mcdo_smoothing_18 on cifar10: 1 warm-up + 3 epochs of 5 steps\n"
    )
    assert re.search(r"^devices: \d+ CPUs? \(.+ cores?\)$", out, re.M)
    assert "finished: 4 epochs, 20 steps" in out
    return home / "straight"


def weights(workdir):
    return jax.tree.leaves(workdirs.load(workdir).variables)


def test_workdir_holds_what_is_promised(finished):
    assert json.loads((finished / "config.json").read_text())["dataset"] == "cifar10"
    provenance = json.loads((finished / "provenance.json").read_text())
    assert provenance["libraries"]["jax"]
    records = logs.read(finished / "metrics.jsonl")
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    promised = {"epoch", "step", "train_loss", "learning_rate", "images_per_second"}
    assert promised | {"test_nll", "test_accuracy"} <= records[0].keys()
    assert list((finished / "tensorboard").iterdir())


def test_finished_run_says_so(finished, home):
    before = (finished / "metrics.jsonl").read_bytes()
    code, out, _ = run(*train(finished, home=home), home=home)
    assert code == 0
    assert "finished: 4 epochs, 20 steps" in out
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_interrupted_in_every_way_is_bit_identical(finished, home):
    """Killed, then asked to stop twice, each after an epoch's line; then left alone."""
    workdir = home / "interrupted"
    command = train(workdir, home=home)
    signals = {"1/4": "SIGKILL", "2/4": "SIGINT", "3/4": "SIGTERM"}
    for epoch, name in signals.items():
        number = signal.Signals[name]
        process = start(*command, home=home)
        for line in process.stdout:
            if line.split()[:1] == [epoch]:
                process.send_signal(number)
                break
        out, _ = process.communicate()
        if name == "SIGKILL":
            assert process.returncode == -number
        else:
            assert process.returncode == 128 + number
            assert "the same command continues" in out
    code, out, _ = run(*command, home=home)
    assert code == 0
    assert "continuing from step" in out
    for a, b in zip(weights(workdir), weights(finished), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [r["epoch"] for r in logs.read(workdir / "metrics.jsonl")] == [1, 2, 3, 4]


def test_evaluates_and_compares(finished, home):
    code, out, err = run(
        "evaluate.py", f"--workdir={finished}", "--num_samples=3", home=home
    )
    assert (code, err) == (0, "")
    assert "MC dropout + smoothing" in out
    rows, provenance = report.read(finished / "evaluation" / "metrics.json")
    assert [row["num_samples"] for row in rows] == [1, 2, 3]
    assert {row["num_examples"] for row in rows} == {9}
    assert provenance["runs"][0]["step"] == 20
    page = (finished / "evaluation" / "report.html").read_text()
    assert "MC dropout + smoothing" in page
    code, _, err = run(
        *("evaluate.py", f"--workdir={finished}", "--num_samples=3"),
        *("--temporal=1", "--past=1", "--num_frames=3"),
        home=home,
    )
    assert (code, err) == (0, "")
    both, provenance = report.read(finished / "evaluation" / "metrics.json")
    before = [row["nll"] for row in rows]
    assert [row["nll"] for row in both[:3]] == pytest.approx(before, rel=1e-5)
    assert [row["label"] for row in both[3:]] == ["MC dropout + smoothing + temporal"]
    assert provenance["evaluations"]["ensemble"]["past"] == 1
    code, out, _ = run(
        "evaluate.py", f"--compare={finished}", f"--output={home / 'both'}", home=home
    )
    assert code == 0
    assert (home / "both" / "report.html").exists()


def test_deep_ensemble_of_workdirs(finished, home):
    code, _, err = run(
        *train(home / "second", "--config.seed=1", home=home, epochs=3), home=home
    )
    assert code == 0, err
    output = home / "deep"
    code, _, err = run(
        "evaluate.py",
        f"--workdir={finished},{home / 'second'}",
        "--num_samples=2",
        f"--output={output}",
        home=home,
    )
    assert (code, err) == (0, "")
    rows, _ = report.read(output / "metrics.json")
    deep = "Deep ensemble of MC dropout + smoothing"
    assert [row["num_samples"] for row in rows if row["label"] == deep] == [1, 2, 4]
    alone = [row["run"] for row in rows if row["label"] != deep]
    assert alone == [str(path) for path in (finished, home / "second") for _ in (1, 2)]


def test_robustness_on_images_that_are_made_and_on_written_ones(finished, home):
    folder, output = home / "corrupted", home / "robustness"
    names = "--corruptions=contrast,motion_blur"
    code, out, err = run(
        *("corrupt.py", "--dataset=cifar10", f"--data_dir={home / 'tfds'}"),
        *(names, f"--output={folder}"),
        home=home,
    )
    assert (code, err) == (0, "")
    assert f"--corrupted_dir={folder}" in out
    evaluate = (
        *("evaluate.py", f"--workdir={finished}", f"--output={output}", names),
        *("--severities=1", "--num_samples=2", "--normalizer=alexnet"),
    )
    suites = ("--suite=corruption,perturbation", "--perturbations=translate")
    code, out, err = run(*evaluate, *suites, home=home)
    assert (code, err) == (0, "")
    assert "mCNLL %" in out
    assert "Flip rate %" in out
    made, _ = report.read(output / "metrics.json")
    document = (output / "report.html").read_text()
    assert "cifar10 corrupted (generated)" in document
    assert "motion blur (emulated)" in document
    read = (*evaluate, "--suite=corruption", f"--corrupted_dir={folder}")
    code, _, err = run(*read, home=home)
    assert (code, err) == (0, "")
    again, _ = report.read(output / "metrics.json")
    key = lambda row: str([row["suite"], row.get("corruption"), row["num_samples"]])
    for one, other in zip(sorted(made, key=key), sorted(again, key=key), strict=True):
        assert one.pop("arrays", None) is None or other.pop("arrays", None) is not None
        assert one == other
    (folder / "contrast.npy").unlink()
    code, _, err = run(*read, home=home)
    assert code == 2
    assert "contrast.npy (there: motion_blur)" in err
    assert len(err.splitlines()) == 1


def test_damaged_checkpoint_is_passed_over(finished, home):
    workdir = home / "damaged"
    shutil.copytree(finished, workdir)
    for path in (workdir / "checkpoints" / "20").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])
    code, out, err = run(*train(workdir, home=home), home=home)
    assert code == 0
    assert re.fullmatch(r"warning: checkpoint .*/20 is damaged .*\n", err)
    assert "continuing from step 15 of 20" in out
    for a, b in zip(weights(workdir), weights(finished), strict=True):
        np.testing.assert_array_equal(a, b)


MISTAKES = {
    "unknown model 'resnet_dnn_19'; did you mean 'resnet_dnn_18'?": {
        "model": "resnet_dnn_19"
    },
    "data directory /nowhere does not exist": {"data_dir": "/nowhere"},
    "1000000001 epochs of 5 steps are more than 2147483647 steps": {"epochs": 10**9},
    "batch_size 64 is more than the 35 examples": {"batch_size": 64},
    "of 35 images, val_fraction 0.01 leaves none to be held out": {
        "val_fraction": 0.01
    },
    r"batch_size 7 cannot be divided by \d devices": {"batch_size": 7},
    r"eval_batch_size 9 cannot be divided by \d devices": {"eval_batch_size": 9},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_found_when_data_are_loaded(message, home):
    config = config_files.load("cifar10").to_dict()
    small = {"width": 4, "stages": (1,), "batch_size": 8, "eval_batch_size": 8}
    config |= {**small, "data_dir": str(home / "tfds"), **MISTAKES[message]}
    with pytest.raises(ValueError, match=message):
        train_command.load(config)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "--config.epochs=many",
            "epochs must be a whole number of at least 1, got many",
        ),
        ("--config.batch_size=7", "batch_size 7 cannot be divided by 2 devices"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(argument, message, home):
    workdir = home / "mistake"
    code, out, err = run(*train(workdir, argument, home=home), home=home, num_devices=2)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1
    assert not workdir.exists()


def test_workdir_of_another_config(finished, home):
    code, _, err = run(*train(finished, "--config.seed=7", home=home), home=home)
    assert code == 2
    assert "holds another config: seed is 0 there and 7 here" in err


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "--num_samples=0",
            "--num_samples must be a whole number of at least 1, got 0",
        ),
        ("--suite=ensembel", "unknown suite 'ensembel'; did you mean 'ensemble'?"),
        ("--compare=a", "give either --workdir"),
        ("--past=1", "past, decay and num_frames are for temporal smoothing; give"),
    ],
)
def test_mistakes_of_evaluation(argument, message, finished, home):
    code, _, err = run("evaluate.py", f"--workdir={finished}", argument, home=home)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_divergence_has_its_own_code(home):
    code, _, err = run(
        *train(home / "nan", "--config.learning_rate=1e30", home=home), home=home
    )
    assert code == 1
    assert "loss or gradient is not finite at step" in err
    assert "in another workdir" in err


def test_profile_is_traced(home):
    workdir = home / "traced"
    command = train(workdir, "--profile=2", home=home, epochs=1)
    code, out, err = run(*command, home=home)
    assert (code, err) == (0, "")
    assert f"traced steps 1 to 2, in {workdir}/profile" in out
    assert list(workdir.glob("profile/**/*.xplane.pb"))


def start_two(*arguments, home, second=()):
    """Starts a command as two processes; the second with more arguments."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        port = server.getsockname()[1]
    cluster = (f"--coordinator=localhost:{port}", "--num_processes=2")
    cluster += ("--start_timeout=60",)
    return [
        start(*arguments, *more, *cluster, f"--process_id={number}", home=home)
        for number, more in enumerate(((), second))
    ]


def test_two_processes_are_one_run_and_end_together(finished, home):
    """The second is killed; both started again finish what one alone would."""
    workdir = home / "two"
    first, second = start_two(*train(workdir, home=home), home=home)
    for line in first.stdout:
        if line.split()[:1] == ["2/4"]:
            break
    second.kill()
    _, err = first.communicate()
    err = without_progress(err)
    second.communicate()
    if first.returncode == 3:
        assert re.fullmatch("error: another process is gone .*\n", err)
    else:
        # JAX was the first to notice.
        assert first.returncode == -signal.SIGABRT, err
    pair = start_two(*train(workdir, home=home), home=home)
    (out, err), (silence, _) = [process.communicate() for process in pair]
    assert [process.returncode for process in pair] == [0, 0], err
    assert "finished: 4 epochs, 20 steps" in out
    silence = without_progress(silence)
    assert all(line.startswith("[Gloo]") for line in silence.splitlines())
    for a, b in zip(weights(workdir), weights(finished), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4)
    assert [r["epoch"] for r in logs.read(workdir / "metrics.jsonl")] == [1, 2, 3, 4]


def test_processes_of_different_configs(home):
    workdir = home / "mistake"
    command = train(workdir, home=home)
    for process in start_two(*command, home=home, second=("--config.seed=1",)):
        _, err = process.communicate()
        assert process.returncode == 2
        assert without_progress(err) == (
            "error: seed is 0 on process 0 and 1 on process 1; "
            "all processes need the same\n"
        )
    assert not workdir.exists()
