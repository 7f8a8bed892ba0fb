"""What `train.py` trains: a config becomes a `Job`, with its network and its data.

Contract of this file: a config is checked, and data and weights are read, before
anything is written or computed. `resolve` finds out what the config leaves to its data,
`load` makes the job, and `hyperparameters` says how its network learns.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath
from jax.sharding import Mesh

from spatial_smoothing.cli import config_fields
from spatial_smoothing.data import augment, batches, datasets, sources
from spatial_smoothing.data.datasets import AnyDataset, DatasetShape
from spatial_smoothing.data.segmentation import class_weights
from spatial_smoothing.data.sources import Source
from spatial_smoothing.models.heads import HEADS
from spatial_smoothing.models.network import Network
from spatial_smoothing.models.rivals import ENSEMBLES
from spatial_smoothing.runs import initial_weights, recipes, workdirs
from spatial_smoothing.runs.initial_weights import InitialWeights, Pretrained
from spatial_smoothing.runtime import processes, sharding
from spatial_smoothing.training import freezing, objectives, optim
from spatial_smoothing.training.loop import check_batch_size
from spatial_smoothing.training.objectives import StepOptions
from spatial_smoothing.training.options import Hyperparameters
from spatial_smoothing.training.steps import Prepare

# Field -> the only ensemble that uses it.
_OF_ENSEMBLE = {
    "alpha": "packed",
    "gamma": "packed",
    "scale": "masksembles",
    "repetition": "mimo",
    "batch_repetitions": "mimo",
}


@dataclasses.dataclass(frozen=True)
class Job:
    """A training that can begin: its config is checked, and its data are loaded.

    Attributes:
      config: The config, a flat dict.
      model: The network.
      train: The examples to train on; their shape, where it is only compiled.
      splits: Name of a split -> the examples that are evaluated after each epoch.
      mesh: The devices.
      normalize: `images u8[B, H, W, C] -> f32[B, H, W, C]`, for evaluation.
      prepare: The same with augmentation, for training.
      initial: Weights to start from; None for random values, and for a run that
        continues.
    """

    config: Mapping[str, Any]
    model: Network
    train: AnyDataset | DatasetShape
    splits: Mapping[str, AnyDataset | DatasetShape]
    mesh: Mesh
    normalize: Callable[..., Any]
    prepare: Prepare
    initial: InitialWeights | None = None

    @property
    def epochs(self) -> int:
        """The number of epochs, those of warm-up included."""
        return self.config["warmup_epochs"] + self.config["epochs"]

    @property
    def num_steps(self) -> int:
        """The number of steps of the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches that hold all examples once."""
        return batches.num_batches(self.train.num_examples, self.examples_per_step)

    @property
    def examples_per_step(self) -> int:
        """The number of different examples of a batch, which may repeat them."""
        return objectives.examples_of_step(
            self.config["batch_size"], self.config["train_samples"]
        )


def resolve(
    config: Mapping[str, Any], workdir: epath.PathLike
) -> tuple[dict[str, Any], Pretrained | None]:
    """Finds out what a config leaves to its data, and reads the weights it names.

    Args:
      config: A config with all fields of `configs/common.py`.
      workdir: Folder of the run, which need not be there.

    Returns:
      The config with the facts of its data set; and the weights to start from, None
      where there are none, or the run continues from a checkpoint of its own.

    Raises:
      ValueError: if the data or the weights are not there, or cannot be read.
    """
    continues = workdirs.has_checkpoint(workdir)
    pretrained = None
    with processes.together():
        config = workdirs.with_held_facts(workdir, config)
        if config["init_from"] and not continues:
            pretrained = initial_weights.read(config)
            # The weights expect images that are normalised as theirs were.
            for field in ("mean", "std"):
                config[field] = config[field] or getattr(pretrained, field)
        config = recipes.with_facts(config)
    processes.check_same({"init_from": pretrained and pretrained.digest})
    return config, pretrained


def load(config: Mapping[str, Any], *, pretrained: Pretrained | None = None) -> Job:
    """Builds the network of a config and loads its data sets. Writes nothing.

    Args:
      config: A config with all fields of `configs/common.py`.
      pretrained: Weights to start from; None for random values, and for a run that
        continues.

    Raises:
      ValueError: for a config whose parts do not fit together, or another data set than
        that of another process.
      OSError: if the data cannot be read.
    """
    with processes.together():
        read = recipes.loader(config, download=config["download"])
        mesh = sharding.mesh(members=config["members"])
        job = assemble(config, read, mesh, pretrained=pretrained)
    everything = {"train": job.train, **job.splits}
    processes.check_same({name: d.checksum for name, d in everything.items()})
    return job


def assemble(
    config: Mapping[str, Any],
    read: Callable[[str, str], AnyDataset | DatasetShape],
    mesh: Mesh,
    *,
    pretrained: Pretrained | None = None,
) -> Job:
    """Returns the training that a config describes, after it is checked.

    Args:
      config: A config with all fields of `configs/common.py`.
      read: Function of the name and the split of a data set to its examples, or to
        their shape where nothing is to be trained.
      mesh: The devices.
      pretrained: Weights to start from; None for random values.

    Raises:
      ValueError: for a config whose parts do not fit together.
      OSError: if the data cannot be read.
    """
    model, source = recipes.build_model(config), recipes.source(config)
    shapes = recipes.abstract_variables(model, image_size=source.image_size)
    freezing.check_parts(shapes["params"], config["freeze"] or ())
    initial = None
    if pretrained is not None:
        initial = initial_weights.choose(
            pretrained,
            shapes,
            num_classes=source.num_classes,
            members=config["members"],
        )
    sharding.check_batch_size(config["eval_batch_size"], mesh, name="eval_batch_size")
    train, held_out = datasets.hold_out(
        read(source.name, recipes.train_split(config)),
        fraction=config["val_fraction"],
    )
    check_fields_in_use(config, model)
    check_train_samples(config, model)
    check_batch_size(
        objectives.examples_of_step(config["batch_size"], config["train_samples"]),
        train,
        mesh,
    )
    splits = {"test": read(source.name, "test")}
    if config["val_fraction"]:
        splits = {"val": held_out, **splits}
    normalize = functools.partial(augment.normalize, mean=source.mean, std=source.std)
    prepare = _preparation(config, source, train, normalize)
    job = Job(config, model, train, splits, mesh, normalize, prepare, initial)
    if job.num_steps > config_fields.MAX_INT:
        raise ValueError(
            f"{job.epochs} epochs of {job.steps_per_epoch} steps are more than "
            f"{config_fields.MAX_INT} steps; train for fewer epochs"
        )
    return job


def _preparation(
    config: Mapping[str, Any],
    source: Source,
    train: AnyDataset | DatasetShape,
    normalize: Callable[..., Any],
) -> Prepare:
    """Returns what training does with a batch before the network sees it."""
    weights = config["class_weights"]
    if source.task == sources.CLASSIFICATION:
        if weights is not None:
            raise ValueError(
                f"class_weights are for segmentation, and {source.name} has one class "
                "for each image"
            )
        augments = config["augment"] and not source.augments_on_host
        return augment.preparation(normalize, augment=augments)
    if config["mixup"]:
        raise ValueError(
            f"mixup is for images with one label each, and {source.name} has a class "
            "for every pixel; take mixup=0"
        )
    pixels = train.num_examples * math.prod(train.label_shape) * config["members"]
    if pixels > config_fields.MAX_INT:
        raise ValueError(
            f"an epoch has {pixels:,} pixels, and counts are at most "
            f"{config_fields.MAX_INT:,}; use a part of the images as in "
            "train_split=train[:50%], or a smaller image_size"
        )
    if weights is not None:
        weights = _class_weights(tuple(weights), source, train)
    return augment.JointPreparation(normalize, config["augment"], weights)


def _class_weights(
    given: tuple[float | str, ...], source: Source, train: AnyDataset | DatasetShape
) -> tuple[float, ...]:
    """Returns the weight of each class in the loss, by the config or by the data."""
    count = source.num_classes
    if given == (config_fields.MEDIAN_FREQUENCY,):
        if isinstance(train, DatasetShape):
            return (1.0,) * count  # a program does not depend on their values
        counts = class_weights.count_pixels(train, num_classes=count)
        return class_weights.median_frequency(counts)
    if config_fields.MEDIAN_FREQUENCY in given or len(given) != count:
        raise ValueError(
            f"class_weights must be {config_fields.MEDIAN_FREQUENCY} or {count} "
            f"numbers, one for each class of {source.name}, got {len(given)} items"
        )
    return tuple(map(float, given))


def check_fields_in_use(config: Mapping[str, Any], model: Network) -> None:
    """Raises ValueError if a config gives a field that its network does not use.

    Args:
      config: A config with all fields of `configs/common.py`.
      model: The network that it describes.
    """
    for field, ensemble in _OF_ENSEMBLE.items():
        if config[field] is not None and config["ensemble"] != ensemble:
            raise ValueError(
                f"{field} is for ensemble={ensemble}, and ensemble is "
                f"{config['ensemble']}; leave it out"
            )
    if config["ensemble_size"] is not None and config["ensemble"] is None:
        raise ValueError(
            f"ensemble_size {config['ensemble_size']} is for networks that make "
            f"several predictions in a pass; give an ensemble: {', '.join(ENSEMBLES)}"
        )
    if config["head_temperature"] is not None and "squash" not in HEADS[model.head]:
        raise ValueError(
            f"head_temperature is for head=gap_clip, and the head is {model.head}; "
            "leave it out"
        )


def check_train_samples(config: Mapping[str, Any], model: Network) -> None:
    """Raises ValueError if a network cannot train on several samples of an example.

    Args:
      config: A config with `train_samples`.
      model: The network. Its samples are equal without dropout, and none are drawn of
        one that makes several predictions in a pass.
    """
    if config["train_samples"] > 1 and model.ensemble is not None:
        raise ValueError(
            f"train_samples {config['train_samples']} is for networks that make one "
            f"prediction in a pass, and the ensemble {model.ensemble!r} makes "
            f"{model.ensemble_size}; take train_samples=1"
        )
    draws = model.has_dropout or "rate" in HEADS[model.head]
    if config["train_samples"] > 1 and not draws:
        raise ValueError(
            f"train_samples {config['train_samples']} is for networks with dropout: "
            f"all samples of an example would be equal for {config['model']}"
        )


def hyperparameters(job: Job) -> Hyperparameters:
    """Returns how the network of a job learns."""
    config = job.config
    optimizer, schedule = optim.of_config(config, steps_per_epoch=job.steps_per_epoch)
    frozen = tuple(config["freeze"] or ())
    return Hyperparameters(
        prepare=job.prepare,
        schedule=schedule,
        optimizer=optim.by_part(
            optimizer,
            frozen=frozen,
            backbone_factor=config["backbone_factor"],
        ),
        epochs=job.epochs,
        batch_size=job.examples_per_step,
        seed=config["seed"],
        members=config["members"],
        initial=job.initial and job.initial.values,
        frozen=frozen,
        step_options=StepOptions(
            label_smoothing=config["label_smoothing"],
            mixup=config["mixup"],
            train_samples=config["train_samples"],
            train_samples_loss=config["train_samples_loss"],
            ema=config["ema"],
        ),
    )


def describe(job: Job) -> str:
    """Returns a line that says what is trained, and for how long."""
    config, warmup = job.config, job.config["warmup_epochs"]
    epochs = f"{warmup} warm-up + {config['epochs']} epochs"
    members = f", {config['members']} members" if config["members"] > 1 else ""
    return (
        f"{config['model']} on {config['dataset']}{members}: {epochs} of "
        f"{job.steps_per_epoch} steps"
    )
