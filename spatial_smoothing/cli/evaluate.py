"""Evaluates runs: `python evaluate.py --workdir=DIR [--num_samples=50]`.

Several workdirs, separated by commas, are the members of a deep ensemble. With
`--compare=A,B`, draws the evaluations of several workdirs side by side. What was
evaluated earlier by other suites stays in the report.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from absl import flags
from etils import epath

from spatial_smoothing import report
from spatial_smoothing.cli import options, start
from spatial_smoothing.evaluation import suites
from spatial_smoothing.lookup import lookup
from spatial_smoothing.runs import locks, recipes, workdirs
from spatial_smoothing.runs.provenance import provenance
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import paths, processes

FLAGS = start.new_flags()
_WORKDIR = flags.DEFINE_list(
    "workdir", [], "Run, or members of a deep ensemble.", flag_values=FLAGS
)
_COMPARE = flags.DEFINE_list(
    "compare", [], "Evaluated workdirs to put side by side.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Default: the workdir's evaluation/; of several the first one's evaluation-of-N/.",
    flag_values=FLAGS,
)
_SUITE = flags.DEFINE_list(
    "suite", ["ensemble"], f"Of {', '.join(suites.SUITES)}.", flag_values=FLAGS
)
_SPLIT = flags.DEFINE_string(
    "split", "test", "Split of the data set.", flag_values=FLAGS
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Of TFDS; default: as trained.", flag_values=FLAGS
)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 50, "Monte Carlo dropout samples.", flag_values=FLAGS
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 128, "Examples at once.", flag_values=FLAGS
)
_CHUNK = flags.DEFINE_integer(
    "chunk", None, "Samples at once; default: by device.", flag_values=FLAGS
)
_OOD = flags.DEFINE_string(
    "ood", None, "Another data set, to be told from this one.", flag_values=FLAGS
)
_NUM_REPLICATES = flags.DEFINE_integer(
    "num_replicates", 1000, "Of the bootstrap; 0 for no intervals.", flag_values=FLAGS
)
_SEED = flags.DEFINE_integer("seed", 0, "Of masks and bootstrap.", flag_values=FLAGS)
_PUBLISHED = flags.DEFINE_bool(
    "published", False, "Draw Park & Kim's values beside.", flag_values=FLAGS
)
_OPTIONS = options.define(suites.SUITES, FLAGS)
# What a comparison has no use for, with what suites are asked.
_OF_EVALUATION = (
    *("suite", "split", "data_dir", "num_samples", "batch_size", "chunk", "ood"),
    *_OPTIONS,
)


def evaluate() -> None:
    """Evaluates the run or ensemble in `--workdir` by every suite asked for."""
    chosen = chosen_suites()
    given = options.given(suites.SUITES, chosen, FLAGS)
    check_once("workdir", _WORKDIR.value)
    runs = [run for path in _WORKDIR.value for run in workdirs.load_members(path)]
    check_ood(runs[0].config)
    beside = published([runs[0].config])
    output = paths.absolute(_OUTPUT.value or suites.default_output(_WORKDIR.value))
    where = about(runs)
    with processes.together():
        report.check(output)
        setting = load_setting(runs, output, chosen)
    processes.check_same({_SPLIT.value: setting.dataset.checksum})
    # Another evaluation into the same report would lose the rows of one of the two.
    with locks.locked(output, make=True):
        with processes.together():
            rows, evaluations = suites.earlier(output, where, without=chosen)
        where["evaluations"] = evaluations
        for name, suite in chosen.items():
            begin = time.monotonic()
            found = suite.function(runs, setting, **given[name])
            rows += [{"suite": name, "split": _SPLIT.value, **row} for row in found]
            evaluations[name] = {
                **provenance(),
                **numbers(),
                "ood": _OOD.value,
                **given[name],
                "seconds": round(time.monotonic() - begin, 1),
            }
            if processes.is_first():
                write(rows, where, output, beside=beside)
        if processes.is_first():
            # Rows that a suite keeps on the way are deleted last: an evaluation that is
            # killed before continues with them.
            for name in chosen:
                suites.finish(output, name)
            show(rows, output / "report.html")


def numbers() -> dict[str, int | None]:
    """Returns the numbers that all suites share, as the flags give them."""
    return {
        "num_samples": _NUM_SAMPLES.value,
        "batch_size": _BATCH_SIZE.value,
        "chunk": _CHUNK.value,
        "num_replicates": _NUM_REPLICATES.value,
        "seed": _SEED.value,
    }


def about(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns what a report says of the runs: workdirs, steps, split and config."""
    return {
        "runs": [
            {"workdir": run.name, "step": run.step, "fingerprint": run.fingerprint}
            for run in runs
        ],
        "split": _SPLIT.value,
        "config": runs[0].config,
    }


