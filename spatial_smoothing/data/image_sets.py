"""Image classification sets of any origin: what each reader of such sets returns.

Contract of this file: an `ImageSet` is what is known of a set before images are read.
Its images are records, encoded or decoded, which `EncodedDataset` crops and resizes.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.data.images.pipeline import EncodedDataset, Records
from spatial_smoothing.lookup import unknown
from spatial_smoothing.runtime import cache, progress

# Images of at most so many pixels in height and width are decoded once, into memory.
MAX_SIZE_IN_MEMORY = 64
# Which splits of a set stand for ours, in order of preference.
_STAND_FOR = {
    "train": ("training",),
    "val": ("validation", "valid", "dev"),
    "test": ("validation", "val", "valid"),
}
_BATCH_SIZE = 256  # images that are decoded together


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """An image classification set, as it is found on the disk.

    Attributes:
      name: Name of the set, for messages.
      class_names: Names of the K classes, in the order of their labels.
      splits: Names of the splits.
      image_size: Height and width in pixels, where all images are squares of one size;
        None where they are not.
      open: Called as `open(split, labelled=...)`, returns the records of a split. With
        `labelled=False` labels are not read, and all are 0.
      version: Called as `version(split)`, returns values for JSON that change when the
        files do.
    """

    name: str
    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    image_size: int | None
    open: Callable[..., Records]
    version: Callable[[str], Sequence[object]]

    def native_split(self, split: str) -> str:
        """Returns the name that a split has in this set.

        Args:
          split: "train", "val", "test", or the name of a split of this set.

        Raises:
          ValueError: The set has no such split.
        """
        for name in (split, *_STAND_FOR.get(split, ())):
            if name in self.splits:
                return name
        error = unknown("split", split, self.splits)
        raise ValueError(f"{self.name}: {error}")


@dataclasses.dataclass(frozen=True)
class ArrayRecords:
    """Decoded images and their labels, by number.

    Attributes:
      images: u8[N, H, W, 3], or u8[N, H, W] where images are grey.
      labels: i32[N].
      name: What the images are, for messages.
    """

    images: np.ndarray
    labels: np.ndarray
    name: str

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, number: int) -> tuple[np.ndarray, int]:
        """Returns pixels and label of an image."""
        return self.images[number], int(self.labels[number])

    def describe(self, number: int) -> str:
        """Returns the number of an image and where it comes from."""
        return f"image {number} of {self.name}"


@dataclasses.dataclass(frozen=True)
class UnlabelledRecords:
    """Images whose labels mean nothing to a network; each label is 0.

    Attributes:
      records: The images, with labels of any kind.
    """

    records: Records

    def __len__(self) -> int:
        return len(self.records)

    def read(self, number: int) -> tuple[bytes | np.ndarray, int]:
        """Returns the content of an image, and the label 0."""
        return self.records.read(number)[0], 0

    def describe(self, number: int) -> str:
        """Returns where an image is, for messages."""
        return self.records.describe(number)


def in_memory(dataset: EncodedDataset, *, label: str, key: Sequence[object]) -> Dataset:
    """Decodes all images of a data set, or takes them from the cache on the disk.

    Args:
      dataset: The images; each is decoded as it is evaluated, without a random crop.
      label: What the cache calls the images, such as "tfds-svhn_cropped-train".
      key: Everything that the images depend on, as values for JSON.
    """

    def make() -> tuple[np.ndarray, np.ndarray]:
        count = dataset.num_examples
        images = np.empty((count, *dataset.image_shape), np.uint8)
        labels = np.empty(count, np.int32)
        data = dataset.batches(_BATCH_SIZE)
        total = -(-count // _BATCH_SIZE)
        parts = progress.track(data, total=total, name=f"decoding {label}")
        for number, batch in enumerate(parts):
            rows = slice(number * _BATCH_SIZE, min((number + 1) * _BATCH_SIZE, count))
            images[rows] = batch["image"][batch["mask"]]
            labels[rows] = batch["label"][batch["mask"]]
        return images, labels

    safe = "".join(letter if letter.isalnum() else "-" for letter in label)[-60:]
    return Dataset(*cache.cached(safe.strip("-"), list(key), make))
