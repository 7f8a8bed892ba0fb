"""Weights of the classes of a segmentation set, by how many pixels they have."""

from collections.abc import Sequence

import numpy as np

from spatial_smoothing.data.batches import VOID
from spatial_smoothing.data.segmentation.sets import SegmentationDataset
from spatial_smoothing.runtime import progress


def median_frequency(counts: Sequence[int]) -> tuple[float, ...]:
    """Returns the weight of each class: the median of all frequencies by its own.

    Args:
      counts: Number of pixels of each class, K numbers.

    Returns:
      K weights. A class without pixels has the weight 1 and no part in the median.

    Raises:
      ValueError: No class has a pixel.

    Source: Eigen & Fergus, ICCV 2015, as the code of temporal smoothing has it: the
    frequency of a class is its share of all pixels.
    """
    counts = np.asarray(counts, np.float64)
    there = counts > 0
    if not there.any():
        raise ValueError("no pixel of the training images has a class: all are void")
    median = np.median(counts[there])
    return tuple(np.where(there, median / np.where(there, counts, 1), 1.0).tolist())


def count_pixels(dataset: SegmentationDataset, *, num_classes: int) -> np.ndarray:
    """Returns the number of pixels of each class, i64[K].

    Args:
      dataset: A segmentation set; images that are not in memory are all decoded.
      num_classes: K.
    """
    total = np.zeros(VOID + 1, np.int64)
    positions = progress.track(
        range(dataset.num_examples),
        total=dataset.num_examples,
        name="counting the pixels of each class",
    )
    for position in positions:
        label = dataset.label(position)
        total += np.bincount(label.ravel(), minlength=len(total))
    return total[:num_classes]
