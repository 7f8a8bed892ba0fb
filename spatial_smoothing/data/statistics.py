"""The mean and standard deviation of the pixels of a data set."""

from collections.abc import Sequence

import numpy as np

from spatial_smoothing.data import datasets
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.runtime import cache, progress

# Of images that are decoded when they are needed, so many are drawn.
MAX_DECODED = 2000
_BATCH_SIZE = 256
Channels = tuple[float, float, float]


def cached_mean_and_std(
    dataset: AnyDataset, *, label: str, key: Sequence[object]
) -> tuple[Channels, Channels]:
    """Returns what `mean_and_std` does, computed once and then kept on the disk.

    Args:
      dataset: The training images.
      label: What the cache calls the numbers, such as "statistics-svhn_cropped".
      key: Everything that the images depend on, as values for JSON.
    """
    make = lambda: tuple(np.asarray(value) for value in mean_and_std(dataset))
    mean, std = cache.cached(label, list(key), make)
    return tuple(map(float, mean)), tuple(map(float, std))


def mean_and_std(dataset: AnyDataset) -> tuple[Channels, Channels]:
    """Returns the mean and the standard deviation of each channel, in [0, 1].

    Images in memory count all. Of others, at most `MAX_DECODED` are drawn, and their
    centres count, as they are evaluated.

    Args:
      dataset: The training images, u8[N, H, W, 3] once they are decoded.

    Returns:
      Mean and standard deviation over all pixels of a channel, rounded to 4 digits. A
      channel that is constant has the standard deviation 1.
    """
    if not isinstance(dataset, datasets.Dataset):
        dataset = datasets.some(dataset, MAX_DECODED)
    # Sums of whole numbers are exact, so that they do not depend on the batches.
    count, total, squares = 0, np.zeros(3, np.int64), np.zeros(3, np.int64)
    batches = progress.track(
        dataset.batches(_BATCH_SIZE),
        total=-(-dataset.num_examples // _BATCH_SIZE),
        name="computing mean and standard deviation",
    )
    for batch in batches:
        pixels = batch["image"][batch["mask"]].reshape(-1, 3).astype(np.int64)
        count += len(pixels)
        total += pixels.sum(0)
        squares += (pixels**2).sum(0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0)) / 255
    std = np.where(std == 0, 1.0, std)
    return (
        tuple(round(float(value), 4) for value in mean / 255),
        tuple(max(round(float(value), 4), 1e-4) for value in std),
    )
