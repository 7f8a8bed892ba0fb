"""Recipes: the network and the data set that a config describes.

Contract of this file: a config is a flat dict of JSON's types, as `configs/` make it
and `workdirs` keep it. Nothing is written.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from spatial_smoothing.data import other_sets, sources, subsets
from spatial_smoothing.data.datasets import AnyDataset, DatasetShape
from spatial_smoothing.data.sources import Source
from spatial_smoothing.lookup import unknown
from spatial_smoothing.models import zoo
from spatial_smoothing.models.network import Network
from spatial_smoothing.runtime import paths, progress, random_bits

# Fields of networks that make several predictions in a pass, or bound their kernels.
# The authors' networks in PyTorch have none of them.
RIVAL_FIELDS = (
    "ensemble",
    "ensemble_size",
    "alpha",
    "gamma",
    "scale",
    "repetition",
    "batch_repetitions",
    "spectral_bound",
)
# Fields of a config that are arguments of `models.build`; None for the model's default.
MODEL_FIELDS = (
    "stem",
    "width",
    "stages",
    "rate",
    "stage_rates",
    "mask",
    "dropout_placement",
    "mc_stages",
    "smoothing",
    "temperature",
    "squash",
    "taps",
    "padding",
    "smoothing_norm",
    "head",
    "head_temperature",
    "conv_bias",
    *RIVAL_FIELDS,
    "dtype",
)
_FOLDER_SPLITS = ("train", "val", "test")  # folders in a folder of images
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


def source(config: Mapping[str, Any]) -> Source:
    """Returns what is known of the data set of a config before it is loaded.

    Args:
      config: Config with `dataset`; it may have `image_size`, `class_names`, `mean`,
        `std`, `in_memory`, `palette` and `data_dir`.

    Raises:
      ValueError: if there is no such data set, or it has images of another size.
    """
    return sources.source(
        config["dataset"],
        image_size=config.get("image_size"),
        class_names=config.get("class_names"),
        mean=config.get("mean"),
        std=config.get("std"),
        in_memory=config.get("in_memory"),
        palette=config.get("palette"),
        data_dir=config.get("data_dir"),
    )


def with_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config with what its data set tells, to be used without the data.

    Args:
      config: Config with `dataset`. Fields that it has stay as they are.
    """
    return {**config, **source(config).facts()}


def train_split(config: Mapping[str, Any]) -> str:
    """Returns the split that a network is trained on, such as "train[:10%]".

    Args:
      config: Config that may have `train_split`; None, or none, is all of "train".
    """
    return config.get("train_split") or "train"


def loader(
    config: Mapping[str, Any],
    *,
    data_dir: epath.PathLike | None = None,
    download: bool = False,
) -> Callable[[str, str], AnyDataset]:
    """Returns a function that loads data sets for the networks of a config.

    The data set of the config has its labels. Others are resized as it is, and their
    labels are all 0; see `data.other_sets`.

    Args:
      config: Config with `dataset`; it may have the other fields that `source` uses,
        `augment` and `num_workers`.
      data_dir: Directory of TFDS, in place of the one in the config. If the config's
        data set is a folder of images or a file of NumPy that is not there any more,
        either of the two may be the directory in which it is now.
      download: Whether to prepare a data set that is not there; see `sources.load`.

    Returns:
      A function `load(name, split="test")` to a data set. Name and split may end with a
      subset, as in `load("cifar10[:500]")`.
    """
    own = source(config)
    given = data_dir or config.get("data_dir")
    num_workers = config.get("num_workers") or 0

    def load(name: str, split: str = "test") -> AnyDataset:
        set_name, subset = subsets.split_name(name)
        if not is_same_dataset(set_name, own.name):
            with progress.status(f"reading {name}, {split} split"):
                return other_sets.load_other(
                    name,
                    split,
                    own=own,
                    data_dir=given,
                    download=download,
                    num_workers=num_workers,
                )
        place = own
        if given and (moved := _moved(set_name, given)):
            place = dataclasses.replace(own, name=moved)
        with progress.status(f"reading {place.name}, {split} split"):
            dataset = sources.load_source(
                place,
                split,
                data_dir=given,
                download=download,
                augment=config.get("augment", True),
                num_workers=num_workers,
            )
        if subset is None:
            return dataset
        return dataset.subset(subset.rows(dataset.num_examples))

    return load


