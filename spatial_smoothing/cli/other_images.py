"""Other images and other labels than those of a run: `--dataset`, `--real_labels`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from etils import epath

from spatial_smoothing.data import class_names, labelled_sets, other_sets
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.runs import recipes, restricted
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import processes


def check(
    config: Mapping[str, Any],
    chosen: Collection[str],
    *,
    dataset: str | None,
    real_labels: str | None,
) -> None:
    """Checks which of the two flags are given, and for what.

    Args:
      config: Config of the run.
      chosen: Names of the suites to be evaluated.
      dataset: Value of `--dataset`; None if it is not given.
      real_labels: Value of `--real_labels`; None if it is not given.

    Raises:
      ValueError: if the data set is that of the run, both flags are given, or one of
        them with another suite than that of ensembles.
    """
    flags = {"--dataset": dataset, "--real_labels": real_labels}
    given = [name for name, value in flags.items() if value]
    if not given:
        return
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are for different images; give one")
    if others := [name for name in chosen if name != "ensemble"]:
        raise ValueError(f"{given[0]} is for --suite=ensemble, not for {others[0]}")
    if dataset and recipes.is_same_dataset(dataset, config["dataset"]):
        raise ValueError(
            f"--dataset={dataset} is what the run was trained on; leave it out, and "
            "choose a part of it by --split"
        )


def load(
    runs: Sequence[Run], dataset: str, split: str, *, data_dir: epath.PathLike | None
) -> tuple[list[Run], AnyDataset]:
    """Loads the images of `--dataset`, and says which of the classes they have.

    Args:
      runs: The run, or the members of the ensemble.
      dataset: Name of the data set.
      split: Name of the split, which may end with a subset.
      data_dir: Directory of TFDS; None for that of the training.

    Returns:
      The runs as they are tested on these images, and the images.
    """
    run, name = runs[0], other_sets.located(dataset)
    data_dir = data_dir or run.config.get("data_dir")
    names = class_names.known_names(run.source, data_dir=data_dir)
    found = labelled_sets.load_labelled(
        name, split, own=run.source, class_names=names, data_dir=data_dir
    )
    count, every = len(found.classes), run.source.num_classes
    if processes.is_first():
        left_out = "" if count == every else "; logits of the others are left out"
        print(f"{name} has {count} of {every} classes{left_out}")
    tested = [restricted.tested_on(each, name, found, names) for each in runs]
    return tested, found.dataset
