"""Reads CIFAR-10 and CIFAR-100, which TFDS or `prepare_cifar` prepared, into memory.

Contract of this file: examples have the order of TFDS. A split is decoded once and kept
in the cache on the disk (see `runtime/cache.py`).
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from etils import epath

from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.data.tfds import prepared
from spatial_smoothing.runtime import cache, paths, progress

_BATCH_SIZE = 256  # records read at once
_REMEDY = (
    "pass --config.data_dir=DIR with the directory of TFDS, or --config.download=True "
    "to prepare {name} there"
)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """What the images and labels of a data set must be.

    Attributes:
      name: Name of the data set.
      image_size: Height and width of its images, in pixels.
      num_classes: K; labels are in [0, K).
    """

    name: str
    image_size: int
    num_classes: int


def read_cifar(
    name: str,
    split: str,
    *,
    image_size: int,
    num_classes: int,
    data_dir: epath.PathLike | None = None,
    download: bool = False,
) -> Dataset:
    """Reads a split from the directory of TFDS, or from the cache.

    Args:
      name: "cifar10" or "cifar100".
      split: "train" or "test".
      image_size: Height and width that images must have, in pixels.
      num_classes: K; data with another number of classes are refused.
      data_dir: Directory of TFDS, which holds NAME/VERSION; None for TFDS's default.
      download: Whether to download and prepare the data set where there is none.

    Returns:
      Images u8[N, image_size, image_size, 3], RGB, and labels i32[N] in [0, K).

    Raises:
      ValueError: The data are absent or damaged, or cannot be downloaded.
    """
    layout = _Layout(name, image_size, num_classes)
    root = prepared.root(data_dir)
    folder = prepared.find(root, name)
    if folder is None:
        if not download:
            raise prepared.nothing_prepared(root, name, _REMEDY.format(name=name))
        # Imported here, because it imports TFDS, which takes long.
        from spatial_smoothing.data.tfds import prepare_cifar

        folder = prepare_cifar.prepare(name, root)
    # Names, sizes and times of the files: data that were prepared anew are read anew.
    files = sorted([p.name, *paths.stamp(p)] for p in folder.iterdir())

    def make() -> Dataset:
        with prepared.local_copy(folder, split) as copy:
            return _read(layout, copy, split)

    return Dataset(*cache.cached(f"{name}-{split}", [str(folder), files], make))


def _read(layout: _Layout, folder: epath.Path, split: str) -> Dataset:
    """Reads and decodes all records of a split, in the order of TFDS."""
    num_classes, size = layout.num_classes, layout.image_size
    records, shards = prepared.open_split(folder, split, num_classes=num_classes)
    count = sum(length for _, length in shards)
    images = np.empty((count, size, size, 3), np.uint8)
    labels = np.empty(count, np.int32)
    parts = [
        (path, start, min(start + _BATCH_SIZE, end))
        for path, begin, end in _ranges(shards)
        for start in range(begin, end, _BATCH_SIZE)
    ]
    name = f"decoding {layout.name} {split}"
    for path, start, stop in progress.track(parts, total=len(parts), name=name):
        try:
            _decode(records, slice(start, stop), images, labels)
        except Exception as error:  # from the file, its records or their images
            raise prepared.unreadable(path, error) from error
    if np.any((labels < 0) | (labels >= num_classes)):
        raise ValueError(f"{folder} has labels outside 0 to {num_classes - 1}")
    return Dataset(images, labels)


def _ranges(
    shards: Sequence[tuple[epath.Path, int]],
) -> Iterator[tuple[epath.Path, int, int]]:
    """Yields the path of each file, and the range of examples that it holds."""
    end = 0
    for path, length in shards:
        begin, end = end, end + length
        yield path, begin, end


def _decode(
    records: Sequence[Mapping], part: slice, images: np.ndarray, labels: np.ndarray
) -> None:
    """Decodes some of the records into the same rows of the arrays.

    Args:
      records: All N records of the split.
      part: Range of the records to decode.
      images: u8[N, H, W, 3], written to.
      labels: i32[N], written to.
    """
    examples = records.__getitems__(list(range(part.start, part.stop)))
    batch = np.stack([example["image"] for example in examples])
    if batch.shape[1:] != images.shape[1:] or batch.dtype != images.dtype:
        raise ValueError(
            f"images of {batch.dtype}{list(batch.shape[1:])}, "
            f"not {images.dtype}{list(images.shape[1:])}"
        )
    images[part] = batch
    labels[part] = [example["label"] for example in examples]
