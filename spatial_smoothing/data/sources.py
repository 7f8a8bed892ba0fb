"""The data sets by name, and how to load one.

Labels are int32 in [0, num_classes). CIFAR is read in the order of TFDS, as
array_record and hence without TensorFlow; `shapes` is made by this package. These come
decoded in host memory, and are cached on disk (see `cache`). ImageNet and folders of
images are decoded as they are needed.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from etils import epath

from spatial_smoothing.data import shapes
from spatial_smoothing.data.datasets import AnyDataset, Dataset
from spatial_smoothing.data.images import folders, image_files
from spatial_smoothing.data.images.pipeline import EncodedDataset
from spatial_smoothing.data.tfds import reader
from spatial_smoothing.lookup import lookup, unknown
from spatial_smoothing.runtime import cache

FOLDER = "folder:"
SPLITS = ("train", "test")
TFDS_NAMES = {"imagenet": "imagenet2012"}  # where they differ
_BATCH_SIZE = 256  # records read at once
_REMEDY = (
    "pass --config.data_dir=DIR with the directory of TFDS, or --config.download=True "
    "to prepare {name} there"
)
_IMAGENET_REMEDY = (
    "pass --config.data_dir=DIR with the directory in which TFDS prepared it: "
    "tfds build imagenet2012 --file_format=array_record"
)


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as it is known before it is loaded.

    Attributes:
      name: Its name in `SOURCES`, or "folder:PATH".
      num_classes: Number of classes.
      image_size: Height and width in pixels.
      mean: Mean of the training images per channel (RGB), images scaled to [0, 1].
      std: Standard deviation of the same.
      stem: Of the networks made for images of this size, "cifar" or "imagenet".
      loader: Called as `loader(source, split, data_dir=..., download=...)`.
      class_names: Of a folder; None where they are found beside the data.
      splits: Of which it has some.
    """

    name: str
    num_classes: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    stem: str
    loader: Callable[..., AnyDataset]
    class_names: tuple[str, ...] | None = None
    splits: tuple[str, ...] = SPLITS

    @property
    def resize(self) -> int | None:
        """Shorter side before the centre is taken, in pixels; None if it is not."""
        if self.augments_on_host:
            return image_files.shorter_side(self.image_size)
        return None

    @property
    def augments_on_host(self) -> bool:
        """Whether images to train on are cropped and flipped as they are decoded."""
        return self.loader in (_load_imagenet, _load_folder)


def names() -> list[str]:
    """Returns the names of the data sets."""
    return list(SOURCES)


