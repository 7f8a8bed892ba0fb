"""What all suites share: what a suite is, and the settings that all of them take.

Contract of this package: a suite is a function of the runs that make up an ensemble
(most often one) and a `Setting`, with further options that only it has, and returns
rows for `report`.
"""

import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from spatial_smoothing.data import datasets
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.suites.ood_sets import OodSets
from spatial_smoothing.evaluation.suites.partial import Partial
from spatial_smoothing.runs import recipes
from spatial_smoothing.runs.labels import SMOOTHED as SMOOTHED
from spatial_smoothing.runs.labels import label as label
from spatial_smoothing.runs.workdirs import FREE, SINCE, Run

# What the label of a row of the suite "laplace" has more than that of its network.
LAPLACE = " + Laplace"
# Fields of a config in which seeds of one thing may differ.
_SEEDS = FREE | {"members", "seed"}
# Fields that say how a network smooths: those without smoothing have no use for them.
_SMOOTHING = frozenset(
    {"smoothing", "temperature", "squash", "taps", "padding", "smoothing_norm"}
)


class UnsuitableError(ValueError):
    """A suite cannot evaluate networks of this kind, whatever its options say."""


class Suite(NamedTuple):
    """An evaluation that `evaluate.py` can run.

    Attributes:
      function: `(runs, setting, *, option=default, ...) -> rows`. An option's type is
        that of its default: int, float, str, bool or a tuple of these; None is for str.
      options: Name of each option -> the text of its flag in the help of evaluate.py.
      for_one_run: Whether the suite refuses the members of an ensemble.
      check: Function of the arguments of `function` that raises ValueError for those
        that it cannot use, and UnsuitableError for networks; it is called before any
        suite begins. None for no check.
      task: Task of the networks that it evaluates, "classification" or "segmentation".
    """

    function: Callable[..., list[Row]]
    options: Mapping[str, str] = {}
    for_one_run: bool = False
    check: Callable[..., None] | None = None
    task: str = "classification"


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all suites of an evaluation share.

    Attributes:
      dataset: The test images and labels.
      split: Name of the split of the data set that these are.
      held_out: Images of the training split on which no run was trained, to fit
        temperatures on; None for no temperatures.
      ood: Name of another data set and its images, to be told from those of
        `dataset`; None for no out-of-distribution detection.
      ood_sets: The sets of images that the suite "ood" detects; None without it.
      num_samples: Number of Monte Carlo dropout samples of each run, at least 1; a
        network without dropout makes one prediction whatever this says.
      batch_size: Number of images in a batch.
      chunk: Number of samples computed at once; None for what suits the device.
      num_replicates: Number of replicates of the bootstrap; 0 for no intervals.
      seed: Seed of the dropout masks, the bootstrap and all else that is random; at
        least 0.
      label_sets: bool[R, K] where images have several right labels: labels of `dataset`
        are then rows of it. None where each image has one.
      load: Function of the name and the split of a data set to its examples, for suites
        that need other images than `dataset`.
      output: Directory of the report, in which a suite keeps what it has so far.

    Raises:
      ValueError: for a number that is too small, or OOD images of another size.
    """

    dataset: AnyDataset
    split: str = "test"
    held_out: AnyDataset | None = None
    ood: tuple[str, AnyDataset] | None = None
    ood_sets: OodSets | None = None
    num_samples: int = 50
    batch_size: int = 128
    chunk: int | None = None
    num_replicates: int = 1000
    seed: int = 0
    label_sets: np.ndarray | None = None
    load: Callable[[str, str], AnyDataset] | None = None
    output: epath.Path | None = None

    def partial(
        self, suite: str, runs: Sequence[Run], options: Mapping[str, Any]
    ) -> Partial:
        """Returns the rows of an interrupted evaluation with just these arguments.

        Args:
          suite: Name of the suite.
          runs: The runs that are evaluated.
          options: All else that determines the rows, as values that JSON can hold.
        """
        about = {
            # A run that was trained again has other weights, perhaps at the same step.
            "runs": [[run.name, run.step, run.fingerprint] for run in runs],
            "configs": [
                {name: run.config[name] for name in sorted(run.config.keys() - FREE)}
                for run in runs
            ],
            "split": self.split,
            "data": self.dataset.checksum(),
            "num_samples": self.num_samples,
            "batch_size": self.batch_size,
            "seed": self.seed,
            **options,
        }
        return Partial(self.output, suite, about)

    def __post_init__(self):
        for name, least in (("num_samples", 1), ("num_replicates", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} must be at least {least}, got {getattr(self, name)}"
                )
        if self.ood is not None:
            name, dataset = self.ood
            sizes = [list(data.image_shape) for data in (dataset, self.dataset)]
            if sizes[0] != sizes[1]:
                raise ValueError(
                    f"images of {name} are {sizes[0]}, those tested on {sizes[1]}"
                )


def held_out(
    runs: Sequence[Run], load: Callable[[str, str], AnyDataset]
) -> AnyDataset | None:
    """Returns the training images on which no run was trained; None for none.

    Args:
      runs: Runs that were trained on one data set.
      load: Function of the name and the split of a data set to its examples.
    """
    fractions = {run.config.get("val_fraction") or 0.0 for run in runs}
    if fractions == {0.0} or len(fractions) > 1:
        return None
    config = runs[0].config
    dataset = load(config["dataset"], recipes.train_split(config))
    return datasets.hold_out(dataset, fraction=fractions.pop())[1]


def recipe(config: Mapping[str, Any], *, smoothing: bool = True) -> str:
    """Returns a short text that differs where configs differ in more than the seed.

    Args:
      config: Config of a run, a flat dict.
      smoothing: Whether the text differs also where smoothing does. If not, a network
        with and one without smoothing that are alike in all else have the same text.
    """
    ignored = _SEEDS if smoothing else _SEEDS | _SMOOTHING
    # A field with the meaning of older runs, which lack it, makes no other recipe.
    fields = {
        name: value
        for name, value in config.items()
        if name not in ignored and (name not in SINCE or value != SINCE[name])
    }
    if not smoothing and "model" in fields:
        fields["model"] = fields["model"].replace("_smoothing", "")
    return f"{zlib.crc32(json.dumps(fields, sort_keys=True).encode()):08x}"


def check_list(name: str, values: Sequence[Any]) -> None:
    """Raises ValueError if a list that is averaged over is empty, or repeats a value.

    Args:
      name: Name of the option, for the message.
      values: The list.
    """
    if not values:
        raise ValueError(
            f"{name} must have at least one value, got none; leave it out for the "
            "default"
        )
    repeated = [value for value in dict.fromkeys(values) if values.count(value) > 1]
    if repeated:
        raise ValueError(
            f"{name} must name each value once, got {', '.join(map(str, repeated))} "
            "more than once"
        )


def check_members(runs: Sequence[Run]) -> None:
    """Raises ValueError unless the runs are of one network and data set.

    Members of an ensemble may differ in seed, and in nothing that shapes them.
    """
    for run in runs[1:]:
        different = [
            f"{name} ({runs[0].config.get(name)!r} and {run.config.get(name)!r})"
            for name in sorted({*runs[0].config, *run.config} - {"seed"})
            if runs[0].config.get(name) != run.config.get(name)
        ]
        same_data = run.config["dataset"] == runs[0].config["dataset"]
        if run.model != runs[0].model or not same_data:
            raise ValueError(
                f"{runs[0].path} and {run.path} cannot be one ensemble: they differ in "
                f"{', '.join(different)}"
            )
