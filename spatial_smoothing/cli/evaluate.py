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

import jax
from absl import flags
from etils import epath

from spatial_smoothing import report
from spatial_smoothing.cli import (
    compile_for,
    config_fields,
    devices,
    folders,
    options,
    other_images,
    start,
)
from spatial_smoothing.data import real_labels
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.ensembles.sampling import CHUNK
from spatial_smoothing.evaluation import suites
from spatial_smoothing.lookup import lookup
from spatial_smoothing.runs import locks, recipes, workdirs
from spatial_smoothing.runs.provenance import provenance
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import paths, processes, progress, sharding

# What `--suite` takes in place of a list of all suites.
ALL = "all"
# What is evaluated without `--suite`, by task of the network.
DEFAULT_SUITES = {"classification": "ensemble", "segmentation": "segmentation"}
_IMAGES_AT_ONCE, _VIDEOS_AT_ONCE = 128, 4

FLAGS = start.new_flags()
_WORKDIR = flags.DEFINE_multi_string(
    "workdir",
    [],
    "Folder of the run to evaluate. Several, separated by commas or by repeating the "
    "flag, are the members of a deep ensemble.",
    flag_values=FLAGS,
)
_COMPARE = flags.DEFINE_multi_string(
    "compare",
    [],
    "Evaluated workdirs, or folders of reports, to put side by side; separated by "
    "commas or by repeating the flag.",
    flag_values=FLAGS,
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder of the report. Without it, that is evaluation/ in the workdir, and of N "
    f"workdirs evaluation-of-N/ in the first one. {compile_for.OUTPUT_HELP}",
    flag_values=FLAGS,
)
_SUITE = flags.DEFINE_list(
    "suite",
    None,
    f"What to evaluate: all, or some of {', '.join(suites.SUITES)}. Without it, that "
    "is ensemble, and of networks for segmentation segmentation.",
    flag_values=FLAGS,
)
_SPLIT = flags.DEFINE_string(
    "split",
    "test",
    "Split of the data set that is scored, such as test, train or test[:500].",
    flag_values=FLAGS,
)
_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "Another data set with classes of the run's own, to be scored in place of it: "
    "tfds:NAME, folder:PATH, npz:FILE, hf:NAME or list:FILE. Logits of classes that it "
    "does not have are left out.",
    flag_values=FLAGS,
)
_REAL_LABELS = flags.DEFINE_string(
    "real_labels",
    None,
    "File real.json with reassessed labels (ReaL) of the validation images of "
    "ImageNet; a prediction is right if it is one of an image's labels.",
    flag_values=FLAGS,
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Directory of TFDS. Without it, that is the directory of the training.",
    flag_values=FLAGS,
)
_DOWNLOAD = flags.DEFINE_bool(
    "download",
    False,
    "Whether to download and prepare CIFAR where the directory does not have it.",
    flag_values=FLAGS,
)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples",
    50,
    "Number of Monte Carlo dropout samples of each image. A network without dropout "
    "makes one prediction.",
    lower_bound=1,
    flag_values=FLAGS,
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Number of images in a batch, and for segmentation of videos at once. Without it, "
    f"that is {_IMAGES_AT_ONCE}, and for segmentation {_VIDEOS_AT_ONCE} or the number "
    "of devices.",
    lower_bound=1,
    flag_values=FLAGS,
)
_CHUNK = flags.DEFINE_integer(
    "chunk",
    None,
    "Number of samples that are computed at once. Without it, the device decides.",
    lower_bound=1,
    flag_values=FLAGS,
)
_OOD = flags.DEFINE_string(
    "ood",
    None,
    "Another data set, whose images are to be detected as out-of-distribution. For "
    "--suite=ood several, each near:NAME or far:NAME, separated by commas.",
    flag_values=FLAGS,
)
_OOD_VALIDATION = flags.DEFINE_string(
    "ood_validation",
    None,
    "For ood: data set on which constants of confidences are chosen, none of those in "
    "--ood. Without it, constants are the published ones.",
    flag_values=FLAGS,
)
_NUM_REPLICATES = flags.DEFINE_integer(
    "num_replicates",
    1000,
    "Number of bootstrap replicates for confidence intervals; 0 makes no intervals.",
    lower_bound=0,
    flag_values=FLAGS,
)
_SEED = flags.DEFINE_integer(
    "seed",
    0,
    "Seed of the dropout masks and of the bootstrap.",
    lower_bound=0,
    upper_bound=config_fields.MAX_SEED,
    flag_values=FLAGS,
)
_PUBLISHED = flags.DEFINE_bool(
    "published",
    False,
    "Whether the figures also show the values that Park & Kim have published.",
    flag_values=FLAGS,
)
_FORMAT = flags.DEFINE_list(
    "format",
    ["png"],
    "File formats of the figures, of png, pdf and svg.",
    flag_values=FLAGS,
)
_FIGURE_WIDTH = flags.DEFINE_float(
    "figure_width",
    None,
    "Width of the figures in inches, such as 3.25 for a column of a paper; below 5 "
    "inches panels stand below each other. Without it, figures are as on the page.",
    flag_values=FLAGS,
)
compile_for.define(FLAGS, what="the evaluation of a batch by --suite=ensemble")
_OPTIONS = options.define(suites.SUITES, FLAGS)
# Flags that matter to what `--compile_for` compiles.
_OF_COMPILING = {"num_samples", "batch_size", "chunk"}
# Flags that a comparison has no use for.
_OF_EVALUATION = (
    *("suite", "split", "dataset", "real_labels", "data_dir", "download"),
    *("num_samples", "batch_size", "chunk", "ood", "ood_validation", *_OPTIONS),
)