def shapes(config: Mapping[str, Any]) -> Callable[[str, str], DatasetShape]:
    """Returns a function that tells the shapes of a config's data, and reads no image.

    Args:
      config: Config with `dataset`, and the fields that `loader` takes.

    Returns:
      A function of name and split to a shape; the split may end with a subset. What is
      known of data sets is in `sources`. Others are loaded, to count their examples:
      of a folder of images, the files are listed.
    """
    own = source(config)

    def shape(name: str, split: str) -> DatasetShape:
        whole, subset = subsets.split_name(split)
        count = own.num_examples.get(whole)
        if count is None:
            count = loader(config)(name, split).num_examples
        elif subset is not None:
            count = len(subset.rows(count))
        return DatasetShape(
            count,
            own.image_shape,
            in_memory=own.in_memory,
            label_shape=own.label_shape,
        )

    return shape


def located(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config whose paths are absolute, to be used from any directory.

    Args:
      config: Config whose `dataset` and `data_dir` may be relative to the current
        directory, or begin with "~".
    """
    found = dict(config)
    if found.get("data_dir"):
        found["data_dir"] = str(paths.absolute(found["data_dir"]))
    if found.get("init_from"):
        found["init_from"] = str(paths.absolute(found["init_from"]))
    if found.get("dataset"):
        found["dataset"] = other_sets.located(found["dataset"])
    return found


def is_same_dataset(name: str, other: str) -> bool:
    """Returns whether two names are of one data set; a folder may have several names.

    Args:
      name: Value of `dataset` in a config, or another name of a data set. A subset
        behind it makes no difference.
      other: Value of `dataset` in another config.
    """
    return other_sets.is_same(name, other)


def _moved(name: str, place: epath.PathLike) -> str | None:
    """Returns the new name of a data set that is not there, but at a place.

    Args:
      name: Name of a data set.
      place: The folder that the data are now; of a file, its folder or itself.

    Returns:
      The name; None where the data are where they were, or not at the place.
    """
    place = paths.absolute(place)
    for prefix in (sources.FOLDER, sources.MASKS, sources.NPZ):
        if not name.startswith(prefix):
            continue
        before = paths.absolute(name.removeprefix(prefix))
        if before.exists():
            return None
        if prefix == sources.NPZ:
            found = [p for p in (place, place / before.name) if p.is_file()]
            return f"{prefix}{found[0]}" if found else None
        if any((place / split).is_dir() for split in _FOLDER_SPLITS):
            return f"{prefix}{place}"
    return None


def build_model(config: Mapping[str, Any]) -> Network:
    """Builds the network that a config describes, and checks that it works.

    Args:
      config: Config with `model`, `dataset`, and any of `MODEL_FIELDS`.

    Raises:
      ValueError: for an unknown model, data set or type, or fields that do not fit each
        other.
    """
    given = model_arguments(config)
    dtype = given.pop("dtype", "float32")
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    dataset = source(config)
    row = zoo.spec(config["model"])
    if row.network.task != dataset.task:
        group = "segmentation" if dataset.task == sources.SEGMENTATION else "paper"
        raise ValueError(
            f"{row.name} is for {row.network.task}, and {dataset.name} for "
            f"{dataset.task}; choose a model such as {zoo.names(group=group)[0]}"
        )
    model = zoo.build(
        config["model"],
        num_classes=dataset.num_classes,
        dtype=DTYPES[dtype],
        **given,
    )
    # Tracing finds fields that do not fit each other, at no cost.
    abstract_variables(model, image_size=dataset.image_size)
    return model


def model_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `MODEL_FIELDS` that a config gives, with their values.

    Args:
      config: A config; fields that are None are left out.
    """
    # Flax modules must be hashable, so lists of JSON and of configs become tuples.
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name in MODEL_FIELDS
        if (value := config.get(name)) is not None
    }


def abstract_variables(
    model: Network, *, image_size: int | tuple[int, int]
) -> dict[str, Any]:
    """Returns shapes and types of a network's variables, without computing them.

    Args:
      model: The network.
      image_size: Height and width of its images, in pixels; one number where they are
        equal.

    Returns:
      `{"params", "batch_stats"}` of `jax.ShapeDtypeStruct`. Numbers are float32 also
      where 64-bit types are on in this process.
    """
    shape = (1, *sources.height_and_width(image_size), 3)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    with jax.enable_x64(False):
        shapes = dict(jax.eval_shape(model.init, random_bits.key(0), images))
    return {"batch_stats": {}, **shapes}
