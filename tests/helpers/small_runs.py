"""Trainings of a few seconds, as processes: a small CIFAR-10 and a small network."""

import dataclasses
import hashlib
import os
import pathlib
import re
import subprocess
import sys

import compiler_flags
import pytest
from checkout import ROOT
from cifar_archive import random_content, tar_gz

from spatial_smoothing.data.tfds import prepare_cifar

SMALL = (
    "--config=configs/cifar10.py",
    "--config.width=4",
    "--config.stages=(1,)",
    "--config.batch_size=8",
    "--config.milestones=(2,)",
    "--config.checkpoint_every=1",
    "--config.learning_rate=0.01",
)
# What two equal runs do not have in common.
TIMES = ("images_per_second", "data_ms", "compute_ms", "time")


def prepare(home: pathlib.Path) -> None:
    """Puts a small prepared CIFAR-10 in `home`/tfds."""
    content = tar_gz(random_content("cifar10").files)
    builder = prepare_cifar.BUILDERS["cifar10"]
    archive = dataclasses.replace(
        builder.archive, size=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    name = archive.url.rpartition("/")[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "archive", archive)
        manual = home / "tfds" / "downloads" / "manual" / name
        manual.parent.mkdir(parents=True)
        manual.write_bytes(content)
        prepare_cifar.prepare("cifar10", home / "tfds")


def train(workdir: pathlib.Path, *arguments: str, home: pathlib.Path, epochs: int = 3):
    """Returns the arguments of `start` that train for 1 + `epochs` epochs."""
    return (
        "train.py",
        f"--workdir={workdir}",
        *SMALL,
        f"--config.data_dir={home / 'tfds'}",
        f"--config.epochs={epochs}",
        *arguments,
    )


def start(
    script: str, *arguments: str, home: pathlib.Path, num_devices: int = 1
) -> subprocess.Popen:
    """Starts a script on a number of devices.

    Caches are in the folder of `home`: other test files of this process start scripts
    with the same programs.
    """
    environment = {
        **os.environ,
        "SPATIAL_SMOOTHING_CACHE": str(home.parent / "cache"),
        "XLA_FLAGS": compiler_flags.flags(num_devices=num_devices),
        "COLUMNS": "100",
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    return subprocess.Popen(
        [sys.executable, ROOT / script, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script: str, *arguments: str, **options) -> tuple[int, str, str]:
    """Runs a script as `start` does, and waits for its end.

    Returns:
      Its exit code, stdout, and stderr without the lines of slow machines.
    """
    process = start(script, *arguments, **options)
    out, err = process.communicate()
    return process.returncode, out, without_progress(err)


def without_progress(err: str) -> str:
    """Returns what a script wrote to stderr, without the lines of slow machines."""
    lines = err.splitlines(keepends=True)
    return "".join(line for line in lines if not re.match(r"\[\d+:\d\d:\d\d\] ", line))


def wait_for_epochs(process: subprocess.Popen, count: int) -> None:
    """Reads a training's lines until so many epochs are over, or it has ended."""
    for line in process.stdout:
        count -= re.match(r" *\d+/\d+ ", line) is not None
        if not count:
            return
