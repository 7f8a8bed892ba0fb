"""Trains and evaluates all rivals of spatial smoothing, with and without smoothing.

    python -m benchmarks.rivals --output=results/rivals_small --workdirs=runs/rivals

This trains small networks on the embedded data set, one run at a time. The same command
continues where it was interrupted: a run that is finished is a row of `runs.json` in
the output, and its workdir is not needed any more. `--scale=full` is the paper's recipe
for CIFAR-100, on a GPU. `--report_only` draws the figures and tables again from the
rows, and trains nothing.
"""

import collections
import pathlib
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from benchmarks import commands, rival_readme
from benchmarks.rival_methods import METHODS, SCALES, Job, Scale, jobs
from benchmarks.row_files import RowFile
from spatial_smoothing import report
from spatial_smoothing.cli import start
from spatial_smoothing.evaluation import suites
from spatial_smoothing.lookup import lookup
from spatial_smoothing.runs import recipes, workdirs
from spatial_smoothing.runs.provenance import provenance
from spatial_smoothing.runtime import progress

FLAGS = start.new_flags()
_SCALE = flags.DEFINE_enum(
    "scale",
    "small",
    list(SCALES),
    "small: the embedded data set, on a CPU; full: the paper's recipe for CIFAR-100.",
    flag_values=FLAGS,
)
_SEEDS = flags.DEFINE_integer(
    "seeds", 3, "Number of runs of each method.", lower_bound=1, flag_values=FLAGS
)
_METHODS = flags.DEFINE_list(
    "methods",
    list(METHODS),
    f"Methods to train, separated by commas: {', '.join(METHODS)}.",
    flag_values=FLAGS,
)
_WORKDIRS = flags.DEFINE_string(
    "workdirs", None, "Folder of the workdirs of the runs.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the rows and of the report.", flag_values=FLAGS
)
_REPORT_ONLY = flags.DEFINE_bool(
    "report_only",
    False,
    "Whether to make the report from the rows that are there, and train nothing.",
    flag_values=FLAGS,
)
_TRAIN_ONLY = flags.DEFINE_bool(
    "train_only",
    False,
    "Whether to train the missing runs and leave their evaluation to a later start.",
    flag_values=FLAGS,
)
# Keys of rows that a figure or table is made of; the rest is large.
_KEPT = (
    *("label", "model", "smoothed", "recipe", "dataset", "run", "num_members"),
    *("num_samples", "num_examples", "nll", "accuracy", "ece", "brier", "gflops"),
    *("suite", "reference"),
)


def train_command(job: Job, scale: Scale, *, workdir: pathlib.Path) -> list[str]:
    """Returns the command that trains a run.

    Args:
      job: The run.
      scale: The size of the comparison.
      workdir: Its workdir.
    """
    fields = [f"--config.{key}={value}" for key, value in job.fields(scale).items()]
    config = f"--config=configs/{scale.config}.py"
    return ["train.py", f"--workdir={workdir}", config, *fields]


def evaluate(job: Job, scale: Scale, *, workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of a run, by the suites of evaluate.py.

    Args:
      job: The run.
      scale: The size of the comparison.
      workdir: Its workdir.
    """
    runs = workdirs.load_members(workdir)
    load = recipes.loader(runs[0].config)
    setting = suites.Setting(
        load(runs[0].config["dataset"], "test"),
        num_samples=scale.num_samples,
        num_replicates=0,
        load=load,
    )
    rows = []
    for suite in METHODS[job.method].suites:
        function = suites.SUITES[suite]
        groups = [[run] for run in runs] if function.for_one_run else [runs]
        for group in groups:
            rows += function.function(group, setting)
    # Of the members alone, the first one: methods are compared by as many runs each.
    others = {run.name for run in runs[1:]}
    return [_kept(row, job) for row in rows if row["run"] not in others]


def _kept(row: dict[str, Any], job: Job) -> dict[str, Any]:
    """Returns what the report needs of a row; workdirs are named by their job."""
    kept = {key: row[key] for key in _KEPT if key in row}
    names = [part.rpartition("#")[2] for part in row["run"].split(", ")]
    members = f" #{','.join(names)}" if "#" in row["run"] else ""
    return {**kept, "run": f"{job.name}{members}"}


def finished(rows: RowFile) -> Iterator[dict[str, Any]]:
    """Yields the rows of all runs that are evaluated.

    A deep ensemble with N = 1 is its first member: the row of the member alone, which
    has the same scores, is left out.

    Args:
      rows: The file of runs.
    """
    for run in rows.rows:
        for row in run["rows"]:
            _, is_of_members, members = row["run"].partition(" #")
            if not is_of_members or "," in members:
                yield row


def main(arguments: Sequence[str] = ()) -> None:
    """Makes the runs that are missing, and the report of all."""
    signal.signal(signal.SIGTERM, commands.end_with_children)
    output, scale = pathlib.Path(_OUTPUT.value), SCALES[_SCALE.value]
    folder = pathlib.Path(_WORKDIRS.value or output / "workdirs").absolute()
    rows = RowFile(output / "runs.json")
    for method in _METHODS.value:
        lookup(METHODS, method, "method")
    chosen = jobs(seeds=_SEEDS.value, methods=_METHODS.value)
    missing = [job for job in chosen if not rows.has(job.name)]
    if not _REPORT_ONLY.value:
        for job in progress.track(missing, total=len(missing), name="Runs"):
            _make(job, scale, rows, workdir=folder / job.name, arguments=arguments)
    if not rows.rows:
        print("no run is evaluated yet")
        return
    found = list(finished(rows))
    page = report.write(
        output,
        found,
        provenance={**provenance(), "scale": _SCALE.value, "runs": len(rows.rows)},
        title=f"Rivals of spatial smoothing, {_SCALE.value} scale",
    )
    # The rows tell where they were computed; this process may only draw them.
    counts = collections.Counter(run["provenance"] for run in rows.rows)
    origins = [(rows.provenances[number], counts[number]) for number in sorted(counts)]
    readme = rival_readme.text(found, origins, scale=_SCALE.value)
    (output / "README.md").write_text(readme)
    print(f"report: {page}")


def _make(
    job: Job,
    scale: Scale,
    rows: RowFile,
    *,
    workdir: pathlib.Path,
    arguments: Sequence[str],
) -> None:
    """Trains and evaluates a run, as far as that is not done.

    Raises:
      ValueError: if the training fails.
    """
    done = workdir / "finished"
    if not done.exists():
        code = commands.execute(
            [*train_command(job, scale, workdir=workdir), *arguments]
        )
        if code:
            raise ValueError(f"the training of {job.name} ended with code {code}")
        done.touch()
    if not _TRAIN_ONLY.value:
        rows.add({"name": job.name, "rows": evaluate(job, scale, workdir=workdir)})


COMMAND = start.Command(
    main, FLAGS, about=__doc__, required=("output",), positional=True
)

if __name__ == "__main__":
    start.run(COMMAND)
