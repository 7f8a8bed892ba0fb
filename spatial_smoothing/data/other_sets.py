"""Data sets that a network was not trained on, as images of the network's own size.

They are for out-of-distribution detection: labels mean nothing to the network, and all
are 0.
"""

import numpy as np
from etils import epath

from spatial_smoothing.data import file_names, sources, subsets
from spatial_smoothing.data.datasets import AnyDataset, Dataset
from spatial_smoothing.data.image_sets import ArrayRecords, UnlabelledRecords
from spatial_smoothing.data.images import lists
from spatial_smoothing.data.images.pipeline import EncodedDataset, Records
from spatial_smoothing.data.sources import Source
from spatial_smoothing.runtime import paths

_TEST_FOLDERS = ("test", "val")


def load_other(
    spec: str,
    split: str,
    *,
    own: Source,
    data_dir: epath.PathLike | None = None,
    download: bool = False,
    num_workers: int = 0,
) -> AnyDataset:
    """Loads the images of a data set for a network that was trained on another.

    Args:
      spec: Name of the data set: one of `sources.names()`, "tfds:NAME", "npz:FILE",
        "hf:NAME", "list:FILE" (see `images/lists.py`), or "folder:PATH" with test/,
        val/, or images at any depth. A name alone that is none of these is TFDS's. It
        may end with a subset, as in "cifar10[:500]".
      split: Name of the split, which may end with a subset too. Lists, and folders
        without test/ and val/, have one split, whatever it is called.
      own: The data set that the network was trained on, to whose size images are
        resized: the shorter side, then the centre.
      data_dir: Directory of TFDS; None for TFDS's default.
      download: Whether to prepare CIFAR where it is not there.
      num_workers: Number of processes that decode; 0 for threads of this process.

    Returns:
      The images with the labels 0: in memory where they need no resizing and are there
      already, else decoded when they are needed.

    Raises:
      ValueError: There is no such data set or split, or the data are absent, empty or
        damaged.
    """
    name, subset = subsets.split_name(spec)
    split, subset_of_split = subsets.split_name(split)
    found = _open(name, split, data_dir=data_dir, download=download)
    if isinstance(found, Dataset):
        size = own.image_size
        labels = np.zeros(found.num_examples, np.int32)
        if not own.augments_on_host and found.image_shape == (size, size, 3):
            dataset = Dataset(found.images, labels)
        else:
            records = ArrayRecords(found.images, labels, f"{split} of {name}")
            dataset = _encoded(records, own, num_workers)
    else:
        # Photographs in a folder may be turned; OpenOOD and TFDS take pixels as stored.
        upright = name.startswith(sources.FOLDER)
        dataset = _encoded(found, own, num_workers, upright=upright)
    for each in (subset_of_split, subset):
        if each is not None:
            dataset = dataset.subset(each.rows(dataset.num_examples))
    return dataset


def _open(
    name: str, split: str, *, data_dir: epath.PathLike | None, download: bool
) -> Dataset | Records:
    """Returns a data set in memory, or the records of one that is not."""
    if name.startswith(sources.LIST):
        return lists.read_list(name.removeprefix(sources.LIST))
    if name.startswith(sources.FOLDER):
        root = paths.absolute(name.removeprefix(sources.FOLDER))
        if not name.removeprefix(sources.FOLDER):
            raise ValueError("folder: has no path; give folder:PATH")
        file_names.check_text(root)
        choices = _TEST_FOLDERS if split == "test" else (split,)
        there = [root / choice for choice in choices if (root / choice).is_dir()]
        return lists.images_below(there[0] if there else root)
    if name.startswith(sources.MASKS) or (
        name in sources.SOURCES and sources.SOURCES[name].task != sources.CLASSIFICATION
    ):
        raise ValueError(
            f"{name} is a set for segmentation, which other networks are not tested on"
        )
    if name in sources.SOURCES:
        dataset = sources.load(name, split, data_dir=data_dir, download=download)
        if isinstance(dataset, Dataset):
            return dataset
        return UnlabelledRecords(dataset.records)
    if ":" not in name:
        name = f"{sources.TFDS}{name}"
    found = sources.open_set(name, data_dir=data_dir)
    # A set with one split is tested on that, whatever it is called.
    is_only = len(found.splits) == 1 and split == "test"
    split = found.splits[0] if is_only else found.native_split(split)
    return found.open(split, labelled=False)


def _encoded(
    records: Records, own: Source, num_workers: int, *, upright: bool = False
) -> EncodedDataset:
    """Returns images that are resized as the network's own are."""
    return EncodedDataset(
        records,
        own.image_size,
        resize=own.resize or own.image_size,
        upright=upright,
        num_workers=num_workers,
    )


def located(name: str) -> str:
    """Returns the name of a data set with an absolute path, where it has a path.

    Args:
      name: Name of a data set, with a subset or without.
    """
    prefixes = (sources.FOLDER, sources.NPZ, sources.HF, sources.LIST, sources.MASKS)
    for prefix in prefixes:
        place = name.removeprefix(prefix)
        if place == name:
            continue
        # Names of the Hugging Face Hub look like paths, but are not there.
        if prefix == sources.HF and not paths.absolute(_path(place)).exists():
            return name
        return f"{prefix}{paths.absolute(place)}"
    return name


def _path(place: str) -> str:
    return place.partition("#")[0]


def is_same(name: str, other: str) -> bool:
    """Returns whether two names are of one data set, of which subsets may be taken.

    Args:
      name: Name of a data set, with a subset or without.
      other: Name of another one. Paths may be relative, or lead through links.
    """
    name, other = (subsets.split_name(each)[0] for each in (name, other))
    if name == other:
        return True
    for prefix in (sources.FOLDER, sources.NPZ, sources.LIST, sources.MASKS):
        if name.startswith(prefix) and other.startswith(prefix):
            return paths.is_same(name.removeprefix(prefix), other.removeprefix(prefix))
    # "svhn_cropped" is "tfds:svhn_cropped", and "cifar10" is "tfds:cifar10".
    return _tfds_name(name) == _tfds_name(other)


def _tfds_name(name: str) -> str:
    name = name.removeprefix(sources.TFDS).partition("#")[0]
    return sources.TFDS_NAMES.get(name, name)
