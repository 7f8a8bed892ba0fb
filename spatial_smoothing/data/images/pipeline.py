"""The input pipeline of ImageNet and of folders of images.

Such data sets need not fit in memory: batches are read, decoded, cropped and flipped in
threads or worker processes, ahead of the step that takes them; see `numbered_batches`.
"""

import dataclasses
import zlib
from typing import Protocol

import numpy as np

from spatial_smoothing.data.images import decoding
from spatial_smoothing.data.numbered_batches import Batch, BatchPlan, NumberedBatches
from spatial_smoothing.runtime import paths, progress


class Records(Protocol):
    """Images by number, encoded or decoded. Workers get a pickled copy."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> tuple[decoding.Content, int]:
        """Returns content and label of a record."""

    def describe(self, number: int) -> str:
        """Returns where a record is, for messages."""


@dataclasses.dataclass(frozen=True)
class EncodedDataset(NumberedBatches):
    """Encoded images and their labels.

    Attributes:
      records: The images, as contents of files, and their labels.
      size: Height and width to which images are cropped, in pixels.
      rows: i64[N], numbers of the records that belong to the data set, in order; None
        for all records.
      resize: Length in pixels to which the shorter side is resized before the centre is
        taken; None for size * 256 / 224.
      upright: Whether images are turned upright, as their EXIF metadata say.
      augment: Whether training takes random crops and flips, in place of the centre.
      num_workers: Number of processes that read and decode; 0 for threads of this
        process.
    """

    records: Records
    size: int
    rows: np.ndarray | None = None
    resize: int | None = None
    upright: bool = False
    augment: bool = True
    num_workers: int = 0

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self.records if self.rows is None else self.rows)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """H, W, C."""
        return self.size, self.size, 3

    @property
    def label_shape(self) -> tuple[int, ...]:
        """(): a label is one class."""
        return ()

    @property
    def in_memory(self) -> bool:
        """False: images are decoded when they are needed."""
        return False

    @property
    def labels(self) -> np.ndarray:
        """i32[N]; reads every record."""
        positions = progress.track(
            range(self.num_examples), total=self.num_examples, name="reading labels"
        )
        numbers = map(self.record_number, positions)
        return np.array([self.records.read(n)[1] for n in numbers], np.int32)

    def checksum(self) -> str:
        """Returns a short text that differs where data sets do.

        It is made of the number of examples, and of the first, middle and last one.
        """
        count, value = self.num_examples, 0
        for position in sorted({0, count // 2, count - 1}):
            content, label = self.records.read(self.record_number(position))
            value = zlib.crc32(content, value + label)
        return f"{count} examples, some with checksum {value:08x}"

    def record_number(self, position: int) -> int:
        """Returns the number of the record that an example is."""
        return position if self.rows is None else int(self.rows[position])

    def subset(self, rows: np.ndarray) -> "EncodedDataset":
        """Returns some of the examples.

        Args:
          rows: i64[n], their positions in this data set; or a mask, bool[N].
        """
        every = np.arange(len(self.records)) if self.rows is None else self.rows
        return dataclasses.replace(self, rows=every[rows])

    def make_batch(self, plan: BatchPlan) -> Batch:
        """Makes a batch of training, cropped and flipped, or of evaluation, the centre.

        Args:
          plan: The examples of the batch; see `NumberedBatches`.
        """
        images = np.zeros((plan.num_rows, *self.image_shape), np.uint8)
        labels = np.zeros(plan.num_rows, np.int32)
        mask = np.zeros(plan.num_rows, bool)
        for row, position in plan.examples:
            rng = None
            if plan.seed is not None and self.augment:
                rng = np.random.default_rng((plan.seed, plan.epoch, position))
            images[row], labels[row] = _example(self, position, rng)
            mask[row] = True
        return {"image": images, "label": labels, "mask": mask}


def _example(
    dataset: EncodedDataset, position: int, rng: np.random.Generator | None
) -> tuple[np.ndarray, int]:
    """Returns the pixels u8[S, S, 3] and the label of an example.

    Args:
      dataset: The data set.
      position: Position of the example in the data set.
      rng: Generator of the random crop; None for the centre.
    """
    number = dataset.record_number(position)
    options = {"size": dataset.size, "upright": dataset.upright}
    try:
        content, label = dataset.records.read(number)
        if rng is None:
            options["resize"] = dataset.resize
            return decoding.center_crop(content, **options), label
        return decoding.random_crop(content, rng, **options), label
    except Exception as error:  # every decoder and file system raises its own type
        where = dataset.records.describe(number)
        raise ValueError(
            f"cannot read {where}: {paths.first_line(error)}; replace or remove it"
        ) from None
