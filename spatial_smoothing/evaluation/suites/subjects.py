"""What an analysis looks at: one network in float32, and the images it is shown."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from spatial_smoothing.data import augment, datasets
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.evaluation.suites.settings import Setting, label
from spatial_smoothing.models.network import Network
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import sharding


class Subject(NamedTuple):
    """A trained network that is analysed.

    Attributes:
      about: What its rows begin with.
      model: The network, computing in float32.
      variables: Its variables.
      normalize: u8[B, H, W, 3] to f32, as in training.
      prepare: `prepare(key, images)` augments, if training did, and normalises.
      weight_decay: Of training.
      mesh: All devices.
    """

    about: dict[str, Any]
    model: Network
    variables: dict[str, Any]
    normalize: Callable[[jax.Array], jax.Array]
    prepare: Callable[[jax.Array, jax.Array], jax.Array]
    weight_decay: float
    mesh: Mesh

    @property
    def stochastic(self) -> bool:
        """Whether the network has dropout."""
        return self.model.rate > 0


def subject(runs: Sequence[Run], setting: Setting, *, suite: str) -> Subject:
    """Returns the subject of an analysis.

    Raises:
      ValueError: for more than one run, or a batch that the devices cannot divide.
    """
    if len(runs) != 1:
        raise ValueError(
            f"the suite {suite} takes one run, got {len(runs)}; evaluate one by one, "
            "then --compare them"
        )
    (run,) = runs
    mesh = sharding.mesh()
    sharding.check_batch_size(setting.batch_size, mesh)
    source = run.source
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
        prepare=augment.preparation(
            normalize,
            augment=run.config.get("augment", True) and not source.augments_on_host,
        ),
        weight_decay=run.config.get("weight_decay", 0.0),
        mesh=mesh,
    )


def training_images(
    runs: Sequence[Run], setting: Setting, count: int, *, seed: int
) -> AnyDataset:
    """Draws images that a run was trained on, in random order; all for 0.

    The order matters where a data set is sorted by class and batches should not be.
    """
    config = runs[0].config
    train = setting.load(config["dataset"], "train")
    fraction = config.get("val_fraction") or 0.0
    train, _ = datasets.hold_out(train, fraction=fraction)
    chosen = datasets.choose(train.num_examples, count, seed=seed)
    return train.subset(np.random.default_rng(seed).permutation(chosen))
