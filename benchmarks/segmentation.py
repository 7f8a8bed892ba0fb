"""Makes the table of spatial and temporal smoothing: a small U-Net on `moving_shapes`.

    python -m benchmarks.segmentation --seeds=1,2,3

This trains U-Nets with MC dropout, with and without spatial smoothing, by the recipe of
`configs/moving_shapes.py` with fewer epochs, and evaluates each frame by frame and over
time, without dropout and with up to 20 samples a frame. A run takes about one minute of
a CPU core and its evaluation two. The same command continues where it was interrupted:
the scores of a run that is finished are kept as a small file beside the table, so that
its workdir is not needed again. `--minutes=M` interrupts it.
"""

import argparse
import pathlib
import signal
import sys
from collections.abc import Sequence

from benchmarks import commands as processes
from benchmarks import run_files
from benchmarks.commands import ROOT
from benchmarks.run_files import Evaluation, Execute, Run

NAME = "moving_shapes"
MODELS = ("unet_mcdo", "unet_mcdo_smoothing")
# Scale -> fields of the config that it changes.
SCALES: dict[str, dict[str, str]] = {
    "small": {"epochs": "5", "milestones": "(4,)", "eval_every": "5"},
    # For the test of the command.
    "tiny": {
        "width": "4",
        "stages": "(1,1)",
        "epochs": "1",
        "milestones": "(1,)",
        "eval_every": "2",
    },
}
_TEXTS = ("metrics.json", "segmentation.csv")
_FIGURES = ("segmentation.png", "segmentation_frames.png", "segmentation_strip.png")


def training(run: Run, scale: str) -> list[str]:
    """Returns the command that trains a network, or continues to.

    Args:
      run: The run.
      scale: A key of `SCALES`.
    """
    given = {"model": run.model, "seed": run.seed, **SCALES[scale]}
    config = [f"--config.{name}={value}" for name, value in given.items()]
    script = ["train.py", f"--config={NAME}", f"--workdir={run.workdir}"]
    return [*script, *config, "--config.checkpoint_every=1"]


def evaluation(*, num_samples: int) -> Evaluation:
    """Returns what each run is evaluated by.

    Args:
      num_samples: Largest number of dropout samples of a frame.
    """
    # Speeds are measured on a machine that does nothing else.
    arguments = (f"--num_samples={num_samples}", "--nospeed")
    return Evaluation(("segmentation",), arguments)


def main(argv: Sequence[str] | None = None, *, execute: Execute | None = None) -> int:
    """Trains, evaluates and compares; returns the exit code of what failed, or 0."""
    given = _parser().parse_args(argv)
    execute = execute or processes.execute
    folder = (given.runs or pathlib.Path("runs", NAME)).absolute()
    results = (given.output or ROOT / "results" / NAME).absolute()
    names = {str(results / "runs"): "runs", str(folder): "runs"}
    seeds = [int(seed) for seed in given.seeds.split(",")]
    runs = run_files.plan(
        [MODELS],
        seeds,
        runs=folder,
        results=results,
        evaluations=lambda _: [evaluation(num_samples=given.num_samples)],
    )
    code = run_files.make_runs(
        runs,
        train=lambda run: training(run, given.scale),
        names=names,
        clock=run_files.Clock(given.minutes),
        texts=_TEXTS[:1],
        execute=execute,
    )
    scores = [run.scores for run in runs if run.is_kept]
    if code or not scores:
        return code
    command = run_files.comparison(scores, folder / "report", published=False)
    print(" ".join(command), flush=True)
    if code := execute(command, seconds=None):
        return code
    run_files.keep(
        folder / "report", results, names=names, texts=_TEXTS, figures=_FIGURES
    )
    print(f"results of {len(scores)} of {len(runs)} runs: {results}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=SCALES, default="small")
    parser.add_argument("--seeds", default="1,2,3", help="seeds, such as 1,2,3")
    parser.add_argument("--num_samples", type=int, default=20)
    parser.add_argument(
        "--minutes", type=float, help="time after which training is interrupted"
    )
    parser.add_argument(
        "--runs",
        type=pathlib.Path,
        help=f"directory of the workdirs; default: runs/{NAME}",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help=f"directory of the results; default: results/{NAME}",
    )
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, processes.end_with_children)
    sys.exit(main())
