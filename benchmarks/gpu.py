"""What is worth doing on a GPU that one has for ten minutes, the most telling first.

    python -m benchmarks.gpu --minutes=10 --data_dir=DIR        (or: make gpu)

1. numbers: what the device computes in float32, beside the CPU (2 minutes);
2. programs and benchmarks: how long the programs of `benchmarks.compiled` and
   `benchmarks.run` take (3 minutes);
3. reproduction: the paper's Figures 2 and 3 at full scale, MC dropout with smoothing
   and without, for as many seeds as there is time for.

Everything that is finished is a small file in --results, and is not done again: the
same command continues, on this machine or on another one that has the files. What is
interrupted, by Ctrl-C or because its time is over, continues too. CIFAR-100 is read
from --data_dir; --scale=tiny does all of it in a few minutes on a CPU.
"""

import argparse
import dataclasses
import importlib.util
import os
import pathlib
import signal
import sys
import time
from collections.abc import Mapping, Sequence

from benchmarks import commands as processes
from benchmarks.commands import ROOT
from benchmarks.run_files import Execute

_PAIR = "resnet_mcdo_18,resnet_mcdo_smoothing_18"
# Suites of `benchmarks.run` -> seconds, most of which compile. The other suites time
# what is among the programs of `benchmarks.compiled` too.
_SUITES = {"training": 60, "mc_dropout": 75}
# Scale -> scales of `agreement` and of `run`, rows of `timed`, and type of training.
SCALES: dict[str, tuple[str, str, str, str | None]] = {
    "full": ("agreement", "gpu_minutes", "", "bfloat16"),
    "tiny": ("tiny", "tiny", "^h200 smooth 5x5x512 128 float32 ours", None),
}
_LEAST = 10.0
"""Seconds that something has to begin with."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A command, and the time that it gets.

    Attributes:
      part: The part that it belongs to.
      name: Its name within the part, for the terminal.
      command: What follows `python`.
      seconds: Time that it gets at most; None for all that is left.
      output: File that is there once it is done; None where the command itself knows
        what is missing.
      module: Module that has to be part of this checkout; None if that is no question.
    """

    part: str
    name: str
    command: Sequence[str]
    seconds: float | None
    output: pathlib.Path | None = None
    module: str | None = None


def jobs(
    scale: str,
    *,
    results: pathlib.Path,
    runs: pathlib.Path | None = None,
    data_dir: str | None = None,
    seeds: str = "1,2,3",
) -> list[Job]:
    """Returns what there is to do, in its order.

    Args:
      scale: Scale, a key of `SCALES`.
      results: Directory of the results.
      runs: Directory of the workdirs of trainings; None for that of `reproduce`.
      data_dir: Directory of TFDS; None for its default.
      seeds: Seeds of the trainings, separated by commas.
    """
    numbers, suites, rows, dtype = SCALES[scale]
    folder = results / "benchmarks" / "gpu"

    def module(name: str, file: str, *arguments: str) -> list[str]:
        return ["-m", f"benchmarks.{name}", f"--output={folder / file}", *arguments]

    found = [
        Job(
            "numbers",
            "float32 beside the CPU",
            module("agreement", "numbers.json", f"--scale={numbers}"),
            120,
        ),
        Job(
            "programs",
            "programs of benchmarks.compiled",
            module("timed", "programs.json", f"--rows={rows}", "--minutes=1"),
            75,
            module="benchmarks.compiled_programs",
        ),
    ]
    found += [
        Job(
            "benchmarks",
            suite,
            module("run", f"{suite}.json", f"--suite={suite}", f"--scale={suites}"),
            seconds,
            folder / f"{suite}.json",
        )
        for suite, seconds in _SUITES.items()
    ]
    name = "cifar100_resnet18" if scale == "full" else f"cifar100_{scale}"
    reproduction = [
        *("-m", "benchmarks.reproduce", f"--scale={scale}", f"--models={_PAIR}"),
        *(f"--seeds={seeds}", f"--output={results / name}"),
        *([] if dtype is None else [f"--dtype={dtype}"]),
        *([] if runs is None else [f"--runs={runs}"]),
        *([] if data_dir is None else [f"--data_dir={data_dir}"]),
    ]
    return [*found, Job("reproduction", "Figures 2 and 3", reproduction, None)]


def work(
    todo: Sequence[Job],
    *,
    minutes: float,
    execute: Execute = processes.execute,
) -> int:
    """Does what there is to do, until the time is over.

    Args:
      todo: What there is to do, in its order. A job that fails does not keep the next
        ones from being done.
      minutes: How long all of it may take.
      execute: Runs a command; see `commands.execute`.

    Returns:
      The first exit code that was not 0, else 0.
    """
    end, failed = time.monotonic() + 60 * minutes, 0
    for number, job in enumerate(todo, 1):
        left = end - time.monotonic()
        about = f"[{number} of {len(todo)}] {job.part}: {job.name}"
        if job.output is not None and job.output.exists():
            print(f"{about}: done before, in {job.output}", flush=True)
            continue
        if job.module is not None and importlib.util.find_spec(job.module) is None:
            print(f"{about}: {job.module} is not part of this checkout", flush=True)
            continue
        if left < _LEAST:
            print(f"{about}: no time is left; the same command continues", flush=True)
            continue
        seconds = left if job.seconds is None else min(job.seconds, left)
        command = list(job.command)
        if job.seconds is None:  # it ends by itself, with figures of what is finished
            command.append(f"--minutes={seconds / 60:.2f}")
            seconds = None
        limit = left if seconds is None else seconds
        print(f"{about}: {limit:.0f} s at most, {left:.0f} s are left", flush=True)
        begin = time.monotonic()
        code = execute(command, seconds=seconds)
        taken = time.monotonic() - begin
        said = {None: "its time is over; the same command continues", 0: "done"}
        print(
            f"{about}: {said.get(code, f'exit code {code}')}, {taken:.0f} s", flush=True
        )
        failed = failed or code or 0
    return failed


def environment(given: Mapping[str, str], runs: pathlib.Path) -> dict[str, str]:
    """Returns what is added to the environment of the commands.

    Args:
      given: The environment of this process.
      runs: Directory of what is not worth keeping for ever.
    """
    # Programs that an interrupted job has compiled are not compiled again.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(runs / "programs")}
    return {name: value for name, value in cache.items() if name not in given}


def main(argv: Sequence[str] | None = None, *, execute: Execute | None = None) -> int:
    """Does what the arguments say; returns an exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="time for all")
    parser.add_argument("--data_dir", help="directory of TFDS, with cifar100")
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--seeds", default="1,2,3", help="seeds of the trainings")
    parser.add_argument(
        "--parts", help="parts to do, separated by commas; default: all of them"
    )
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "results")
    parser.add_argument(
        "--runs", type=pathlib.Path, default=ROOT / "runs" / "gpu", help="workdirs"
    )
    given = parser.parse_args(argv)
    runs = given.runs.absolute()
    todo = jobs(
        given.scale,
        results=given.results.absolute(),
        runs=runs,
        data_dir=given.data_dir,
        seeds=given.seeds,
    )
    parts = list(dict.fromkeys(job.part for job in todo))
    wanted = parts if given.parts is None else given.parts.split(",")
    if unknown := [part for part in wanted if part not in parts]:
        parser.error(f"unknown part {unknown[0]!r}; choices: {', '.join(parts)}")
    os.environ.update(environment(os.environ, runs))
    return work(
        [job for job in todo if job.part in wanted],
        minutes=given.minutes,
        execute=execute or processes.execute,
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, processes.end_with_children)
    sys.exit(main())
