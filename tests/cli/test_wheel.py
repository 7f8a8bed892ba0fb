"""The wheel: what it holds, and that its commands work where there is no checkout."""

import json
import os
import shutil
import subprocess
import sys

import compiler_flags
import pytest
from checkout import ROOT
from small_runs import without_progress

# What a wheel is built from.
SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")
SMALL = (
    "--config.width=4",
    "--config.stages=(1,)",
    "--config.epochs=1",
    "--config.warmup_epochs=0",
    "--config.milestones=()",
    "--config.batch_size=1000",
    "--config.eval_batch_size=1000",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the wheel is installed, and nothing else."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copy(ROOT / name, source)
    for name in ("spatial_smoothing", "configs"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    offline = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    pip(source, "wheel", *offline, "--no-build-isolation", "--wheel-dir=dist", ".")
    (wheel,) = (source / "dist").glob("*.whl")
    pip(source, "install", *offline, "--target=installed", str(wheel))
    return source / "installed"


def pip(folder, *arguments):
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run(installed, folder, *arguments):
    """Runs the installed command; returns exit code, stdout, stderr."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(installed),
        "SPATIAL_SMOOTHING_CACHE": str(installed.parent / "cache"),
        "XLA_FLAGS": compiler_flags.flags(num_devices=1),
    }
    command = [installed / "bin" / "spatial-smoothing", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_every_file_of_the_package_is_in_the_wheel(installed):
    package, sources = installed / "spatial_smoothing", ROOT / "spatial_smoothing"
    expected = files(sources) | {f"configs/{name}" for name in files(ROOT / "configs")}
    assert files(package) == expected
    stub = "__path__"  # of a checkout only
    assert stub in (sources / "configs" / "__init__.py").read_text()
    assert stub not in (package / "configs" / "__init__.py").read_text()


def files(folder):
    """Returns the relative paths of the files that are not of this interpreter."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {str(path) for path in paths if "__pycache__" not in path.parts}


def test_trains_and_evaluates_in_an_empty_folder(installed, tmp_path):
    code, out, err = run(
        *(installed, tmp_path, "train", "--config=shapes", "--workdir=run", *SMALL)
    )
    assert (code, without_progress(err)) == (0, "")
    assert "0 warm-up + 1 epochs of" in out
    assert "finished: 1 epochs" in out
    code, out, err = run(
        *(installed, tmp_path, "evaluate", "--workdir=run", "--num_samples=2"),
        *("--batch_size=1000", "--num_replicates=0"),
    )
    assert (code, without_progress(err)) == (0, "")
    rows = json.loads((tmp_path / "run/evaluation/metrics.json").read_text())["rows"]
    assert [row["num_samples"] for row in rows] == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_config_that_a_checkout_would_have(installed, tmp_path):
    code, _, err = run(
        *(installed, tmp_path, "train", "--config=configs/shapes.py", "--workdir=run")
    )
    assert code == 2
    assert "--config=shapes takes the config of that name" in err
    assert not list(tmp_path.iterdir())
