"""Evaluates runs: `python evaluate.py --workdir=DIR [--num_samples=50]`.

Several workdirs, separated by commas, are the members of a deep ensemble. With
`--compare=A,B`, draws the evaluations of several workdirs side by side. What was
evaluated earlier by other suites stays in the report.
"""

import time

from absl import flags
from etils import epath

from spatial_smoothing import cli, options, processes, recipes, report, suites, workdirs
from spatial_smoothing.lookup import lookup
from spatial_smoothing.provenance import provenance

_WORKDIR = flags.DEFINE_list("workdir", [], "Run, or members of a deep ensemble.")
_COMPARE = flags.DEFINE_list("compare", [], "Evaluated workdirs to put side by side.")
_OUTPUT = flags.DEFINE_string("output", None, "Default: the workdir's evaluation/.")
_SUITE = flags.DEFINE_list("suite", ["ensemble"], f"Of {', '.join(suites.SUITES)}.")
_SPLIT = flags.DEFINE_string("split", "test", "Split of the data set.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Of TFDS; default: as trained.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 50, "Monte Carlo dropout samples.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Examples at once.")
_CHUNK = flags.DEFINE_integer("chunk", None, "Samples at once; default: by device.")
_OOD = flags.DEFINE_string("ood", None, "Another data set, to be told from this one.")
_NUM_REPLICATES = flags.DEFINE_integer(
    "num_replicates", 1000, "Of the bootstrap; 0 for no intervals."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of masks and bootstrap.")
_PUBLISHED = flags.DEFINE_bool("published", False, "Draw Park & Kim's values beside.")
for _name in options.define(suites.SUITES):
    flags.declare_key_flag(_name)


def evaluate() -> None:
    """Evaluates the run or ensemble in `--workdir` by every suite asked for."""
    chosen = {
        name: lookup(suites.SUITES, name, "suite")
        for name in dict.fromkeys(_SUITE.value)
    }
    given = options.given(suites.SUITES, chosen)
    runs = [run for path in _WORKDIR.value for run in workdirs.load_members(path)]
    config = runs[0].config
    output = epath.Path(_OUTPUT.value or runs[0].path / "evaluation")
    report.check(output)
    load = recipes.loader(config, data_dir=_DATA_DIR.value)
    numbers = {
        "num_samples": _NUM_SAMPLES.value,
        "batch_size": _BATCH_SIZE.value,
        "chunk": _CHUNK.value,
        "num_replicates": _NUM_REPLICATES.value,
        "seed": _SEED.value,
    }
    if _OOD.value == config["dataset"]:
        raise ValueError(f"--ood={_OOD.value} is what is tested on; choose another")
    with processes.together():
        setting = suites.Setting(
            load(config["dataset"], _SPLIT.value),
            held_out=suites.held_out(runs, load),
            ood=(_OOD.value, load(_OOD.value, "test")) if _OOD.value else None,
            load=load,
            output=output,
            **numbers,
        )
    processes.check_same({_SPLIT.value: setting.dataset.checksum})
    where = {
        **provenance(),
        "runs": [{"workdir": run.name, "step": run.step} for run in runs],
        "split": _SPLIT.value,
        "config": config,
    }
    rows, where["evaluations"] = suites.earlier(output, where, without=chosen)
    for name, suite in chosen.items():
        begin = time.monotonic()
        found = suite.function(runs, setting, **given[name])
        rows += [{"suite": name, "split": _SPLIT.value, **row} for row in found]
        where["evaluations"][name] = {
            **numbers,
            "ood": _OOD.value,
            **given[name],
            "seconds": round(time.monotonic() - begin, 1),
        }
        if processes.is_first():
            write(rows, where, output)
    if processes.is_first():
        for name in chosen:  # not before: what is killed now begins with the first
            suites.finish(output, name)
        show(rows, output / "report.html")


def compare() -> None:
    """Puts the evaluations of the workdirs in `--compare` side by side."""
    if _OUTPUT.value is None:
        raise ValueError("--compare needs --output=DIR for the report")
    found = {workdir: suites.read(workdir) for workdir in _COMPARE.value}
    rows = suites.distinct_labels(
        {workdir: rows for workdir, (rows, _) in found.items()},
        {workdir: where["config"] for workdir, (_, where) in found.items()},
    )
    page = write(
        rows,
        {workdir: where for workdir, (_, where) in found.items()},
        _OUTPUT.value,
        differences=suites.differences(
            rows, num_replicates=_NUM_REPLICATES.value, seed=_SEED.value
        ),
    )
    show(rows, page)


def write(rows: list, where: dict, output: epath.PathLike, **extra) -> epath.Path:
    """Writes the report; returns the path of its page."""
    datasets = ", ".join(sorted({f"{row['dataset']} {row['split']}" for row in rows}))
    return report.write(
        output,
        suites.save_examples(output, rows),
        provenance=where,
        title=f"Evaluation on {datasets}",
        beside=report.published(rows) if _PUBLISHED.value else (),
        **extra,
    )


def show(rows: list, page: epath.Path) -> None:
    """Prints the tables, and where the report is."""
    report.print_rows([{**row, "examples": None} for row in rows])
    print(f"report: {page}")


def main() -> None:
    """Evaluates or compares."""
    if bool(_WORKDIR.value) == bool(_COMPARE.value):
        raise ValueError("give either --workdir=DIR[,DIR] or --compare=DIR,DIR")
    if _WORKDIR.value:
        evaluate()
    elif processes.is_first():
        compare()


if __name__ == "__main__":
    cli.run(main, several=True)
