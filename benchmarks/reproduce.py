"""Makes the paper's Figures 2 and 3: ResNet-18 on CIFAR-100, with smoothing or not.

    python -m benchmarks.reproduce --scale=full --seeds=1,2,3 --data_dir=DIR

This trains deterministic and MC-dropout networks, with and without smoothing, by the
recipe of `configs/cifar100.py`, evaluates ensembles of up to 50 samples and draws them
together with the paper's values. Two scales are for CPUs, and do not draw the paper's
values: `--scale=medium` trains a narrow ResNet-18 on 10,000 images of CIFAR-100 until
it fits them, which takes 12 to 15 minutes a run on one core, and its evaluation 5 more;
`--scale=small` trains a narrow, shallow network for 6 epochs. The same command
continues where it was interrupted, and `--minutes=M` interrupts it: a training that is
not finished continues from its checkpoint, and the scores of a run that is finished are
kept as a small file beside the figures, so that its workdir is not needed again.
Ablations are another command: `python -m benchmarks.ablations`.
"""

import argparse
import dataclasses
import pathlib
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from benchmarks import commands as processes
from benchmarks.commands import ROOT

# Pairs of networks without and with smoothing. All seeds of the first pair come first:
# a difference with bands is worth more than two differences without.
PAIRS = (
    ("resnet_mcdo_18", "resnet_mcdo_smoothing_18"),
    ("resnet_dnn_18", "resnet_dnn_smoothing_18"),
)
MODELS = tuple(model for pair in PAIRS for model in pair)
# Scale -> name of its results, and the fields of the config that it changes.
SCALES: dict[str, tuple[str, dict[str, str]]] = {
    # None of these fields changes what is trained: evaluations and checkpoints after
    # each epoch would take a GPU as long as the training.
    "full": ("cifar100_resnet18", {"eval_every": "20", "checkpoint_every": "20"}),
    # Chosen on networks without smoothing, and on training images that were held out;
    # results/cifar100_medium/README.md says how.
    "medium": (
        "cifar100_medium",
        {
            "dataset": "tfds:cifar100#coarse_label",
            "train_split": "train[:20%]",
            "width": "16",
            "augment": "False",
            "epochs": "30",
            "milestones": "(10,20,25)",
            "eval_every": "31",
            "checkpoint_every": "10",
        },
    ),
    "small": (
        "cifar100_small",
        {
            "width": "16",
            "stages": "(1,1,1,1)",
            "val_fraction": "0.1",
            "epochs": "5",
            "milestones": "(2,3,4)",
            "eval_every": "6",
            "checkpoint_every": "1",
        },
    ),
    # For the test of what a GPU is to run.
    "tiny": (
        "cifar100_tiny",
        {
            "width": "4",
            "stages": "(1,)",
            "epochs": "1",
            "milestones": "(1,)",
            "eval_every": "2",
        },
    ),
}
_TEXTS = ("metrics.json", "metrics.csv")
_FIGURES = ("ensemble_size.png", "accuracy_nll.png", "reliability.png")
# Seconds that a training has to begin with, and that are left for what follows it: the
# evaluation, and the figures.
_LEAST_TRAINING, _AFTERWARDS = 30.0, 60.0
Execute = Callable[..., int | None]  # see `commands.execute`


@dataclasses.dataclass(frozen=True)
class Run:
    """A network, a seed, and where its files are.

    Attributes:
      model: Name of the network.
      seed: Seed of the training.
      workdir: Folder of the training, with checkpoints.
      kept: Folder among the results, with its scores, once it is evaluated.
    """

    model: str
    seed: int
    workdir: pathlib.Path
    kept: pathlib.Path

    @property
    def is_evaluated(self) -> bool:
        """Whether the workdir is evaluated."""
        return (self.workdir / "evaluation" / "metrics.json").exists()

    @property
    def is_kept(self) -> bool:
        """Whether its scores are among the results."""
        return (self.kept / "metrics.json").exists()

    @property
    def scores(self) -> pathlib.Path:
        """The folder that a comparison reads."""
        return self.workdir if self.is_evaluated else self.kept


def plan(
    models: Sequence[str],
    seeds: Sequence[int],
    *,
    runs: pathlib.Path,
    results: pathlib.Path,
    dtype: str | None = None,
) -> list[Run]:
    """Returns the runs, those of the first pair of `PAIRS` first, seed by seed.

    Args:
      models: Names of the networks to train.
      seeds: Seeds that each network is trained with.
      runs: Directory of the workdirs, `MODEL-seedS`, and of `report/`.
      results: Directory of the results.
      dtype: Type in which the networks compute, which is part of the names; None for
        that of the config, float32.
    """
    suffix = "" if dtype is None else f"-{dtype}"
    pairs = [[m for m in models if m in pair] for pair in PAIRS]
    others = [m for m in models if m not in MODELS]
    names = [
        (m, s, f"{m}{suffix}-seed{s}")
        for group in (*pairs, others)
        for s in seeds
        for m in group
    ]
    return [Run(m, s, runs / name, results / "runs" / name) for m, s, name in names]


