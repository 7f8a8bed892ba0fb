"""Reassessed labels of ImageNet (ReaL): every label that is right for an image.

The file `real.json` has a list of labels for each validation image, in the order of the
numbers in their file names, ILSVRC2012_val_00000001.JPEG and so on. Images without any
label are left out.

Source: Beyer et al., "Are we done with ImageNet?", 2020.
"""

import dataclasses
import json
import re
from typing import NamedTuple

import numpy as np
from etils import epath

from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.data.images.decoding import Content
from spatial_smoothing.data.images.pipeline import EncodedDataset, Records
from spatial_smoothing.runtime import paths, progress

_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\b")
_LAYOUT = "expected a list with a list of labels for each validation image of ImageNet"


class Reassessed(NamedTuple):
    """Images that have one right label or several.

    Attributes:
      dataset: The images that have any. Labels are rows of `label_sets`.
      label_sets: bool[R, K], which of the K labels each of R sets of labels has.
    """

    dataset: AnyDataset
    label_sets: np.ndarray


@dataclasses.dataclass(frozen=True)
class NumberedRecords:
    """Images under other labels, by the number of the record.

    Attributes:
      records: The images.
      labels: i32[N], label of each record.
    """

    records: Records
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.records)

    def read(self, number: int) -> tuple[Content, int]:
        """Returns content and new label of an image."""
        return self.records.read(number)[0], int(self.labels[number])

    def describe(self, number: int) -> str:
        """Returns where an image is, for messages."""
        return self.records.describe(number)


def reassess(
    dataset: AnyDataset, path: epath.PathLike, *, num_classes: int
) -> Reassessed:
    """Gives validation images of ImageNet the labels of a file.

    Args:
      dataset: Images whose files have the names of ImageNet's validation images.
      path: The file `real.json`.
      num_classes: K, number of classes.

    Raises:
      ValueError: The file is not there or holds something else, or the images are not
        those of ImageNet.
    """
    labels = _read(paths.absolute(path), num_classes)
    file_name = getattr(getattr(dataset, "records", None), "file_name", None)
    if not isinstance(dataset, EncodedDataset) or file_name is None:
        raise ValueError(
            f"{path} is for the validation images of ImageNet, in their own files or "
            "those of TFDS"
        )
    sets: dict[tuple[int, ...], int] = {}
    set_of = np.zeros(len(dataset.records), np.int32)
    kept = []
    positions = progress.track(
        range(dataset.num_examples), total=dataset.num_examples, name="reading names"
    )
    for position in positions:
        number = dataset.record_number(position)
        found = labels[_index(file_name(number), len(labels))]
        if found:
            set_of[number] = sets.setdefault(found, len(sets))
            kept.append(position)
    if not kept:
        raise ValueError(f"{path} has no label for any of these images")
    label_sets = np.zeros((len(sets), num_classes), bool)
    for each, row in sets.items():
        label_sets[row, list(each)] = True
    records = NumberedRecords(dataset.records, set_of)
    chosen = dataclasses.replace(dataset.subset(np.array(kept)), records=records)
    return Reassessed(chosen, label_sets)


def _read(path: epath.Path, num_classes: int) -> list[tuple[int, ...]]:
    """Returns the labels of each validation image, sorted."""
    if not path.is_file():
        raise ValueError(f"no file {path}; {_LAYOUT}")
    try:
        held = json.loads(path.read_text())
        labels = [tuple(sorted({*map(int, each)})) for each in held]
    except (ValueError, TypeError):
        raise ValueError(f"{path} holds something else; {_LAYOUT}") from None
    wrong = [
        each for each in labels if each and not 0 <= each[0] <= each[-1] < num_classes
    ]
    if wrong:
        raise ValueError(
            f"{path} has labels outside 0 to {num_classes - 1}: {wrong[0]}"
        )
    return labels


def _index(name: str, count: int) -> int:
    """Returns the position of an image in the file, from the name of the image's."""
    match = _NUMBER.search(name)
    if match is None or not 1 <= int(match[1]) <= count:
        raise ValueError(
            f"{name} is not one of the {count} validation images of ImageNet, whose "
            "files are called ILSVRC2012_val_00000001.JPEG and so on"
        )
    return int(match[1]) - 1
