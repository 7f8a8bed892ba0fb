"""Kills trainings at random moments, and compares what comes of them bit by bit.

    python tests/chaos.py --trials=20

Each trial starts `train.py` anew, kills it (SIGKILL), lets the same command continue,
and compares final parameters with those of a run that was never disturbed. Prints a
table: trial, moment, what was going on, outcome; exit code 1 if an outcome is bad.
"""

import argparse
import functools
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import small_runs

from spatial_smoothing.runs import workdirs
from spatial_smoothing.runtime import messages
from spatial_smoothing.training import logs
from spatial_smoothing.training.checkpoints import Checkpoints

EPOCHS = 8
MOMENTS = ("starting", "training", "saving")


def disturb(workdir, command, *, moment, rng, pace):
    """Starts a training and kills it at a random moment of a kind.

    Args:
      workdir: Of the run.
      command: Starts it; returns the process.
      moment: One of MOMENTS: before the first step; after the line of a random epoch;
        while a checkpoint lies half written.
      rng: Python's.
      pace: Seconds from start to the first epoch's line, and from line to line.

    Returns:
      What was going on, as the workdir shows it.
    """
    process = command()
    try:
        if moment == "starting":
            time.sleep(rng.uniform(0, pace[0]))
        else:
            small_runs.wait_for_epochs(process, rng.randrange(EPOCHS - 1) + 1)
            if moment == "training":
                time.sleep(rng.uniform(0, pace[1]))
            else:
                while not unfinished(workdir) and process.poll() is None:
                    time.sleep(0.0005)
                time.sleep(rng.uniform(0, 0.03))
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return going_on(workdir) if process.returncode < 0 else "it had ended"


def unfinished(workdir: pathlib.Path) -> list[str]:
    """Names of checkpoints that are being written, or were."""
    return [p.name for p in workdir.glob("checkpoints/*.orbax-checkpoint-tmp*")]


def going_on(workdir: pathlib.Path) -> str:
    """What a killed run did last."""
    if not (workdir / "config.json").exists():
        return "starting, no config yet"
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        steps = checkpoints.steps()
    last = f"last complete {steps[-1]}" if steps else "none complete"
    if half := unfinished(workdir):
        return f"writing checkpoint {half[0].partition('.')[0]}, {last}"
    return f"checkpoint: {last}"


def outcome(workdir: pathlib.Path, expected: pathlib.Path, code: int, err: str) -> str:
    """ "bit-identical", or what is wrong."""
    if code or small_runs.without_progress(err):
        return f"exit code {code}: {err.strip().splitlines()[-1:]}"
    weights = [jax.tree.leaves(workdirs.load(p).variables) for p in (workdir, expected)]
    if not all(np.array_equal(a, b) for a, b in zip(*weights, strict=True)):
        return "other parameters"
    records = [logs.read(p / "metrics.jsonl") for p in (workdir, expected)]
    timeless = [
        [{k: v for k, v in r.items() if k not in small_runs.TIMES} for r in run]
        for run in records
    ]
    if timeless[0] != timeless[1]:
        return "other metrics.jsonl"
    if left := [*unfinished(workdir), *workdir.glob("damaged_checkpoints/*")]:
        return f"left {left}"
    return "bit-identical"


def start(workdir: pathlib.Path, home: pathlib.Path) -> subprocess.Popen:
    """Starts or continues the training of all trials."""
    arguments = small_runs.train(workdir, home=home, epochs=EPOCHS - 1)
    return small_runs.start(*arguments, home=home)


def reference(home: pathlib.Path) -> tuple[pathlib.Path, tuple[float, float]]:
    """Trains without disturbance; returns the workdir and the pace."""
    for name in ("warm_up", "reference"):  # trials find the first's compiled step
        workdir, begin = home / name, time.monotonic()
        process = start(workdir, home)
        small_runs.wait_for_epochs(process, 1)
        first = time.monotonic()
        process.communicate()
        if process.returncode:
            raise RuntimeError("the undisturbed run has failed")
    return workdir, (first - begin, (time.monotonic() - first) / EPOCHS)


def trial(
    workdir: pathlib.Path, expected: pathlib.Path, *, home, moments, rng, pace
) -> tuple[list[str], str]:
    """Disturbs one run at each of `moments`, lets it finish; what went on, outcome."""
    begin = functools.partial(start, workdir, home)
    seen = [
        disturb(workdir, begin, moment=moment, rng=rng, pace=pace) for moment in moments
    ]
    process = begin()
    _, err = process.communicate()
    return seen, outcome(workdir, expected, process.returncode, err)


def main() -> int:
    """Runs the trials and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--first", type=int, default=1, help="number of the first")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    messages.quiet()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        small_runs.prepare(home)
        expected, pace = reference(home)
        print(f"{'trial':>5}  {'moment':8}  {'what was going on':40}  outcome")
        for number in range(options.first, options.first + options.trials):
            rng = random.Random(1000 * options.seed + number)
            moment = rng.choices(MOMENTS, (1, 2, 2))[0]
            (seen,), result = trial(
                home / f"trial{number}",
                expected,
                home=home,
                moments=(moment,),
                rng=rng,
                pace=pace,
            )
            bad += result != "bit-identical"
            print(f"{number:5}  {moment:8}  {seen:40}  {result}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