def training(
    run: Run, scale: str, *, data_dir: str | None, dtype: str | None = None
) -> list[str]:
    """Returns the command that trains a network, or continues to.

    Args:
      run: The run.
      scale: Scale, a key of `SCALES`.
      data_dir: Directory of TFDS; None for its default.
      dtype: Type in which the network computes; None for float32.
    """
    given = {"model": run.model, "seed": run.seed, **SCALES[scale][1]}
    given |= {} if data_dir is None else {"data_dir": data_dir}
    given |= {} if dtype is None else {"dtype": dtype}
    config = [f"--config.{name}={value}" for name, value in given.items()]
    script = ["train.py", "--config=configs/cifar100.py"]
    return [*script, f"--workdir={run.workdir}", *config]


def evaluation(run: Run, *, data_dir: str | None, num_samples: int) -> list[str]:
    """Returns the command that evaluates a trained network.

    Args:
      run: The run.
      data_dir: Directory of TFDS; None for that of the training.
      num_samples: Number of Monte Carlo dropout samples.
    """
    where = [] if data_dir is None else [f"--data_dir={data_dir}"]
    samples = f"--num_samples={num_samples}"
    return ["evaluate.py", f"--workdir={run.workdir}", *where, samples]


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
    texts: Sequence[str] = _TEXTS,
    figures: Sequence[str] = _FIGURES,
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
        text = (report / name).read_text()
        for path, given in names.items():
            text = text.replace(path, given)
        (results / name).write_text(text)
    for name in figures:
        if (report / name).exists():
            shutil.copy(report / name, results)


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
    evaluate: Callable[[Run], list[str]],
    names: Mapping[str, str],
    clock: Clock,
    texts: Sequence[str] = _TEXTS,
    execute: Execute = processes.execute,
) -> int:
    """Trains and evaluates the runs whose scores are not kept yet.

    Args:
      runs: The runs, in their order.
      train: Returns the command that trains a run.
      evaluate: Returns the command that evaluates it.
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
        # An evaluation of less than a minute is not worth interrupting.
        steps += [] if run.is_evaluated else [(evaluate(run), None)]
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
        keep(evaluation, run.kept, names=names, texts=texts, figures=())
    return 0


def main(argv: Sequence[str] | None = None, *, execute: Execute | None = None) -> int:
    """Trains, evaluates and compares; returns the exit code of what failed, or 0."""
    given = _parser().parse_args(argv)
    execute = execute or processes.execute
    name, _ = SCALES[given.scale]
    folder = (given.runs or pathlib.Path("runs", name)).absolute()
    results = (given.output or ROOT / "results" / name).absolute()
    names = {str(results / "runs"): "runs", str(folder): "runs"}
    if given.data_dir is not None:
        names[given.data_dir] = "data_dir"
    runs = plan(
        given.models.split(","),
        [int(seed) for seed in given.seeds.split(",")],
        runs=folder,
        results=results,
        dtype=given.dtype,
    )
    code = make_runs(
        runs,
        train=lambda run: training(
            run, given.scale, data_dir=given.data_dir, dtype=given.dtype
        ),
        evaluate=lambda run: evaluation(
            run, data_dir=given.data_dir, num_samples=given.num_samples
        ),
        names=names,
        clock=Clock(given.minutes),
        execute=execute,
    )
    scores = [run.scores for run in runs if run.is_kept]
    if code or not scores:
        return code
    command = comparison(scores, folder / "report", published=given.scale == "full")
    print(" ".join(command), flush=True)
    if code := execute(command, seconds=None):
        return code
    keep(folder / "report", results, names=names)
    print(f"results of {len(scores)} of {len(runs)} runs: {results}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=SCALES, default="small")
    parser.add_argument("--seeds", default="1", help="seeds, such as 1,2,3")
    parser.add_argument(
        "--models",
        default=",".join(MODELS),
        help="networks to train, separated by commas",
    )
    parser.add_argument("--data_dir", help="directory of TFDS")
    parser.add_argument("--num_samples", type=int, default=50)
    parser.add_argument(
        "--dtype", help="type in which networks compute; default: float32"
    )
    parser.add_argument(
        "--minutes", type=float, help="time after which training is interrupted"
    )
    parser.add_argument(
        "--runs",
        type=pathlib.Path,
        help="directory of the workdirs; default: runs/NAME",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="directory of the report; default: results/NAME",
    )
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, processes.end_with_children)
    sys.exit(main())