def load_setting(
    runs: Sequence[Run], output: epath.Path, chosen: Collection[str]
) -> suites.Setting:
    """Loads the data sets of an evaluation.

    Args:
      runs: The run, or the members of the ensemble.
      output: Directory of the report.
      chosen: Names of the suites to be evaluated.
    """
    load = recipes.loader(runs[0].config, data_dir=_DATA_DIR.value)
    return suites.Setting(
        load(runs[0].config["dataset"], _SPLIT.value),
        split=_SPLIT.value,
        held_out=suites.held_out(runs, load) if "ensemble" in chosen else None,
        ood=(_OOD.value, load(_OOD.value, "test")) if _OOD.value else None,
        load=load,
        output=output,
        **numbers(),
    )


def chosen_suites() -> dict[str, suites.Suite]:
    """Returns the suites in `--suite`; ValueError if they have no use for a flag."""
    suites.check_list("--suite", _SUITE.value)
    chosen = {name: lookup(suites.SUITES, name, "suite") for name in _SUITE.value}
    if _OOD.value and "ensemble" not in chosen:
        raise ValueError("--ood is for --suite=ensemble, which is not evaluated")
    return chosen


def check_ood(config: Mapping[str, Any]) -> None:
    """Raises ValueError if `--ood` is the data set that the run classifies."""
    if _OOD.value == config["dataset"]:
        raise ValueError(f"--ood={_OOD.value} is what is tested on; choose another")


def compare() -> None:
    """Puts the evaluations of the workdirs in `--compare` side by side."""
    if _OUTPUT.value is None:
        raise ValueError("--compare needs --output=DIR for the report")
    check_once("compare", _COMPARE.value)
    if useless := [name for name in _OF_EVALUATION if FLAGS[name].present]:
        raise ValueError(
            f"--{useless[0]} is for --workdir; --compare takes evaluations as they are"
        )
    suites.check_comparison(_OUTPUT.value)
    found = {workdir: suites.read(workdir) for workdir in _COMPARE.value}
    configs = {workdir: where["config"] for workdir, (_, where) in found.items()}
    beside = published(configs.values())
    rows = suites.distinct_labels(
        {workdir: rows for workdir, (rows, _) in found.items()}, configs
    )
    page = write(
        rows,
        {workdir: where for workdir, (_, where) in found.items()},
        _OUTPUT.value,
        beside=beside,
        differences=suites.differences(
            rows, num_replicates=_NUM_REPLICATES.value, seed=_SEED.value
        ),
    )
    show(rows, page)


def check_once(name: str, given: Sequence[str]) -> None:
    """Raises ValueError if a list of workdirs has one twice, however it is written."""
    suites.check_list(f"--{name}", [str(paths.absolute(path)) for path in given])


def published(configs: Iterable[Mapping[str, Any]]) -> list:
    """Returns what is published of the runs, if asked for; ValueError if nothing is."""
    return report.published(list(configs)) if _PUBLISHED.value else []


def write(rows: list, where: dict, output: epath.PathLike, **extra) -> epath.Path:
    """Writes the report; returns the path of its page."""
    datasets = ", ".join(sorted({f"{row['dataset']} {row['split']}" for row in rows}))
    rows, files = suites.pack_examples(rows)
    return report.write(
        output,
        rows,
        provenance=where,
        title=f"Evaluation on {datasets}",
        files=files,
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


def run() -> None:
    """Runs the command with the arguments of the process."""
    start.run(main, FLAGS, about=__doc__, several=True)
