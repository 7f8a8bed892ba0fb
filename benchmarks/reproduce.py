"""Makes the paper's Figures 2 and 3: ResNet-18 on CIFAR-100, with smoothing or not.

    python -m benchmarks.reproduce --scale=full --seeds=1,2,3 --data_dir=DIR

This trains deterministic and MC-dropout networks, with and without smoothing, by the
recipe of `configs/cifar100.py`, evaluates ensembles of up to 50 samples and draws them
together with the paper's values. `--scale=small` is the same protocol with a narrow,
shallow network and 6 epochs, which takes an evening on two CPU cores; it does not draw
the paper's values. The same command continues where it was interrupted. Ablations are
another command:
`python -m benchmarks.ablations`.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

_ROOT = pathlib.Path(__file__).parents[1]
MODELS = (
    "resnet_mcdo_18",
    "resnet_mcdo_smoothing_18",
    "resnet_dnn_18",
    "resnet_dnn_smoothing_18",
)
# Scale -> name of its results, and the fields of the config that it changes.
SCALES: dict[str, tuple[str, dict[str, str]]] = {
    "full": ("cifar100_resnet18", {}),
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
}
_TEXTS = ("metrics.json", "metrics.csv")
_FIGURES = ("ensemble_size.png", "accuracy_nll.png", "reliability.png")


def commands(
    scale: str,
    *,
    models: Sequence[str] = MODELS,
    seeds: Sequence[int],
    runs: pathlib.Path,
    data_dir: str | None,
    num_samples: int,
) -> Iterator[list[str]]:
    """Yields the commands of the scripts, in their order.

    Args:
      scale: Scale, a key of `SCALES`.
      models: Names of the networks to train.
      seeds: Seeds that each network is trained with.
      runs: Directory of the workdirs, `MODEL-seedS`, and of `report/`.
      data_dir: Directory of TFDS; None for its default.
      num_samples: Number of Monte Carlo dropout samples.
    """
    _, fields = SCALES[scale]
    workdirs = {(m, s): runs / f"{m}-seed{s}" for s in seeds for m in models}
    for (model, seed), workdir in workdirs.items():
        given = {"model": model, "seed": seed, **fields}
        if data_dir is not None:
            given["data_dir"] = data_dir
        config = [f"--config.{name}={value}" for name, value in given.items()]
        script = ["train.py", "--config=configs/cifar100.py"]
        yield [*script, f"--workdir={workdir}", *config]
        if not (workdir / "evaluation" / "metrics.json").exists():
            where = [] if data_dir is None else [f"--data_dir={data_dir}"]
            yield [
                *("evaluate.py", f"--workdir={workdir}", *where),
                f"--num_samples={num_samples}",
            ]
    yield [
        "evaluate.py",
        f"--compare={','.join(map(str, workdirs.values()))}",
        f"--output={runs / 'report'}",
        *(["--published"] if scale == "full" else []),
    ]


def keep(
    report: pathlib.Path, results: pathlib.Path, *, names: Mapping[str, str]
) -> None:
    """Copies the small files of a report, without the paths of this machine."""
    results.mkdir(parents=True, exist_ok=True)
    for name in _TEXTS:
        text = (report / name).read_text()
        for path, given in names.items():
            text = text.replace(path, given)
        (results / name).write_text(text)
    for name in _FIGURES:
        shutil.copy(report / name, results)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, evaluates and compares; returns the exit code of what failed, or 0."""
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
        "--runs",
        type=pathlib.Path,
        help="directory of the workdirs; default: runs/NAME",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="directory of the report; default: results/NAME",
    )
    given = parser.parse_args(argv)
    name, _ = SCALES[given.scale]
    runs = (given.runs or pathlib.Path("runs", name)).absolute()
    plan = commands(
        given.scale,
        models=given.models.split(","),
        seeds=[int(seed) for seed in given.seeds.split(",")],
        runs=runs,
        data_dir=given.data_dir,
        num_samples=given.num_samples,
    )
    for command in plan:
        print(" ".join(command), flush=True)
        code = subprocess.run([sys.executable, *command], cwd=_ROOT).returncode
        if code:
            return code
    results = (given.output or _ROOT / "results" / name).absolute()
    names = {str(runs): "runs"}
    if given.data_dir is not None:
        names[given.data_dir] = "data_dir"
    keep(runs / "report", results, names=names)
    print(f"results: {results}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