def source(
    name: str,
    *,
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Source:
    """Returns the data set of this name.

    Args:
      name: One of `names()`, or "folder:PATH" of a folder with train/CLASS/*.jpg.
      image_size: Height and width to which ImageNet's or a folder's images are
        cropped, in pixels; None for 224.
      class_names: Of a folder's classes, where they are known; None to look.

    Raises:
      ValueError: There is no such data set, or it has images of another size.
    """
    if name.startswith(FOLDER):
        if class_names is None:
            class_names = folders.class_names(name.removeprefix(FOLDER))
        spec = dataclasses.replace(
            SOURCES["imagenet"],
            name=name,
            num_classes=len(class_names),
            loader=_load_folder,
            class_names=tuple(class_names),
            splits=("train", "val", "test"),
        )
    else:
        spec = lookup(SOURCES, name, "data set")
    if image_size in (None, spec.image_size):
        return spec
    if not spec.augments_on_host:
        size = spec.image_size
        raise ValueError(f"images of {name} have {size} pixels, not {image_size}")
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    return dataclasses.replace(spec, image_size=image_size)


def load(
    name: str,
    split: str,
    *,
    data_dir: epath.PathLike | None = None,
    download: bool = False,
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    augment: bool = True,
    num_workers: int = 0,
) -> AnyDataset:
    """Loads a split.

    Args:
      name: As for `source`.
      split: "train" or "test", which of ImageNet is TFDS's "validation"; of a folder
        also "val".
      data_dir: The directory of TFDS, which holds NAME/VERSION; by default its
        own, $TFDS_DATA_DIR or ~/tensorflow_datasets. Not used by `shapes` and folders.
      download: Whether to download and prepare a data set of which the directory holds
        nothing. What is there is never changed.
      image_size: As for `source`.
      class_names: As for `source`.
      augment: Whether to train on random crops, of images that are decoded as they are
        needed; others are augmented on the device.
      num_workers: Processes that decode such images; 0 for threads of this one. What is
        read does not depend on it.

    Raises:
      ValueError: No such data set or split, or the data are absent or damaged.
    """
    spec = source(name, image_size=image_size, class_names=class_names)
    if split not in spec.splits:
        raise unknown("split", split, spec.splits)
    dataset = spec.loader(spec, split, data_dir=data_dir, download=download)
    if isinstance(dataset, EncodedDataset):
        return dataclasses.replace(dataset, augment=augment, num_workers=num_workers)
    return dataset


def _load_shapes(spec: Source, split: str, **_) -> Dataset:
    make = lambda: shapes.generate(split)
    return Dataset(*cache.cached(f"{spec.name}-{split}", [shapes.VERSION], make))


def _load_cifar(
    spec: Source, split: str, *, data_dir: epath.PathLike | None, download: bool
) -> Dataset:
    root = reader.root(data_dir)
    folder = reader.find(root, spec.name)
    if folder is None:
        if not download:
            remedy = _REMEDY.format(name=spec.name)
            raise reader.nothing_prepared(root, spec.name, remedy)
        # Imported here, because TFDS takes longer to import than all else.
        from spatial_smoothing.data.tfds import builders

        folder = builders.prepare(spec.name, root)
    files = sorted((p.name, p.stat().length, p.stat().mtime) for p in folder.iterdir())

    def make() -> Dataset:
        with reader.local_copy(folder, split) as copy:
            return _read(spec, copy, split)

    return Dataset(*cache.cached(f"{spec.name}-{split}", [str(folder), files], make))


def _load_imagenet(
    spec: Source, split: str, *, data_dir: epath.PathLike | None, **_
) -> EncodedDataset:
    name, root = TFDS_NAMES[spec.name], reader.root(data_dir)
    folder = reader.find(root, name)
    if folder is None:
        raise reader.nothing_prepared(root, name, _IMAGENET_REMEDY)
    there = {"train": "train", "test": "validation"}[split]
    records = reader.encoded_records(folder, there, num_classes=spec.num_classes)
    return EncodedDataset(records, spec.image_size)


def _load_folder(spec: Source, split: str, **_) -> EncodedDataset:
    records = folders.records(
        spec.name.removeprefix(FOLDER), split, class_names=spec.class_names
    )
    return EncodedDataset(records, spec.image_size, upright=True)


def _read(spec: Source, folder: epath.Path, split: str) -> Dataset:
    """Reads and decodes all records of a split, in the order of TFDS."""
    records, shards = reader.open_split(folder, split, num_classes=spec.num_classes)
    size, count = spec.image_size, sum(length for _, length in shards)
    images = np.empty((count, size, size, 3), np.uint8)
    labels = np.empty(count, np.int32)
    stop = 0
    for path, length in shards:
        start, stop = stop, stop + length
        try:
            _decode(records, range(start, stop), images, labels)
        except Exception as error:  # the file, its records and their images alike
            raise reader.unreadable(path, error) from error
    if np.any((labels < 0) | (labels >= spec.num_classes)):
        raise ValueError(f"{folder} has labels outside 0 to {spec.num_classes - 1}")
    return Dataset(images, labels)


def _decode(
    records: Sequence[Mapping], rows: range, images: np.ndarray, labels: np.ndarray
) -> None:
    """Decodes these rows of the records into the same rows of the arrays."""
    for start in rows[::_BATCH_SIZE]:
        part = slice(start, min(start + _BATCH_SIZE, rows.stop))
        examples = records.__getitems__(list(range(part.start, part.stop)))
        batch = np.stack([example["image"] for example in examples])
        if batch.shape[1:] != images.shape[1:] or batch.dtype != images.dtype:
            raise ValueError(
                f"images of {batch.dtype}{list(batch.shape[1:])}, "
                f"not {images.dtype}{list(images.shape[1:])}"
            )
        images[part] = batch
        labels[part] = [example["label"] for example in examples]


_cifar = functools.partial(Source, image_size=32, stem="cifar", loader=_load_cifar)
# Means and standard deviations are the published ones of the training images.
SOURCES = {
    spec.name: spec
    for spec in (
        _cifar(
            name="cifar10",
            num_classes=10,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
        ),
        _cifar(
            name="cifar100",
            num_classes=100,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
        ),
        Source(
            name="shapes",
            num_classes=shapes.NUM_CLASSES,
            image_size=shapes.IMAGE_SIZE,
            mean=shapes.MEAN,
            std=shapes.STD,
            stem="cifar",
            loader=_load_shapes,
        ),
        Source(
            name="imagenet",
            num_classes=1000,
            image_size=224,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            stem="imagenet",
            loader=_load_imagenet,
        ),
    )
}
