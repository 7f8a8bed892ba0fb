"""Runs of a benchmark: trained, evaluated one by one, and kept as small files.

The scores of a run that is finished are copied to the results, so that its workdir is
not needed again, and the same command continues where it was interrupted.
"""

import dataclasses
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence

from benchmarks import commands as processes

TEXTS = ("metrics.json", "metrics.csv")
# Seconds that a training has to begin with, and that are left for what follows it: the
# evaluation, and the figures.
_LEAST_TRAINING, _AFTERWARDS = 30.0, 60.0
Execute = Callable[..., int | None]  # see `commands.execute`


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A call of `evaluate.py` that every run gets.

    Attributes:
      suites: Names of the suites whose rows it makes.
      arguments: Its arguments, without the workdir.
    """

    suites: tuple[str, ...]
    arguments: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Run:
    """A network, a seed, and where its files are.

    Attributes:
      model: Name of the network.
      seed: Seed of the training.
      workdir: Folder of the training, with checkpoints.
      kept: Folder among the results, with its scores, once it is evaluated.
      evaluations: What it is evaluated by.
    """

    model: str
    seed: int
    workdir: pathlib.Path
    kept: pathlib.Path
    evaluations: tuple[Evaluation, ...]

    def missing(self) -> list[Evaluation]:
        """Returns the evaluations whose rows the workdir does not have."""
        return _missing(self.evaluations, self.workdir / "evaluation")

    @property
    def is_kept(self) -> bool:
        """Whether all its scores are among the results."""
        return not _missing(self.evaluations, self.kept)

    @property
    def scores(self) -> pathlib.Path:
        """The folder that a comparison reads."""
        return self.kept if self.missing() else self.workdir


def _missing(
    evaluations: Sequence[Evaluation], folder: pathlib.Path
) -> list[Evaluation]:
    """Returns the evaluations whose rows a folder does not have."""
    path = folder / "metrics.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    found = {row["suite"] for row in rows}
    return [each for each in evaluations if not found.issuperset(each.suites)]


def plan(
    groups: Sequence[Sequence[str]],
    seeds: Sequence[int],
    *,
    runs: pathlib.Path,
    results: pathlib.Path,
    evaluations: Callable[[str], Sequence[Evaluation]],
    dtype: str | None = None,
) -> list[Run]:
    """Returns the runs, group by group, and those of one seed together.

    Args:
      groups: Names of the networks to train. All seeds of a group come before the next
        group.
      seeds: Seeds that each network is trained with.
      runs: Directory of the workdirs, `MODEL-seedS`, and of `report/`.
      results: Directory of the results.
      evaluations: Returns what runs of a network are evaluated by, given its name.
      dtype: Type in which the networks compute, which is part of the names; None for
        that of the config, float32.
    """
    suffix = "" if dtype is None else f"-{dtype}"
    names = [
        (model, seed, f"{model}{suffix}-seed{seed}")
        for group in groups
        for seed in seeds
        for model in group
    ]
    return [
        Run(
            model,
            seed,
            runs / name,
            results / "runs" / name,
            tuple(evaluations(model)),
        )
        for model, seed, name in names
    ]


class Clock:
    """How much of a budget of time is left.

    Args:
      minutes: The budget; None for no limit.
    """

    def __init__(self, minutes: float | None):
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def left(self, *, but: float = 0.0) -> float | None:
        """Returns the seconds that are left, at least 0; None for no limit.

        Args:
          but: Seconds that something else needs.
        """
        return None if self._end is None else max(self._end - time.monotonic() - but, 0)

    def has(self, seconds: float) -> bool:
        """Returns whether there is as much time as this."""
        return self._end is None or self.left() >= seconds


def make_runs(
    runs: Sequence[Run],
    *,
    train: Callable[[Run], list[str]],
    names: Mapping[str, str],
    clock: Clock,
    texts: Sequence[str] = TEXTS,
    execute: Execute = processes.execute,
) -> int:
    """Trains and evaluates the runs whose scores are not kept yet.

    Args:
      runs: The runs, in their order.
      train: Returns the command that trains a run.
      names: Path on this machine -> what stands in its place in what is kept.
      clock: How much time there is.
      texts: Names of the files of text that are kept of each run.
      execute: Runs a command; see `commands.execute`.

    Returns:
      The exit code of what failed; 0 where nothing has, or where the time is over.
    """
    for number, run in enumerate(runs, 1):
        about = f"[run {number} of {len(runs)}] {run.workdir.name}"
        if run.is_kept:
            print(f"{about}: done before, in {run.kept}", flush=True)
            continue
        if not clock.has(_LEAST_TRAINING + _AFTERWARDS):
            print(f"{about}: no time is left for it; the same command continues")
            return 0
        steps = [(train(run), clock.left(but=_AFTERWARDS))]
        # Evaluations are not interrupted: most take less than a minute on a GPU.
        steps += [
            (["evaluate.py", f"--workdir={run.workdir}", *each.arguments], None)
            for each in run.missing()
        ]
        for command, seconds in steps:
            limit = "" if seconds is None else f", {seconds:.0f} s at most"
            print(f"{about}{limit}: {' '.join(command)}", flush=True)
            code = execute(command, seconds=seconds)
            if code is None:
                print(f"{about}: the time is over; the same command continues")
                return 0
            if code:
                return code
        evaluation = run.workdir / "evaluation"
        keep(evaluation, run.kept, names=names, texts=texts)
    return 0


def comparison(
    scores: Sequence[pathlib.Path], report: pathlib.Path, *, published: bool
) -> list[str]:
    """Returns the command that draws runs side by side.

    Args:
      scores: Folders of evaluated runs.
      report: Folder of the report.
      published: Whether the paper's values are drawn too.
    """
    compared = f"--compare={','.join(map(str, scores))}"
    return [
        *("evaluate.py", compared, f"--output={report}"),
        *(["--published"] if published else []),
    ]


def keep(
    report: pathlib.Path,
    results: pathlib.Path,
    *,
    names: Mapping[str, str],
    texts: Sequence[str] = TEXTS,
    figures: Sequence[str] = (),
) -> None:
    """Copies the small files of a report, without the paths of this machine.

    Args:
      report: Folder of the report.
      results: Folder to copy to.
      names: Path on this machine -> what stands in its place.
      texts: Names of the files of text.
      figures: Names of the figures; one that the report does not have is left out.
    """
    results.mkdir(parents=True, exist_ok=True)
    for name in texts:
        text = _without_single_corruptions((report / name).read_text(), name)
        for path, given in names.items():
            text = text.replace(path, given)
        (results / name).write_text(text)
    for name in figures:
        if (report / name).exists():
            shutil.copy(report / name, results)


def _without_single_corruptions(text: str, name: str) -> str:
    """Returns a file without the rows of single corruptions: their means are kept.

    Args:
      text: Content of the file.
      name: Its name.
    """
    if not name.endswith(".json"):
        return text
    content = json.loads(text)
    # Each run has hundreds of them, which are most of its bytes.
    rows = [row for row in content["rows"] if row.get("corruption") is None]
    if len(rows) == len(content["rows"]):
        return text
    return json.dumps({**content, "rows": rows}, indent=1) + "\n"
