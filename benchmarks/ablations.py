"""Trains and evaluates the cases of `tables.TABLES` over several seeds.

    python -m benchmarks.ablations --table=heads --seeds=3 --output=runs/ablations

This trains small networks on the embedded data set. Everything after `--` goes to
`train.py`, as in `-- --config=cifar100 --config.data_dir=DIR`. Each case and seed is
one run, which all tables with this case share. The same command continues where it was
interrupted. Each table is a report with means and ranges over seeds.
"""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from benchmarks.tables import TABLES
from spatial_smoothing import report
from spatial_smoothing.cli import start
from spatial_smoothing.lookup import lookup
from spatial_smoothing.runs.provenance import provenance
from spatial_smoothing.runtime import progress

_ROOT = Path(__file__).parents[1]
FLAGS = start.new_flags()
_TABLE = flags.DEFINE_list(
    "table",
    list(TABLES),
    f"Tables to make, separated by commas: {', '.join(TABLES)}.",
    flag_values=FLAGS,
)
_SEEDS = flags.DEFINE_integer(
    "seeds",
    3,
    "Number of runs of each case, with the seeds 0, 1, ...",
    lower_bound=1,
    flag_values=FLAGS,
)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 50, "Number of Monte Carlo dropout samples.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Directory of runs and reports.", flag_values=FLAGS
)


class Job(NamedTuple):
    """A run to be made: its workdir and the fields of its config."""

    workdir: Path
    fields: dict[str, Any]


def job(output: Path, fields: Mapping[str, Any], *, seed: int) -> Job:
    """Returns the run of a case; its name has all its fields."""
    others = [f"{k}={_text(v)}" for k, v in fields.items() if k != "model"]
    name = "-".join([fields["model"], *others, f"seed={seed}"])
    name = name.replace(",", "_")  # --workdir separates workdirs by commas
    return Job(output / "runs" / name, {**fields, "seed": seed})


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def commands(
    job: Job, *, arguments: Sequence[str], num_samples: int
) -> Iterator[list[str]]:
    """Yields the commands that make a run and evaluate it.

    Args:
      job: The run.
      arguments: Further arguments of train.py; without a config among them, it is that
        of the embedded data set.
      num_samples: Number of Monte Carlo dropout samples.
    """
    if not any(argument.startswith("--config=") for argument in arguments):
        arguments = ["--config=configs/shapes.py", *arguments]
    fields = [f"--config.{name}={value}" for name, value in job.fields.items()]
    yield ["train.py", f"--workdir={job.workdir}", *arguments, *fields]
    yield ["evaluate.py", f"--workdir={job.workdir}", f"--num_samples={num_samples}"]


def execute(command: Sequence[str]) -> None:
    """Runs a script of the project, which prints nothing here.

    Args:
      command: The name of the script, and its arguments.

    Raises:
      ValueError: if it fails; the text has the last line that it printed.
      KeyboardInterrupt: if it was interrupted.
    """
    done = subprocess.run(
        [sys.executable, *command], cwd=_ROOT, capture_output=True, text=True
    )
    if done.returncode in (130, 143):
        raise KeyboardInterrupt
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ValueError(f"{' '.join(command)}: {''.join(words)}")


def rows(output: Path, table: str, *, seeds: int) -> list[dict[str, Any]]:
    """Returns the rows of all runs of a table; a row's label is its case."""
    found = []
    for (case, fields), seed in itertools.product(TABLES[table].items(), range(seeds)):
        own, _ = report.read(_metrics(job(output, fields, seed=seed)))
        found += [{**row, "label": case} for row in own]
    return found


def _metrics(job: Job) -> Path:
    return job.workdir / "evaluation" / "metrics.json"


def _claim(output: Path, settings: Mapping[str, Any]) -> None:
    """Raises ValueError if the directory holds runs of other settings."""
    path, text = output / "settings.json", json.dumps(settings, indent=1)
    if path.exists() and path.read_text() != text:
        raise ValueError(
            f"{output} holds runs of other settings; choose another --output"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def main(arguments: Sequence[str] = ()) -> None:
    """Makes the runs that are missing, and a report of each table."""
    output, seeds = Path(_OUTPUT.value).absolute(), _SEEDS.value
    chosen = {name: lookup(TABLES, name, "table") for name in _TABLE.value}
    settings = {"train": list(arguments), "num_samples": _NUM_SAMPLES.value}
    _claim(output, settings)
    jobs = {
        one.workdir: one
        for seed in range(seeds)
        for cases in chosen.values()
        for fields in cases.values()
        for one in [job(output, fields, seed=seed)]
    }
    missing = [one for one in jobs.values() if not _metrics(one).exists()]
    for one in progress.track(missing, total=len(missing), name="Runs"):
        for command in commands(
            one, arguments=arguments, num_samples=_NUM_SAMPLES.value
        ):
            execute(command)
    for table in chosen:
        found = rows(output, table, seeds=seeds)
        page = report.write(
            output / table,
            found,
            provenance={**provenance(), **settings, "seeds": seeds},
            title=f"Special cases: {table}",
        )
        report.print_table([row for row in found if _is_largest(row, found)])
        print(f"report: {page}")


def _is_largest(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether a row is that of the largest ensemble of its case."""
    sizes = [other["num_samples"] for other in rows if other["label"] == row["label"]]
    return row["num_samples"] == max(sizes)


COMMAND = start.Command(
    main, FLAGS, about=__doc__, required=("output",), positional=True
)

if __name__ == "__main__":
    start.run(COMMAND)
