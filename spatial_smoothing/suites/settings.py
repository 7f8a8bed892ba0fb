"""What every suite is asked: on what data, with how many samples.

Contract of this package: a suite is a function of the runs that make up an ensemble
(most often one) and a `Setting`, and returns rows for `report`.
"""

import dataclasses
from collections.abc import Callable, Sequence

from spatial_smoothing.data import batches
from spatial_smoothing.data.sources import Dataset
from spatial_smoothing.models import zoo
from spatial_smoothing.workdirs import Run


@dataclasses.dataclass(frozen=True)
class Setting:
    """An evaluation.

    Attributes:
      dataset: The test images and labels.
      held_out: Images of the training split on which no run was trained, to fit
        temperatures on; None for no temperatures.
      ood: Name of another data set and its images, to be told from those of
        `dataset`; None for no detection.
      num_samples: Monte Carlo dropout samples of each run, at least 1; a network
        without dropout makes one prediction whatever this says.
      batch_size: Images at once.
      chunk: Samples at once; None for what suits the device.
      num_replicates: Of the bootstrap; 0 for no intervals.
      seed: Of the dropout masks and the bootstrap.

    Raises:
      ValueError: for a number that is too small, or OOD images of another size.
    """

    dataset: Dataset
    held_out: Dataset | None = None
    ood: tuple[str, Dataset] | None = None
    num_samples: int = 50
    batch_size: int = 128
    chunk: int | None = None
    num_replicates: int = 1000
    seed: int = 0

    def __post_init__(self):
        for name, least in (("num_samples", 1), ("num_replicates", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} must be at least {least}, got {getattr(self, name)}"
                )
        if self.ood is not None:
            name, (images, _) = self.ood
            sizes = [list(x.shape[1:]) for x in (images, self.dataset.images)]
            if sizes[0] != sizes[1]:
                raise ValueError(
                    f"images of {name} are {sizes[0]}, those tested on {sizes[1]}"
                )


def held_out(
    runs: Sequence[Run], load: Callable[[str, str], Dataset]
) -> Dataset | None:
    """Returns the training images on which no run was trained; None for none.

    Args:
      runs: Of one data set.
      load: Name and split of a data set to its examples.
    """
    fractions = {run.config.get("val_fraction") or 0.0 for run in runs}
    if fractions == {0.0} or len(fractions) > 1:
        return None
    _, held = batches.hold_out(
        *load(runs[0].config["dataset"], "train"), fraction=fractions.pop()
    )
    return Dataset(*held)


def label(name: str, *, num_members: int = 1) -> str:
    """Returns what a method is called in reports, such as "MC dropout + smoothing"."""
    arguments = zoo.spec(name).arguments
    method = "MC dropout" if arguments["rate"] else "Deterministic"
    if num_members > 1:
        method = "Deep ensemble" + (" of MC dropout" if arguments["rate"] else "")
    return method + (" + smoothing" if any(arguments["smoothing"]) else "")


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
        if run.model != runs[0].model:
            raise ValueError(
                f"{runs[0].path} and {run.path} cannot be one ensemble: they differ in "
                f"{', '.join(different)}"
            )
