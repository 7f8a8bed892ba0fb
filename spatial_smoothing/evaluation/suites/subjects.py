"""What an analysis is of: one network in float32, and the images it is given."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from spatial_smoothing.data import augment, datasets
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.evaluation.suites.settings import (
    Setting,
    UnsuitableError,
    label,
)
from spatial_smoothing.models.network import Network
from spatial_smoothing.runs import recipes
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import sharding

_OF_MAPS = ("variance", "fourier")  # suites that read feature maps


class Subject(NamedTuple):
    """A trained network that is analysed.

    Attributes:
      about: Fields that all of its rows begin with.
      model: The network, computing in float32 whatever it was trained in.
      variables: Flax variables of the network, `{"params", "batch_stats"}`.
      normalize: Normalises u8[B, H, W, 3] to f32[B, H, W, 3], as in training.
      prepare: `prepare(key, images)` augments, if training did after the images were
        decoded, and normalises.
      augments: Whether `prepare` augments. Images that training crops while it decodes
        them, as those of ImageNet, are those of evaluation here.
      weight_decay: Factor of the L2 term in training, at least 0.
      mesh: The mesh of all devices.
    """

    about: dict[str, Any]
    model: Network
    variables: dict[str, Any]
    normalize: Callable[[jax.Array], jax.Array]
    prepare: Callable[[jax.Array, jax.Array], jax.Array]
    augments: bool
    weight_decay: float
    mesh: Mesh

    @property
    def stochastic(self) -> bool:
        """Whether the network has dropout."""
        return self.model.has_dropout


def subject(runs: Sequence[Run], setting: Setting, *, suite: str) -> Subject:
    """Returns the subject of an analysis.

    Args:
      runs: One run.
      setting: Settings of the evaluation, for the batch size.
      suite: Name of the suite, for messages.

    Raises:
      UnsuitableError: for a network whose feature maps are those of several members.
      ValueError: for more than one run, or a batch that the devices cannot divide.
    """
    if len(runs) != 1:
        raise ValueError(
            f"the suite {suite} takes one run, got {len(runs)}; evaluate one by one, "
            "then --compare them"
        )
    (run,) = runs
    if run.model.ensemble is not None and suite in _OF_MAPS:
        raise UnsuitableError(
            f"the suite {suite} looks at the feature maps of one prediction, and the "
            f"ensemble {run.model.ensemble!r} of {run.path} makes several in a pass"
        )
    mesh = sharding.mesh()
    sharding.check_batch_size(setting.batch_size, mesh)
    source = run.source
    augments = run.config.get("augment", True) and not source.augments_on_host
    normalize = lambda images: augment.normalize(
        images, mean=source.mean, std=source.std
    )
    return Subject(
        about={
            "label": label(run.model),
            "run": str(run.path),
            "model": run.config["model"],
            "dataset": source.name,
        },
        model=run.model.clone(dtype=None),
        variables=run.variables,
        normalize=normalize,
        prepare=augment.preparation(normalize, augment=augments),
        augments=augments,
        weight_decay=run.config.get("weight_decay", 0.0),
        mesh=mesh,
    )


def training_images(
    runs: Sequence[Run], setting: Setting, count: int, *, seed: int
) -> AnyDataset:
    """Draws images that a run was trained on, in random order.

    The order matters where a data set is sorted by class and batches should not be.

    Args:
      runs: The run whose training images are drawn, as the only element.
      setting: Settings of the evaluation, which load the data set.
      count: Number of images; 0 for all.
      seed: Seed of the choice and of the order.
    """
    config = runs[0].config
    train = setting.load(config["dataset"], recipes.train_split(config))
    fraction = config.get("val_fraction") or 0.0
    train, _ = datasets.hold_out(train, fraction=fraction)
    chosen = datasets.choose(train.num_examples, count, seed=seed)
    return train.subset(np.random.default_rng(seed).permutation(chosen))
