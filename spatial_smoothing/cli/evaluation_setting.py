"""The `Setting` of an evaluation: its data sets are loaded as the flags say."""

from collections.abc import Collection, Sequence

from etils import epath

from spatial_smoothing.cli import evaluate_flags
from spatial_smoothing.data import real_labels
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.evaluation import suites
from spatial_smoothing.runs import recipes
from spatial_smoothing.runs.workdirs import Run


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

    Raises:
      ValueError: if a data set is not there, or does not suit the others.
    """
    config, split = runs[0].config, evaluate_flags.SPLIT.value
    read = recipes.loader(
        config,
        data_dir=evaluate_flags.DATA_DIR.value,
        download=evaluate_flags.DOWNLOAD.value,
    )
    reassessed = evaluate_flags.REAL_LABELS.value
    uses_held_out = not {"ensemble", "laplace", "ood"}.isdisjoint(chosen)
    # Temperatures and prediction sets are fitted with one label each, on all of the
    # run's classes.
    has_own_labels = labelled is None and not reassessed
    held_out = None
    if uses_held_out and has_own_labels:
        held_out = suites.held_out(runs, read)
    if labelled is None:
        labelled = read(config["dataset"], split)
    label_sets = None
    if reassessed:
        labelled, label_sets = real_labels.reassess(
            labelled, reassessed, num_classes=runs[0].model.num_classes
        )
    ood = ood_sets = None
    name = evaluate_flags.OOD.value
    if "ood" in chosen:
        ood_sets = suites.ood_sets.load(
            suites.ood_sets.parse(name),
            evaluate_flags.OOD_VALIDATION.value,
            own=labelled,
            load=read,
        )
    elif name:
        ood = (name, read(name, "test"))
    return suites.Setting(
        labelled,
        split=split,
        held_out=held_out,
        label_sets=label_sets,
        ood=ood,
        ood_sets=ood_sets,
        load=read,
        output=output,
        **evaluate_flags.numbers(task=runs[0].model.task),
    )
