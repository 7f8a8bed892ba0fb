"""Makes the paper's Figures 2 and 3: ResNet-18 on CIFAR-100, with smoothing or not.

    python -m benchmarks.reproduce --scale=full --seeds=1,2,3 --data_dir=DIR

This trains deterministic and MC-dropout networks, with and without smoothing, by the
recipe of `configs/cifar100.py`, evaluates ensembles of up to 50 samples and draws them
together with the paper's values. Two scales are for CPUs, and do not draw the paper's
values: `--scale=medium` trains a narrow ResNet-18 for 31 epochs on 10,000 images of
CIFAR-100, which takes less than half an hour a run on one core, evaluates it by the
analyses of the paper, too, and writes what was found beside the paper's statements;
`--scale=small` trains a narrow, shallow network for 6 epochs. The same command
continues where it was interrupted, and `--minutes=M` interrupts it: a training that is
not finished continues from its checkpoint, and the scores of a run that is finished are
kept as a small file beside the figures, so that its workdir is not needed again.
Ablations are another command: `python -m benchmarks.ablations`.
"""

import argparse
import dataclasses
import json
import pathlib
import signal
import sys
from collections.abc import Sequence

from benchmarks import commands as processes
from benchmarks import run_files, statement_page, statements
from benchmarks.commands import ROOT
from benchmarks.run_files import Evaluation, Execute, Run

# Pairs of networks without and with smoothing. All seeds of the first pair come first:
# a difference with bands is worth more than two differences without.
PAIRS = (
    ("resnet_mcdo_18", "resnet_mcdo_smoothing_18"),
    ("resnet_dnn_18", "resnet_dnn_smoothing_18"),
)
MODELS = tuple(model for pair in PAIRS for model in pair)


def _analysis(*suites: str, flags: Sequence[str]) -> Evaluation:
    """Returns the call of `evaluate.py` for some suites."""
    common = ("--num_samples=10", "--num_replicates=0")
    return Evaluation(suites, (f"--suite={','.join(suites)}", *common, *flags))


# The analyses see fewer images than their suites do without these flags, so that one
# CPU core does those of a network with MC dropout in less than half an hour.
_FLATNESS = ("--landscape_images=512", "--density_batches=2")
# Network -> what it is evaluated by after `--suite=ensemble`. The statements of the
# paper that analyses decide are of MC dropout. How flat the other pair is tells whether
# that follows from how well the networks fit.
ANALYSES = {
    **dict.fromkeys(
        PAIRS[0],
        (
            _analysis(
                *("variance", "fourier", "frequency", "landscape", "hessian"),
                flags=(*_FLATNESS, "--frequency_images=1000"),
            ),
            _analysis(
                "corruption", flags=("--sizes=1,2,10", "--corruption_images=500")
            ),
        ),
    ),
    **dict.fromkeys(PAIRS[1], (_analysis("landscape", "hessian", flags=_FLATNESS),)),
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the networks and their trainings are.

    Attributes:
      name: Name of the folder of the results.
      fields: Fields of the config that it changes.
      has_analyses: Whether networks are evaluated by `ANALYSES`, too.
    """

    name: str
    fields: dict[str, str]
    has_analyses: bool = False


SCALES = {
    # None of these fields changes what is trained: evaluations and checkpoints after
    # each epoch would take a GPU as long as the training.
    "full": Scale("cifar100_resnet18", {"eval_every": "20", "checkpoint_every": "20"}),
    # Chosen on networks without smoothing, and on training images that were held out;
    # results/cifar100_medium/README.md says how.
    "medium": Scale(
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
        has_analyses=True,
    ),
    "small": Scale(
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
    "tiny": Scale(
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
_FIGURES = (
    *("ensemble_size.png", "accuracy_nll.png", "reliability.png"),
    *("variance.png", "fourier_depth.png", "frequency.png"),
    *("hessian.png", "corruption_size.png"),
)


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
    given = {"model": run.model, "seed": run.seed, **SCALES[scale].fields}
    given |= {} if data_dir is None else {"data_dir": data_dir}
    given |= {} if dtype is None else {"dtype": dtype}
    config = [f"--config.{name}={value}" for name, value in given.items()]
    script = ["train.py", "--config=configs/cifar100.py"]
    return [*script, f"--workdir={run.workdir}", *config]


def evaluations(
    model: str, scale: str, *, data_dir: str | None, num_samples: int
) -> list[Evaluation]:
    """Returns what runs of a network are evaluated by, the scores of ensembles first.

    Args:
      model: Name of the network.
      scale: Scale, a key of `SCALES`.
      data_dir: Directory of TFDS; None for that of the training.
      num_samples: Largest number of Monte Carlo dropout samples of an ensemble.
    """
    where = () if data_dir is None else (f"--data_dir={data_dir}",)
    ensemble = Evaluation(("ensemble",), (f"--num_samples={num_samples}",))
    others = ANALYSES.get(model, ()) if SCALES[scale].has_analyses else ()
    return [
        dataclasses.replace(each, arguments=(*where, *each.arguments))
        for each in (ensemble, *others)
    ]


def groups(models: Sequence[str]) -> list[list[str]]:
    """Returns networks in the order of `PAIRS`, those of no pair as the last group."""
    pairs = [[model for model in models if model in pair] for pair in PAIRS]
    return [*pairs, [model for model in models if model not in MODELS]]


def main(argv: Sequence[str] | None = None, *, execute: Execute | None = None) -> int:
    """Trains, evaluates and compares; returns the exit code of what failed, or 0."""
    given = _parser().parse_args(argv)
    execute = execute or processes.execute
    name = SCALES[given.scale].name
    folder = (given.runs or pathlib.Path("runs", name)).absolute()
    results = (given.output or ROOT / "results" / name).absolute()
    names = {str(results / "runs"): "runs", str(folder): "runs"}
    if given.data_dir is not None:
        names[given.data_dir] = "data_dir"
    runs = run_files.plan(
        groups(given.models.split(",")),
        [int(seed) for seed in given.seeds.split(",")],
        runs=folder,
        results=results,
        evaluations=lambda model: evaluations(
            model, given.scale, data_dir=given.data_dir, num_samples=given.num_samples
        ),
        dtype=given.dtype,
    )
    code = run_files.make_runs(
        runs,
        train=lambda run: training(
            run, given.scale, data_dir=given.data_dir, dtype=given.dtype
        ),
        names=names,
        clock=run_files.Clock(given.minutes),
        execute=execute,
    )
    scores = [run.scores for run in runs if run.is_kept]
    if code or not scores:
        return code
    # What is kept of runs has no predictions of single images, so that a comparison of
    # it alone would have no paired differences, in place of the one that is there.
    if (results / "metrics.json").exists() and not any(
        r.workdir in scores for r in runs
    ):
        print(f"no run is new, and no workdir is here: {results} stays as it is")
        return 0
    command = run_files.comparison(
        scores, folder / "report", published=given.scale == "full"
    )
    print(" ".join(command), flush=True)
    if code := execute(command, seconds=None):
        return code
    run_files.keep(folder / "report", results, names=names, figures=_FIGURES)
    if SCALES[given.scale].has_analyses:
        content = json.loads((results / "metrics.json").read_text())
        found = statements.Scores(content["rows"], content.get("differences", ()))
        text = statement_page.text(statements.findings(found), found)
        statement_page.write(results / "README.md", text)
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
