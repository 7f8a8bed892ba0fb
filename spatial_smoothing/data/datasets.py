"""Data sets: decoded in host memory, or encoded and decoded when they are needed.

Contract of this file: all kinds, that of `segmentation.sets` too, have `num_examples`,
`image_shape`, `labels`, `checksum()`, `subset(rows)` and `batches(batch_size)`, which
yields all examples in order as the batches of `batches`.
"""

import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from spatial_smoothing.data import batches
from spatial_smoothing.data.images.pipeline import EncodedDataset
from spatial_smoothing.data.segmentation.sets import SegmentationDataset


class Dataset(NamedTuple):
    """Images uint8[N, H, W, C] and their labels int32[N], in host memory."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """H, W, C."""
        return self.images.shape[1:]

    @property
    def label_shape(self) -> tuple[int, ...]:
        """(): a label is one class."""
        return ()

    def checksum(self) -> str:
        """Returns a short text that differs where data sets do."""
        value = zlib.crc32(self.labels, zlib.crc32(np.ascontiguousarray(self.images)))
        return f"{self.num_examples} examples with checksum {value:08x}"

    def subset(self, rows: np.ndarray) -> "Dataset":
        """Returns some of the examples.

        Args:
          rows: i64[n], their positions in this data set; or a mask, bool[N].
        """
        return Dataset(self.images[rows], self.labels[rows])

    def batches(
        self, batch_size: int, *, rows: Sequence[int] | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields all examples in order; the last batch is padded.

        Args:
          batch_size: B, number of examples of a batch.
          rows: Positions in [0, B) of the examples of every batch that are wanted; None
            for all.
        """
        for batch in batches.sequential(*self, batch_size=batch_size):
            yield batch if rows is None else {k: v[rows] for k, v in batch.items()}


AnyDataset = Dataset | EncodedDataset | SegmentationDataset


@dataclasses.dataclass(frozen=True)
class DatasetShape:
    """What a step has to know of a data set to be compiled: no image, and no label.

    Attributes:
      num_examples: N.
      image_shape: H, W, C.
      in_memory: Whether the examples are decoded, and held in memory.
      label_shape: () where a label is a class, (H, W) where it has one for every pixel.
    """

    num_examples: int
    image_shape: tuple[int, ...]
    in_memory: bool
    label_shape: tuple[int, ...] = ()

    def subset(self, rows: np.ndarray) -> "DatasetShape":
        """Returns the shape of some of the examples.

        Args:
          rows: i64[n], their positions in this data set; or a mask, bool[N].
        """
        is_mask = rows.dtype == bool
        count = int(rows.sum()) if is_mask else len(rows)
        return dataclasses.replace(self, num_examples=count)


Some = TypeVar("Some", Dataset, EncodedDataset, SegmentationDataset, DatasetShape)


def hold_out(dataset: Some, *, fraction: float, seed: int = 0) -> tuple[Some, Some]:
    """Splits a data set at random into a part to train on and a part to validate on.

    Of segmentation sets whole videos are held out, so that there may be more examples
    than the fraction says.

    Args:
      dataset: A data set, in memory or not, or the shape of one.
      fraction: Share of the examples to hold out, in [0, 1).
      seed: Seed of the choice. It is not that of a run, so that no member of a deep
        ensemble has seen what another holds out.

    Returns:
      The part to train on, and the part held out.

    Raises:
      ValueError: The fraction is not in [0, 1), or it is positive and leaves one part
        without examples.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"val_fraction must be in [0, 1), got {fraction}")
    size = dataset.num_examples
    count = round(fraction * size)
    if fraction and count in (0, size):
        part = "trained on" if count else "held out"
        raise ValueError(
            f"of {size} images, val_fraction {fraction} leaves none to be {part}"
        )
    held = np.zeros(size, bool)
    if isinstance(dataset, SegmentationDataset):
        held[_whole_videos(dataset, count, seed)] = True
    else:
        order = np.random.default_rng(seed).permutation(size)
        held[order[:count]] = True
    if fraction and held.all():
        raise ValueError(
            f"val_fraction {fraction} holds out all videos, of which there are too few"
        )
    return dataset.subset(~held), dataset.subset(held)


def _whole_videos(dataset: SegmentationDataset, count: int, seed: int) -> np.ndarray:
    """Draws examples until there are `count`, all those of a video together.

    The frames of a video resemble each other: a network that was trained on some of
    them is not validated by the others.

    Returns:
      Their positions in the data set, i64[n] with n of at least `count`.
    """
    videos = dataset.frames.sequences[dataset.rows]
    order = np.random.default_rng(seed).permutation(np.unique(videos))
    chosen = np.zeros(0, np.int64)
    for video in order:
        if len(chosen) >= count:
            break
        chosen = np.concatenate([chosen, np.flatnonzero(videos == video)])
    return chosen


def some(dataset: AnyDataset, count: int, *, seed: int = 0) -> AnyDataset:
    """Returns examples of a data set that are chosen at random, in their order.

    Args:
      dataset: A data set, in memory or not.
      count: How many; 0, or more than there are, for all.
      seed: Seed of the choice, see `choose`.
    """
    chosen = choose(dataset.num_examples, count, seed=seed)
    return dataset if len(chosen) == dataset.num_examples else dataset.subset(chosen)


def choose(num_examples: int, count: int, *, seed: int = 0) -> np.ndarray:
    """Chooses numbers of examples at random.

    Args:
      num_examples: N; numbers are chosen from 0 to N - 1.
      count: How many; 0, or N and more, for all. A smaller count chooses some of the
        numbers that a larger one chooses.
      seed: Seed of the choice.

    Returns:
      i64[count], increasing.

    Raises:
      ValueError: The count is negative.
    """
    if count < 0:
        raise ValueError(f"num_images must be at least 0 (all), got {count}")
    order = np.random.default_rng(seed).permutation(num_examples)
    return np.sort(order[: count or None])