def evaluate() -> None:
    """Evaluates the run or ensemble in `--workdir` by every suite asked for."""
    folder_names = folders.split("workdir", _WORKDIR.value)
    task = workdirs.task(folder_names[0])
    chosen = chosen_suites(task=task)
    given = options.given(suites.SUITES, chosen, FLAGS)
    runs = [run for path in folder_names for run in workdirs.load_members(path)]
    check_number_of_runs(runs, chosen)
    check_ood(runs[0].config, chosen)
    other_images.check(
        runs[0].config, chosen, dataset=_DATASET.value, real_labels=_REAL_LABELS.value
    )
    trained, labelled = runs, None
    if _DATASET.value:
        with processes.together():
            runs, labelled = other_images.load(
                runs, _DATASET.value, _SPLIT.value, data_dir=_DATA_DIR.value
            )
    beside = published([runs[0].config])
    output = paths.absolute(
        _OUTPUT.value
        or suites.default_output(
            folder_names, dataset=_DATASET.value or _REAL_LABELS.value
        )
    )
    where = about(runs)
    with processes.together():
        report.check(output, formats=_FORMAT.value, figure_width=_FIGURE_WIDTH.value)
        setting = load_setting(trained, output, chosen, labelled)
        for name, suite in chosen.items():
            if suite.check is not None:
                suite.check(runs, setting, **given[name])
    processes.check_same({_SPLIT.value: setting.dataset.checksum})
    devices.announce()
    # Another evaluation into the same report would lose the rows of one of the two.
    with locks.locked(output, make=True):
        with processes.together():
            rows, evaluations = suites.earlier(output, where, without=chosen)
        where["evaluations"] = evaluations
        for name in suites_in_turn(chosen):
            begin = time.monotonic()
            found = chosen[name].function(runs, setting, **given[name])
            rows += [{"suite": name, "split": _SPLIT.value, **row} for row in found]
            evaluations[name] = {
                **provenance(),
                **numbers(task=task),
                "ood": _OOD.value,
                **({"ood_validation": _OOD_VALIDATION.value} if name == "ood" else {}),
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


def compile_batch() -> None:
    """Compiles the evaluation of a batch, and tells what it costs."""
    compile_for.check_useless(FLAGS, {"compare", *_OF_EVALUATION} - _OF_COMPILING)
    folder_names = folders.split("workdir", _WORKDIR.value)
    if (task := workdirs.task(folder_names[0])) != "classification":
        raise ValueError(
            f"--{compile_for.FLAG} compiles --suite=ensemble, which is for "
            f"classification; the network is for {task}"
        )
    target = compile_for.target(FLAGS)
    runs = [run for path in folder_names for run in workdirs.describe_members(path)]
    model, config = runs[0].model, runs[0].config
    stochastic = model.has_dropout
    samples = _NUM_SAMPLES.value if stochastic else 1
    setting = suites.Setting(
        recipes.shapes(config)(config["dataset"], "test"),
        **{**numbers(task=model.task), "chunk": min(_CHUNK.value or CHUNK, samples)},
    )
    mesh = sharding.mesh(devices=target.devices)
    traced = suites.trace_batch(runs, setting, mesh=mesh)
    several = f"{len(runs)} members x " if len(runs) > 1 else ""
    parameters = compile_for.count(runs[0].variables["params"])
    compile_for.report(
        FLAGS,
        compile_for.Work(
            what=f"{config['model']} on {config['dataset']}: {several}{samples} "
            f"samples of {setting.batch_size:,} images",
            traced=traced,
            mesh=mesh,
            config={**config, "num_samples": samples, "chunk": setting.chunk},
            images=setting.batch_size,
            parameters=len(runs) * parameters,
            in_loop=False,
            remedies=["a smaller batch_size"]
            + [f"a smaller chunk than {setting.chunk}"] * (setting.chunk > 1),
        ),
        target,
    )


def suites_in_turn(names: Collection[str]) -> Iterator[str]:
    """Yields the names of suites, under a bar that says which one it is."""
    with progress.task("suites", total=len(names)) as under_way:
        for number, name in enumerate(names, 1):
            under_way.name = f"suite {number} of {len(names)} ({name})"
            yield name
            under_way.update(number)


def numbers(*, task: str) -> dict[str, int | None]:
    """Returns the numbers that all suites share, as the flags give them.

    Args:
      task: Task of the networks, "classification" or "segmentation".
    """
    batch_size = _BATCH_SIZE.value
    if batch_size is None and task == "segmentation":
        count = jax.device_count()
        batch_size = -(-_VIDEOS_AT_ONCE // count) * count
    return {
        "num_samples": _NUM_SAMPLES.value,
        "batch_size": batch_size or _IMAGES_AT_ONCE,
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
    runs: Sequence[Run],
    output: epath.Path,
    chosen: Collection[str],
    labelled: AnyDataset | None,
) -> suites.Setting:
    """Loads the data sets of an evaluation.

    Args:
      runs: The run, or the members of the ensemble.
      output: Directory of the report.
      chosen: Names of the suites to be evaluated.
      labelled: Images to score in place of the data set of the runs; None for these.
    """
    load = recipes.loader(
        runs[0].config, data_dir=_DATA_DIR.value, download=_DOWNLOAD.value
    )
    uses_held_out = not {"ensemble", "ood"}.isdisjoint(chosen)
    # Temperatures and prediction sets are fitted with one label each, on all of the
    # run's classes.
    has_own_labels = labelled is None and not _REAL_LABELS.value
    held_out = None
    if uses_held_out and has_own_labels:
        held_out = suites.held_out(runs, load)
    if labelled is None:
        labelled = load(runs[0].config["dataset"], _SPLIT.value)
    label_sets = None
    if _REAL_LABELS.value:
        labelled, label_sets = real_labels.reassess(
            labelled, _REAL_LABELS.value, num_classes=runs[0].model.num_classes
        )
    ood = ood_sets = None
    if "ood" in chosen:
        pairs = suites.ood_sets.parse(_OOD.value)
        ood_sets = suites.ood_sets.load(
            pairs, _OOD_VALIDATION.value, own=labelled, load=load
        )
    elif _OOD.value:
        ood = (_OOD.value, load(_OOD.value, "test"))
    return suites.Setting(
        labelled,
        split=_SPLIT.value,
        held_out=held_out,
        label_sets=label_sets,
        ood=ood,
        ood_sets=ood_sets,
        load=load,
        output=output,
        **numbers(task=runs[0].model.task),
    )


def chosen_suites(*, task: str = "classification") -> dict[str, suites.Suite]:
    """Returns name -> suite of those in `--suite`.

    Args:
      task: Task of the networks, "classification" or "segmentation".

    Raises:
      ValueError: for an unknown suite, one that is named twice or is for another task,
        or a flag for which none of the suites has a use.
    """
    names = _SUITE.value
    if names is None:
        names = [DEFAULT_SUITES[task]]
    suites.check_list("--suite", names)
    has_sets = suites.ood_sets.has_distances(_OOD.value)
    usable = [name for name, suite in suites.SUITES.items() if suite.task == task]
    if names == [ALL]:
        # The suite "ood" cannot do without sets, which nobody can guess.
        names = [name for name in usable if name != "ood" or has_sets]
    if ALL in names:
        raise ValueError(f"--suite={ALL} takes no other names, got {','.join(names)}")
    chosen = {name: lookup(suites.SUITES, name, "suite") for name in names}
    if others := [name for name in chosen if name not in usable]:
        raise ValueError(
            f"the suite {others[0]} is for {chosen[others[0]].task}, and the network "
            f"for {task}; choose among {', '.join(usable)}"
        )
    if "ood" in chosen:
        return chosen
    if _OOD_VALIDATION.value is not None:
        raise ValueError("--ood_validation is for --suite=ood, which is not evaluated")
    if has_sets:
        raise ValueError(
            f"--ood={_OOD.value} is a list for --suite=ood, which is not evaluated; "
            "--suite=ensemble takes the name of one data set"
        )
    if _OOD.value and "ensemble" not in chosen:
        raise ValueError(
            "--ood is for --suite=ensemble or --suite=ood, which is not evaluated"
        )
    return chosen


def check_number_of_runs(
    runs: Sequence[Run], chosen: Mapping[str, suites.Suite]
) -> None:
    """Raises ValueError for members of an ensemble that a suite would refuse later."""
    refusing = [name for name, suite in chosen.items() if suite.for_one_run]
    if len(runs) > 1 and refusing:
        raise ValueError(
            f"the suite {refusing[0]} takes one run, got {len(runs)}; evaluate one by "
            "one, then --compare them"
        )


def check_ood(config: Mapping[str, Any], chosen: Collection[str]) -> None:
    """Raises ValueError if `--ood` is the data set that the run classifies.

    Args:
      config: Config of the run.
      chosen: Names of the suites to be evaluated.
    """
    if "ood" in chosen:
        pairs = suites.ood_sets.parse(_OOD.value)
        validation = _OOD_VALIDATION.value
        suites.ood_sets.check_names(pairs, validation, config["dataset"])
    elif _OOD.value and recipes.is_same_dataset(_OOD.value, config["dataset"]):
        raise ValueError(f"--ood={_OOD.value} is what is tested on; choose another")


def compare() -> None:
    """Puts the evaluations of the workdirs in `--compare` side by side."""
    if _OUTPUT.value is None:
        raise ValueError("--compare needs --output=DIR for the report")
    compared = folders.split("compare", _COMPARE.value)
    if useless := [name for name in _OF_EVALUATION if FLAGS[name].present]:
        raise ValueError(
            f"--{useless[0]} is for --workdir; --compare takes evaluations as they are"
        )
    suites.check_comparison(_OUTPUT.value)
    found = {workdir: suites.read(workdir) for workdir in compared}
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


def published(configs: Iterable[Mapping[str, Any]]) -> list:
    """Returns what is published of the runs, if asked for; ValueError if nothing is."""
    return report.published(list(configs)) if _PUBLISHED.value else []


def write(rows: list, where: dict, output: epath.PathLike, **extra) -> epath.Path:
    """Writes the report; returns the path of its page."""
    rows, files = suites.pack_examples(rows)
    return report.write(
        output,
        rows,
        provenance=where,
        files=files,
        formats=_FORMAT.value,
        figure_width=_FIGURE_WIDTH.value,
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
    if compile_for.is_asked(FLAGS):
        compile_batch()
    elif _WORKDIR.value:
        evaluate()
    elif processes.is_first():
        compare()


def run() -> None:
    """Runs the command with the arguments of the process."""
    start.run(
        start.Command(
            main, FLAGS, about=__doc__, several=True, alone_with=compile_for.FLAG
        )
    )
