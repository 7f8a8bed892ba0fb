"""The data sets by name, and how to load one.

| name | read by | images |
|---|---|---|
| `cifar10`, `cifar100` | `tfds/read_cifar.py` | decoded, in host memory |
| `shapes` | `shapes.py` | made by this package, in host memory |
| `imagenet` | `tfds/read_imagenet.py`, `images/pipeline.py` | decoded when needed |
| `folder:PATH` | `images/folders.py`, `images/pipeline.py` | decoded when needed |

Contract of this file: labels are i32 in [0, num_classes). What is held in memory is
cached on the disk (see `runtime/cache.py`).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from etils import epath

from spatial_smoothing.data import shapes
from spatial_smoothing.data.datasets import AnyDataset, Dataset
from spatial_smoothing.data.images import folders, image_files
from spatial_smoothing.data.images.pipeline import EncodedDataset
from spatial_smoothing.data.tfds.read_cifar import read_cifar
from spatial_smoothing.data.tfds.read_imagenet import read_imagenet
from spatial_smoothing.lookup import lookup, unknown
from spatial_smoothing.runtime import cache

FOLDER = "folder:"
SPLITS = ("train", "test")
TFDS_NAMES = {"imagenet": "imagenet2012"}  # ours -> TFDS's, where they differ


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as it is known before it is loaded.

    Attributes:
      name: Name of the data set, a key of `SOURCES` or "folder:PATH".
      num_classes: Number of classes.
      image_size: Height and width in pixels.
      mean: Mean of the training images per channel (RGB), images scaled to [0, 1].
      std: Standard deviation of the training images per channel, scaled alike.
      stem: Stem of the networks made for images of this size, "cifar" or "imagenet".
      loader: Called as `loader(source, split, data_dir=..., download=...)`.
      class_names: Names of a folder's classes, in the order of their labels; None where
        names are found beside the data.
      splits: Names of the splits that the data set may have.
      augments_on_host: Whether images to train on are cropped and flipped as they are
        decoded, and not on the device.
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
    augments_on_host: bool = False

    @property
    def resize(self) -> int | None:
        """Shorter side before the centre is taken, in pixels; None if it is not."""
        if self.augments_on_host:
            return image_files.shorter_side(self.image_size)
        return None


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
      class_names: Names of a folder's classes, where they are known; None to list the
        folder.

    Raises:
      ValueError: There is no such data set, it has images of another size, or the name
        of a class is not UTF-8.
    """
    if name.startswith(FOLDER):
        spec = _folder_source(name, class_names)
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


def _folder_source(name: str, class_names: Sequence[str] | None) -> Source:
    """Returns the data set that a folder is: ImageNet's, with other classes."""
    path = name.removeprefix(FOLDER)
    if not path:
        raise ValueError("folder: has no path; give folder:PATH")
    if class_names is None:
        class_names = folders.class_names(path)
    return dataclasses.replace(
        SOURCES["imagenet"],
        name=name,
        num_classes=len(class_names),
        loader=_load_folder,
        class_names=tuple(class_names),
        splits=("train", "val", "test"),
    )


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
      name: One of `names()`, or "folder:PATH"; see `source`.
      split: "train" or "test", which of ImageNet is TFDS's "validation"; of a folder
        also "val".
      data_dir: Directory of TFDS, which holds NAME/VERSION; None for TFDS's default,
        $TFDS_DATA_DIR or ~/tensorflow_datasets. Not used by `shapes` and folders.
      download: Whether to download and prepare a data set of which the directory holds
        nothing. What is there is never changed.
      image_size: Height and width to which ImageNet's or a folder's images are
        cropped, in pixels; None for 224.
      class_names: Names of a folder's classes, in the order of their labels; None to
        list train/.
      augment: Whether training takes random crops of images that are decoded when they
        are needed; others are augmented on the device.
      num_workers: Number of processes that decode such images; 0 for threads of this
        process. What is read does not depend on it.

    Raises:
      ValueError: There is no such data set or split, or the data are absent or damaged.
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
    return read_cifar(
        spec.name,
        split,
        image_size=spec.image_size,
        num_classes=spec.num_classes,
        data_dir=data_dir,
        download=download,
    )


def _load_imagenet(
    spec: Source, split: str, *, data_dir: epath.PathLike | None, **_
) -> EncodedDataset:
    return read_imagenet(
        split,
        image_size=spec.image_size,
        num_classes=spec.num_classes,
        data_dir=data_dir,
    )


def _load_folder(spec: Source, split: str, **_) -> EncodedDataset:
    records = folders.records(
        spec.name.removeprefix(FOLDER), split, class_names=spec.class_names
    )
    return EncodedDataset(records, spec.image_size, upright=True)


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
            augments_on_host=True,
        ),
    )
}
