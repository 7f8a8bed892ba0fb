"""Data sets with other images of the classes that a network knows, or of some of them.

ImageNet-A, -R, -V2 and -Sketch are such sets for ImageNet. Classes are told by their
names. Where a set has some of the classes only, as ImageNet-A and -R have 200 of 1000,
labels are numbers among these, and the logits of the others are to be left out.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from spatial_smoothing.data import file_names, sources, subsets
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.data.image_sets import ArrayRecords
from spatial_smoothing.data.images import folders, lists
from spatial_smoothing.data.images.decoding import Content
from spatial_smoothing.data.images.pipeline import EncodedDataset, Records
from spatial_smoothing.data.sources import Source
from spatial_smoothing.runtime import paths, progress

_TEST_FOLDERS = ("test", "val")


class LabelledSet(NamedTuple):
    """Images of classes that a network knows.

    Attributes:
      dataset: The images, resized as the network's own are. Labels are positions in
        `classes`.
      classes: Numbers of the network's classes that the whole split has, increasing.
    """

    dataset: AnyDataset
    classes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class RelabelledRecords:
    """Images under other labels.

    Attributes:
      records: The images and their labels.
      labels: Label of a record -> the label that it gets, i32[K].
    """

    records: Records
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.records)

    def read(self, number: int) -> tuple[Content, int]:
        """Returns content and new label of an image."""
        content, label = self.records.read(number)
        return content, int(self.labels[label])

    def describe(self, number: int) -> str:
        """Returns where an image is, for messages."""
        return self.records.describe(number)


def load_labelled(
    spec: str,
    split: str,
    *,
    own: Source,
    class_names: Sequence[str] | None,
    data_dir: epath.PathLike | None = None,
    num_workers: int = 0,
) -> LabelledSet:
    """Loads images of classes that a network knows.

    Args:
      spec: Name of the data set: "tfds:NAME", "npz:FILE", "hf:NAME", "list:FILE" (whose
        labels are the network's), or "folder:PATH" with test/CLASS/*.jpg,
        val/CLASS/*.jpg or CLASS/*.jpg. It may end with a subset.
      split: Name of the split, which may end with a subset too.
      own: The data set that the network was trained on.
      class_names: Names of the network's classes, in the order of their labels; None
        where nobody knows them. Where all classes are called by their numbers, these
        count. A set of as many classes is taken to have the same, unless names that
        it shares with the network are those of other labels, or, where the names are
        known, it is a folder with other names.
      data_dir: Directory of TFDS; None for TFDS's default.
      num_workers: Number of processes that decode; 0 for threads of this process.

    Raises:
      ValueError: There is no such data set or split, or it has classes that the network
        does not know.
    """
    name, subset = subsets.split_name(spec)
    split, subset_of_split = subsets.split_name(split)
    if ":" not in name and name not in sources.SOURCES:
        name = f"{sources.TFDS}{name}"
    records, found = _open(name, split, own=own, data_dir=data_dir)
    numbers = _numbers(name, found, class_names, own.num_classes)
    with progress.status(f"reading the labels of {name}"):
        present = np.unique(numbers[_labels(records)])
    positions = np.full(own.num_classes, -1, np.int32)
    positions[present] = np.arange(len(present))
    dataset: AnyDataset = EncodedDataset(
        RelabelledRecords(records, positions[numbers]),
        own.image_size,
        resize=own.resize or own.image_size,
        upright=name.startswith(sources.FOLDER),
        num_workers=num_workers,
    )
    for each in (subset_of_split, subset):
        if each is not None:
            dataset = dataset.subset(each.rows(dataset.num_examples))
    return LabelledSet(dataset, tuple(map(int, present)))


def _open(
    name: str, split: str, *, own: Source, data_dir: epath.PathLike | None
) -> tuple[Records, Sequence[str] | None]:
    """Returns images and their labels, and the names of the classes.

    The names are None where labels are the network's.
    """
    if name.startswith(sources.LIST):
        place = name.removeprefix(sources.LIST)
        return lists.read_list(place, num_classes=own.num_classes), None
    if name.startswith(sources.FOLDER):
        root = paths.absolute(name.removeprefix(sources.FOLDER))
        if not root.is_dir():
            raise ValueError(f"no folder {root}; expected CLASS/*.jpg below it")
        file_names.check_text(root)
        choices = _TEST_FOLDERS if split == "test" else (split,)
        there = [root / choice for choice in choices if (root / choice).is_dir()]
        folder = there[0] if there else root
        names = folders.class_folders(folder)
        return folders.list_classes(folder, names, may_be_empty=True), names
    if name in sources.SOURCES:
        raise ValueError(
            f"{name} is a data set to train on; evaluate a run that was trained on it, "
            "or give one of tfds:NAME, npz:FILE, hf:NAME, list:FILE, folder:PATH"
        )
    opened = sources.open_set(name, data_dir=data_dir)
    is_only = len(opened.splits) == 1 and split == "test"
    split = opened.splits[0] if is_only else opened.native_split(split)
    return opened.open(split), opened.class_names


def _numbers(
    name: str,
    found: Sequence[str] | None,
    known: Sequence[str] | None,
    num_classes: int,
) -> np.ndarray:
    """Returns the network's number of each class of a set, i64[K].

    Args:
      name: Name of the set, for messages.
      found: Names of the classes of the set; None where they are the network's.
      known: Names of the network's classes; None where nobody knows them.
      num_classes: Number of the network's classes.
    """
    if found is None:
        return np.arange(num_classes)
    if known is not None and {*found} <= {*known}:
        number = {each: index for index, each in enumerate(known)}
        return np.array([number[each] for each in found])
    # Folders such as those of ImageNet-V2 are called by numbers: "10" is before "2".
    # Of fewer classes than the network's, numbers may be names, as those of digits are.
    numbers = [int(each) if each.isdecimal() else -1 for each in found]
    if sorted(numbers) == list(range(num_classes)):
        return np.array(numbers)
    if len(found) == num_classes and _have_one_order(name, found, known):
        return np.arange(num_classes)
    unknown = [each for each in found if each not in {*(known or ())}]
    raise ValueError(
        f"{name} has {len(unknown)} classes that the network does not know "
        f"({file_names.listed(unknown)}); call them as the network's classes, or all "
        "by their numbers from 0; for images of other classes, use --ood"
    )


def _have_one_order(
    name: str, found: Sequence[str], known: Sequence[str] | None
) -> bool:
    """Whether the labels of a set can be the network's under other names.

    Args:
      name: Name of the set.
      found: Names of its K classes, some of which the network does not know.
      known: Names of the network's K classes; None where nobody knows them.
    """
    if known is None:
        return True
    # Folders are in the order of their names, which is another one for other names.
    if name.startswith(sources.FOLDER):
        return False
    return all(
        known[label] == each for label, each in enumerate(found) if each in known
    )


def _labels(records: Records) -> np.ndarray:
    """Returns the labels of all records, i64[N]."""
    if isinstance(records, ArrayRecords):
        return np.asarray(records.labels, np.int64)
    if isinstance(records, (folders.FolderRecords, lists.FileRecords)):
        return np.array([label for label, _ in records.files], np.int64)
    numbers = progress.track(
        range(len(records)), total=len(records), name="reading labels"
    )
    return np.array([records.read(number)[1] for number in numbers], np.int64)
