"""Evaluates runs: `python evaluate.py --workdir=DIR [--num_samples=50]`.

Several workdirs, separated by commas, are the members of a deep ensemble. With
`--compare=A,B --output=DIR`, the evaluations of several workdirs are drawn side by
side. Scores that other suites found earlier stay in the report. With
`--compile_for=v5e:2x2`, the evaluation of a batch is compiled for accelerators that
need not be here, and nothing is evaluated; the workdir needs no checkpoint.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from spatial_smoothing import report
from spatial_smoothing.cli import (
    compile_for,
    devices,
    evaluate_flags,
    folders,
    options,
    other_images,
    start,
)
from spatial_smoothing.cli.compile_batch import compile_batch
from spatial_smoothing.cli.evaluate_flags import FLAGS
from spatial_smoothing.cli.evaluation_setting import load_setting
from spatial_smoothing.cli.suite_choice import (
    check_ood,
    chosen_suites,
    refusing_members,
    refusing_networks,
    show_left_out,
    without,
)
from spatial_smoothing.evaluation import suites
from spatial_smoothing.runs import locks, workdirs
from spatial_smoothing.runs.provenance import provenance
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import paths, processes, progress


def main() -> None:
    """Evaluates, compares, or compiles for accelerators that are not here."""
    has_workdir = bool(evaluate_flags.WORKDIR.value)
    if has_workdir == bool(evaluate_flags.COMPARE.value):
        raise ValueError("give either --workdir=DIR[,DIR] or --compare=DIR,DIR")
    if compile_for.is_asked(FLAGS):
        compile_batch()
    elif has_workdir:
        evaluate()
    elif processes.is_first():
        compare()


def evaluate() -> None:
    """Evaluates the run or ensemble in `--workdir` by every suite asked for."""
    split, dataset = evaluate_flags.SPLIT.value, evaluate_flags.DATASET.value
    real_labels = evaluate_flags.REAL_LABELS.value
    # Mistakes in the flags and in the runs are found before data are read.
    folder_names = folders.split("workdir", evaluate_flags.WORKDIR.value)
    task = workdirs.task(folder_names[0])
    chosen = chosen_suites(task=task)
    options_of(chosen)
    runs = [run for path in folder_names for run in workdirs.load_members(path)]
    refusing = refusing_members(runs, chosen)
    chosen = without(chosen, refusing)
    # Once more: an option of a suite that is left out now would be ignored.
    given = options_of(chosen)
    check_ood(runs[0].config, chosen)
    other_images.check(runs[0].config, chosen, dataset=dataset, real_labels=real_labels)
    trained, labelled = runs, None
    if dataset:
        with processes.together():
            runs, labelled = other_images.load(
                runs, dataset, split, data_dir=evaluate_flags.DATA_DIR.value
            )
    beside = published([runs[0].config])
    output = paths.absolute(
        evaluate_flags.OUTPUT.value
        or suites.default_output(folder_names, dataset=dataset or real_labels)
    )
    where = about(runs)
    with processes.together():
        report.check(
            output,
            formats=evaluate_flags.FORMAT.value,
            figure_width=evaluate_flags.FIGURE_WIDTH.value,
        )
        setting = load_setting(trained, output, chosen, labelled)
        refusing |= refusing_networks(runs, setting, chosen, given)
        chosen = without(chosen, refusing)
        given = options_of(chosen)
    show_left_out(refusing)
    processes.check_same({split: setting.dataset.checksum})
    devices.announce()
    run_suites(runs, setting, chosen, given, where=where, beside=beside)


def options_of(chosen: Mapping[str, suites.Suite]) -> dict[str, dict[str, Any]]:
    """Returns the options that were given: name of a suite -> its options.

    Args:
      chosen: Name -> suite of those to run.
    """
    given = options.given(suites.SUITES, chosen, FLAGS)
    if "variance" in chosen and "temporal" not in given.get("ensemble", {}):
        # The suite "ensemble" refuses it without temporal smoothing, which it is for.
        given.get("ensemble", {}).pop("num_frames", None)
    return given


def run_suites(
    runs: Sequence[Run],
    setting: suites.Setting,
    chosen: Mapping[str, suites.Suite],
    given: Mapping[str, Mapping[str, Any]],
    *,
    where: dict[str, Any],
    beside: list,
) -> None:
    """Runs suites one after another, and writes the report after each of them.

    Args:
      runs: The run, or the members of the ensemble.
      setting: What all suites share; the report is written to `setting.output`.
      chosen: Name -> suite of those to run.
      given: Name of a suite -> its options.
      where: What the report says of the runs; what it says of each evaluation is added.
      beside: What is published of the runs, to be shown beside their scores.
    """
    output, task = setting.output, runs[0].model.task
    # Another evaluation into the same report would lose the rows of one of the two.
    with locks.locked(output, make=True):
        with processes.together():
            rows, evaluations = suites.earlier(output, where, without=chosen)
        where["evaluations"] = evaluations
        for name in suites_in_turn(chosen):
            begin = time.monotonic()
            found = chosen[name].function(runs, setting, **given[name])
            rows += [{"suite": name, "split": setting.split, **row} for row in found]
            validation = {}
            if name == "ood":
                validation["ood_validation"] = evaluate_flags.OOD_VALIDATION.value
            evaluations[name] = {
                **provenance(),
                **evaluate_flags.numbers(task=task),
                "ood": evaluate_flags.OOD.value,
                **validation,
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


def compare() -> None:
    """Puts the evaluations of the workdirs in `--compare` side by side."""
    if evaluate_flags.OUTPUT.value is None:
        raise ValueError("--compare needs --output=DIR for the report")
    compared = folders.split("compare", evaluate_flags.COMPARE.value)
    of_evaluation = evaluate_flags.OF_EVALUATION
    if useless := [name for name in of_evaluation if FLAGS[name].present]:
        raise ValueError(
            f"--{useless[0]} is for --workdir; --compare takes evaluations as they are"
        )
    suites.check_comparison(evaluate_flags.OUTPUT.value)
    found = {workdir: suites.read(workdir) for workdir in compared}
    configs = {workdir: where["config"] for workdir, (_, where) in found.items()}
    beside = published(configs.values())
    rows = suites.distinct_labels(
        {workdir: rows for workdir, (rows, _) in found.items()}, configs
    )
    page = write(
        rows,
        {workdir: where for workdir, (_, where) in found.items()},
        evaluate_flags.OUTPUT.value,
        beside=beside,
        differences=suites.differences(
            rows,
            num_replicates=evaluate_flags.NUM_REPLICATES.value,
            seed=evaluate_flags.SEED.value,
        ),
    )
    show(rows, page)


def suites_in_turn(names: Collection[str]) -> Iterator[str]:
    """Yields the names of suites, under a bar that says which one it is."""
    with progress.task("suites", total=len(names)) as under_way:
        for number, name in enumerate(names, 1):
            under_way.name = f"suite {number} of {len(names)} ({name})"
            yield name
            under_way.update(number)


def about(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns what a report says of the runs: workdirs, steps, split and config."""
    return {
        "runs": [
            {"workdir": run.name, "step": run.step, "fingerprint": run.fingerprint}
            for run in runs
        ],
        "split": evaluate_flags.SPLIT.value,
        "config": runs[0].config,
    }


def published(configs: Iterable[Mapping[str, Any]]) -> list:
    """Returns what is published of the runs, if asked for; ValueError if nothing is."""
    return report.published(list(configs)) if evaluate_flags.PUBLISHED.value else []


def write(rows: list, where: dict, output: epath.PathLike, **extra) -> epath.Path:
    """Writes the report; returns the path of its page."""
    rows, files = suites.pack_examples(rows)
    return report.write(
        output,
        rows,
        provenance=where,
        files=files,
        formats=evaluate_flags.FORMAT.value,
        figure_width=evaluate_flags.FIGURE_WIDTH.value,
        **extra,
    )


def show(rows: list, page: epath.Path) -> None:
    """Prints the tables, and where the report is."""
    report.print_rows([{**row, "examples": None} for row in rows])
    print(f"report: {page}")


def run() -> None:
    """Runs the command with the arguments of the process."""
    start.run(
        start.Command(
            main, FLAGS, about=__doc__, several=True, alone_with=compile_for.FLAG
        )
    )
