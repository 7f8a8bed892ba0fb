"""Data sets that their own files describe: `tfds:NAME`, `npz:FILE` and `hf:NAME`.

`OPENERS` is the table of these kinds. Each kind has a reader, which returns an
`ImageSet`; a `Source` is made of it here, in the same way for all of them.
"""

import dataclasses
from collections.abc import Callable

from etils import epath

from spatial_smoothing.data import image_sets, statistics
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.data.huggingface import open_hub
from spatial_smoothing.data.image_sets import ImageSet
from spatial_smoothing.data.images.pipeline import EncodedDataset
from spatial_smoothing.data.npz import open_npz
from spatial_smoothing.data.source import HF, NPZ, TFDS, Given, Source
from spatial_smoothing.data.tfds.read_set import open_tfds
from spatial_smoothing.lookup import lookup

# Prefix of a name -> function of the rest of the name and the directory of TFDS.
OPENERS: dict[str, Callable[[str, epath.PathLike | None], ImageSet]] = {
    TFDS: lambda place, data_dir: open_tfds(place, data_dir=data_dir),
    NPZ: lambda place, data_dir: open_npz(place),
    HF: lambda place, data_dir: open_hub(place),
}
_LARGE_SIZE = 224  # pixels to which images of many sizes are cropped
# What a run keeps of such a set.
_FACTS = ("class_names", "image_size", "mean", "std", "in_memory")


def open_set(name: str, *, data_dir: epath.PathLike | None = None) -> ImageSet:
    """Opens a data set of a kind that is described by its own files.

    Args:
      name: "tfds:NAME", "npz:FILE" or "hf:NAME".
      data_dir: Directory of TFDS; None for TFDS's default.

    Raises:
      ValueError: There is no such data set, or it cannot be read.
    """
    prefix = f"{name.partition(':')[0]}:"
    place = name.removeprefix(prefix)
    if not place:
        raise ValueError(f"{prefix} has no name; give {prefix}NAME")
    return lookup(OPENERS, prefix, "kind of data set")(place, data_dir)


def described_source(name: str, given: Given) -> Source:
    """Returns a data set that its own files describe, by what is given or found.

    Args:
      name: "tfds:NAME", "npz:FILE" or "hf:NAME".
      given: What is known of it; the data tell the rest.

    Raises:
      ValueError: There is no such data set, or it cannot be read.
    """
    facts = {fact: getattr(given, fact) for fact in _FACTS}
    data_dir = given.data_dir
    found = None
    if any(value is None for value in facts.values()):
        found = open_set(name, data_dir=data_dir)
        facts["class_names"] = facts["class_names"] or found.class_names
        native, wanted = found.image_size, facts["image_size"]
        if facts["in_memory"] is None:
            small = native is not None and native <= image_sets.MAX_SIZE_IN_MEMORY
            facts["in_memory"] = small and wanted in (None, native)
        facts["image_size"] = wanted or native or _LARGE_SIZE
    if facts["image_size"] < 1:
        raise ValueError(f"image_size must be at least 1, got {facts['image_size']}")
    in_memory = facts["in_memory"]
    spec = Source(
        name=name,
        num_classes=len(facts["class_names"]),
        image_size=facts["image_size"],
        # Replaced below: computing them takes a source to load the images of.
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        stem="cifar" if in_memory else "imagenet",
        loader=_load_set,
        class_names=tuple(facts["class_names"]),
        splits=None,
        augments_on_host=not in_memory,
        in_memory=in_memory,
        kept=_FACTS,
    )
    mean, std = facts["mean"], facts["std"]
    if mean is None or std is None:
        split = found.native_split("train")
        own_mean, own_std = statistics.cached_mean_and_std(
            _load_set(spec, split, data_dir=data_dir),
            label="statistics",
            key=[name, spec.image_size, in_memory, found.version(split)],
        )
        mean, std = mean or own_mean, std or own_std
    return dataclasses.replace(spec, mean=tuple(mean), std=tuple(std))


def _load_set(
    spec: Source, split: str, *, data_dir: epath.PathLike | None = None, **_
) -> AnyDataset:
    found = open_set(spec.name, data_dir=data_dir)
    if found.class_names != spec.class_names:
        raise ValueError(
            f"{found.name} has other classes ({len(found.class_names)}) than those "
            f"trained on ({spec.num_classes}); give the data that were trained on"
        )
    split = found.native_split(split)
    records = found.open(split)
    if not len(records):
        raise ValueError(f"the split {split} of {found.name} has no images")
    dataset = EncodedDataset(
        records, spec.image_size, resize=spec.resize or spec.image_size
    )
    if spec.augments_on_host:
        return dataset
    key = [spec.image_size, found.version(split)]
    return image_sets.in_memory(dataset, label=f"{spec.name}-{split}", key=key)
