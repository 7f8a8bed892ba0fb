"""The data sets by name, and how to load one.

| name | read by | images |
|---|---|---|
| `cifar10`, `cifar100` | `tfds/read_cifar.py` | decoded, in host memory |
| `shapes` | `shapes.py` | made by this package, in host memory |
| `moving_shapes` | `moving_shapes.py` | segmentation: made by this package, in memory |
| `camvid` | `camvid.py` | segmentation: in memory |
| `cityscapes` | `tfds/read_cityscapes.py` | segmentation: decoded when needed |
| `masks:PATH` | `mask_folders.py` | segmentation: in memory where they are few |
| `imagenet` | `tfds/read_imagenet.py`, `images/pipeline.py` | decoded when needed |
| `folder:PATH` | `images/folders.py`, `images/pipeline.py` | decoded when needed |
| `tfds:NAME` | `tfds/read_set.py` | in memory where they are small, else when needed |
| `npz:FILE` | `npz.py` | in memory where they are small, else when needed |
| `hf:NAME` | `huggingface.py` | in memory where they are small, else when needed |

A name may end with a subset in brackets, and so may a split: `test[:500]` (see
`subsets.py`). `other_sets.py` loads what a network was not trained on.

Contract of this file: labels are i32 in [0, num_classes); those of segmentation sets
have a class for every pixel, see `segmentation/sets.py`. What is held in memory is
cached on the disk (see `runtime/cache.py`).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from spatial_smoothing.data import image_sets, shapes, statistics, subsets
from spatial_smoothing.data.datasets import AnyDataset, Dataset
from spatial_smoothing.data.huggingface import open_hub
from spatial_smoothing.data.image_sets import ImageSet
from spatial_smoothing.data.images import folders, image_files
from spatial_smoothing.data.images.pipeline import EncodedDataset
from spatial_smoothing.data.npz import open_npz
from spatial_smoothing.data.segmentation import (
    camvid,
    mask_files,
    mask_folders,
    moving_shapes,
    sets,
)
from spatial_smoothing.data.segmentation.mask_files import MaskCodes
from spatial_smoothing.data.segmentation.sets import SegmentationDataset
from spatial_smoothing.data.tfds import read_cityscapes
from spatial_smoothing.data.tfds.read_cifar import read_cifar
from spatial_smoothing.data.tfds.read_imagenet import read_imagenet
from spatial_smoothing.data.tfds.read_set import open_tfds
from spatial_smoothing.lookup import lookup, unknown
from spatial_smoothing.runtime import cache

FOLDER = "folder:"
NPZ = "npz:"
HF = "hf:"
TFDS = "tfds:"
LIST = "list:"
MASKS = "masks:"
SPLITS = ("train", "test")
_LARGE_SIZE = 224  # pixels to which images of many sizes are cropped
CLASSIFICATION, SEGMENTATION = "classification", "segmentation"
TFDS_NAMES = {"imagenet": "imagenet2012"}  # ours -> TFDS's, where they differ


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as it is known before it is loaded.

    Attributes:
      name: Name of the data set, a key of `SOURCES`, "folder:PATH", "masks:PATH",
        "tfds:NAME", "npz:FILE" or "hf:NAME".
      num_classes: Number of classes.
      image_size: Height and width in pixels, where they are equal; else both of them.
      mean: Mean of the training images per channel (RGB), images scaled to [0, 1].
      std: Standard deviation of the training images per channel, scaled alike.
      stem: Stem of the networks made for images of this size, "cifar" or "imagenet".
      loader: Called as `loader(source, split, data_dir=..., download=...)`.
      class_names: Names of a folder's classes, in the order of their labels; None where
        names are found beside the data.
      splits: Names of the splits that the data set may have; None where only the data
        tell.
      augments_on_host: Whether images to train on are cropped and flipped as they are
        decoded, and not on the device.
      num_examples: Name of a split -> number of its images, where that is known before
        the data are there.
      task: "classification" for a class of each image, "segmentation" for a class of
        each pixel.
      palette: Colours of the classes in pictures of labels, K times (red, green, blue)
        in 0 to 255; None for classification.
      in_memory: Whether all images are decoded when the data set is loaded, and held in
        memory.
      resizes: Whether images of segmentation can be had in other sizes.
    """

    name: str
    num_classes: int
    image_size: int | tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    stem: str
    loader: Callable[..., AnyDataset]
    class_names: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = SPLITS
    augments_on_host: bool = False
    num_examples: Mapping[str, int] = dataclasses.field(
        default_factory=dict, compare=False
    )
    task: str = CLASSIFICATION
    palette: tuple[tuple[int, int, int], ...] | None = None
    in_memory: bool = True
    resizes: bool = False

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of the images, in pixels."""
        return (*height_and_width(self.image_size), 3)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of a label: () of a class, (H, W) of a class for every pixel."""
        return self.image_shape[:2] if self.task == SEGMENTATION else ()

    @property
    def resize(self) -> int | None:
        """Shorter side before the centre is taken, in pixels; None if it is not."""
        if self.augments_on_host:
            return image_files.shorter_side(self.image_size)
        return None

    def facts(self) -> dict[str, Any]:
        """Returns what a run keeps, to be used where the data are not at hand.

        Returns:
          The arguments of `source` of these names. Built-in data sets have none, and
          folders of classes have `class_names` only.
        """
        if self.name in SOURCES:
            return {}
        if self.name.startswith(FOLDER):
            return {"class_names": self.class_names}
        if self.name.startswith(MASKS):
            return {
                "class_names": self.class_names,
                "image_size": self.image_size,
                "in_memory": self.in_memory,
                "palette": self.palette,
            }
        return {
            "class_names": self.class_names,
            "image_size": self.image_size,
            "mean": self.mean,
            "std": self.std,
            "in_memory": self.in_memory,
        }


def names() -> list[str]:
    """Returns the names of the data sets."""
    return list(SOURCES)


def height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    """Returns a size as height and width, in pixels.

    Args:
      size: Height and width in pixels, where they are equal; else both of them.
    """
    return (size, size) if isinstance(size, int) else tuple(size)


def source(
    name: str,
    *,
    image_size: int | Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    in_memory: bool | None = None,
    palette: Sequence[Sequence[int]] | None = None,
    data_dir: epath.PathLike | None = None,
) -> Source:
    """Returns the data set of this name.

    Where class names, size, mean, standard deviation and `in_memory` are all given (of
    "masks:PATH", class names, size, `in_memory` and `palette`), no data are looked at.

    Args:
      name: One of `names()`; "folder:PATH" of a folder with train/CLASS/*.jpg;
        "masks:PATH" of a folder with train/images/ and train/masks/; "tfds:NAME",
        "npz:FILE" or "hf:NAME".
      image_size: Height and width to which images are cropped, in pixels; None for that
        of the images where they are of one size, else 224. Images of segmentation are
        resized, to this height, and to a width that keeps their shape; or to a height
        and a width. None is the size of the data set, or of its first image.
      class_names: Names of the classes, where they are known; None to find them in the
        data.
      mean: Mean of each channel (RGB), in [0, 1]; None for that of the data set.
      std: Standard deviation of each channel, in [0, 1]; None for that of the data set.
      in_memory: Whether images are held in memory, where it is known; None to find out.
      palette: Colours of the classes of "masks:PATH" in pictures, K times (red, green,
        blue), where they are known; None to find them in the data.
      data_dir: Directory of TFDS; None for TFDS's default.

    Raises:
      ValueError: There is no such data set, it has images of another size, or the name
        of a class is not UTF-8.
    """
    if any(name.startswith(prefix) for prefix in (*_OPENERS, LIST)):
        given = {
            "class_names": class_names,
            "image_size": image_size,
            "mean": mean,
            "std": std,
            "in_memory": in_memory,
        }
        return _set_source(name, given, data_dir)
    if name.startswith(FOLDER):
        spec = _folder_source(name, class_names)
    elif name.startswith(MASKS):
        spec = _masks_source(
            name,
            class_names=class_names,
            image_size=image_size,
            in_memory=in_memory,
            palette=palette,
        )
    else:
        spec = lookup(SOURCES, name, "data set")
    spec = dataclasses.replace(
        spec, mean=tuple(mean or spec.mean), std=tuple(std or spec.std)
    )
    if image_size in (None, spec.image_size):
        return spec
    if spec.task == SEGMENTATION and spec.resizes:
        size = resized(image_size, like=height_and_width(spec.image_size))
        return dataclasses.replace(spec, image_size=size)
    if not spec.augments_on_host:
        size = spec.image_size
        raise ValueError(f"images of {name} have {size} pixels, not {image_size}")
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    return dataclasses.replace(spec, image_size=image_size)


def resized(
    image_size: int | Sequence[int], *, like: tuple[int, int]
) -> tuple[int, int]:
    """Returns the height and the width to which images of segmentation are resized.

    Args:
      image_size: Height in pixels, or height and width.
      like: (H, W) of the images, whose shape is kept where only a height is given.

    Raises:
      ValueError: A number is less than 1.
    """
    if isinstance(image_size, int):
        width = max(1, round(image_size * like[1] / like[0]))
        image_size = (image_size, width)
    size = tuple(image_size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(
            f"image_size must be a height, or a height and a width, of at least 1 "
            f"pixel, got {image_size}"
        )
    return size


def _masks_source(
    name: str,
    *,
    class_names: Sequence[str] | None,
    image_size: int | Sequence[int] | None,
    in_memory: bool | None,
    palette: Sequence[Sequence[int]] | None,
) -> Source:
    """Returns the data set that a folder of images and masks is; see `source`."""
    path = name.removeprefix(MASKS)
    if not path:
        raise ValueError("masks: has no path; give masks:PATH")
    if class_names is None or palette is None:
        classes = mask_folders.read_classes(path)
        class_names, palette = classes.names, classes.palette
    if in_memory is None or image_size is None or isinstance(image_size, int):
        codes = MaskCodes({}, {})  # no mask is read
        frames = mask_folders.frames(path, "train", codes=codes, size=None)
        image_size = frames.size if image_size is None else image_size
        image_size = resized(image_size, like=frames.size)
        in_memory = mask_files.fits_in_memory(int(frames.labelled.sum()), image_size)
    return Source(
        name=name,
        num_classes=len(class_names),
        image_size=resized(image_size, like=(1, 1)),
        mean=SOURCES["imagenet"].mean,
        std=SOURCES["imagenet"].std,
        stem="cifar",
        loader=_load_masks,
        class_names=tuple(class_names),
        splits=mask_folders.SPLITS,
        task=SEGMENTATION,
        palette=tuple(map(tuple, palette)),
        in_memory=in_memory,
        resizes=True,
    )


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
        num_examples={},
    )


def open_set(name: str, *, data_dir: epath.PathLike | None = None) -> ImageSet:
    """Opens a data set of a kind that is described by its own files.

    Args:
      name: "tfds:NAME", "npz:FILE" or "hf:NAME".
      data_dir: Directory of TFDS; None for TFDS's default.

    Raises:
      ValueError: There is no such data set, or it cannot be read.
    """
    prefix = f"{name.partition(':')[0]}:"
    place = name.removeprefix(prefix)
    if not place:
        raise ValueError(f"{prefix} has no name; give {prefix}NAME")
    return lookup(_OPENERS, prefix, "kind of data set")(place, data_dir)


def _set_source(
    name: str, given: Mapping[str, Any], data_dir: epath.PathLike | None
) -> Source:
    """Returns a data set that its own files describe, by what is given or found.

    Args:
      name: "tfds:NAME", "npz:FILE" or "hf:NAME".
      given: The facts of `Source.facts`; None for what the data tell.
      data_dir: Directory of TFDS; None for TFDS's default.
    """
    facts = dict(given)
    found = None
    if any(value is None for value in facts.values()):
        found = open_set(name, data_dir=data_dir)
        facts["class_names"] = facts["class_names"] or found.class_names
        native, wanted = found.image_size, facts["image_size"]
        if facts["in_memory"] is None:
            small = native is not None and native <= image_sets.MAX_SIZE_IN_MEMORY
            facts["in_memory"] = small and wanted in (None, native)
        facts["image_size"] = wanted or native or _LARGE_SIZE
    if facts["image_size"] < 1:
        raise ValueError(f"image_size must be at least 1, got {facts['image_size']}")
    in_memory = facts["in_memory"]
    spec = Source(
        name=name,
        num_classes=len(facts["class_names"]),
        image_size=facts["image_size"],
        # Replaced below: computing them takes a source to load the images of.
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        stem="cifar" if in_memory else "imagenet",
        loader=_load_set,
        class_names=tuple(facts["class_names"]),
        splits=None,
        augments_on_host=not in_memory,
        in_memory=in_memory,
    )
    mean, std = facts["mean"], facts["std"]
    if mean is None or std is None:
        split = found.native_split("train")
        own_mean, own_std = statistics.cached_mean_and_std(
            _load_set(spec, split, data_dir=data_dir),
            label="statistics",
            key=[name, spec.image_size, in_memory, found.version(split)],
        )
        mean, std = mean or own_mean, std or own_std
    return dataclasses.replace(spec, mean=tuple(mean), std=tuple(std))


def load(
    name: str,
    split: str,
    *,
    data_dir: epath.PathLike | None = None,
    download: bool = False,
    image_size: int | Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    augment: bool = True,
    num_workers: int = 0,
) -> AnyDataset:
    """Loads a split.

    Args:
      name: Name of the data set; see `source`.
      split: "train" or "test", which of ImageNet is TFDS's "validation"; of a folder
        also "val"; of "tfds:", "npz:" and "hf:" any split that they have. It may end
        with a subset, as in "test[:500]".
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
    # Reading images takes no mean; any keeps `source` from computing one.
    unused = (0.5, 0.5, 0.5)
    spec = source(
        name,
        image_size=image_size,
        class_names=class_names,
        mean=unused,
        std=unused,
        data_dir=data_dir,
    )
    return load_source(
        spec,
        split,
        data_dir=data_dir,
        download=download,
        augment=augment,
        num_workers=num_workers,
    )


def load_source(
    spec: Source,
    split: str,
    *,
    data_dir: epath.PathLike | None = None,
    download: bool = False,
    augment: bool = True,
    num_workers: int = 0,
) -> AnyDataset:
    """Loads a split of a data set that is known.

    Args:
      spec: The data set.
      split: Name of the split, which may end with a subset; see `load`.
      data_dir: Directory of TFDS; None for TFDS's default.
      download: Whether to prepare a data set that is not there.
      augment: Whether training takes random crops of images that are decoded when they
        are needed.
      num_workers: Number of processes that decode such images; 0 for threads of this
        process.

    Raises:
      ValueError: There is no such split, or the data are absent or damaged.
    """
    split, subset = subsets.split_name(split)
    if spec.splits is not None and split not in spec.splits:
        raise unknown("split", split, spec.splits)
    dataset = spec.loader(spec, split, data_dir=data_dir, download=download)
    if subset is not None:
        dataset = dataset.subset(subset.rows(dataset.num_examples))
    if isinstance(dataset, SegmentationDataset):
        return dataclasses.replace(dataset, num_workers=num_workers)
    if isinstance(dataset, EncodedDataset):
        return dataclasses.replace(dataset, augment=augment, num_workers=num_workers)
    return dataset


def _load_shapes(spec: Source, split: str, **_) -> Dataset:
    make = lambda: shapes.generate(split)
    return Dataset(*cache.cached(f"{spec.name}-{split}", [shapes.VERSION], make))


def _load_moving_shapes(spec: Source, split: str, **_) -> SegmentationDataset:
    make = lambda: moving_shapes.generate(split)
    key = [moving_shapes.VERSION]
    return sets.videos(*cache.cached(f"{spec.name}-{split}", key, make))


def _load_camvid(
    spec: Source, split: str, *, data_dir: epath.PathLike | None, **_
) -> SegmentationDataset:
    return camvid.read_camvid(data_dir, split, size=spec.image_shape[:2])


def _load_cityscapes(
    spec: Source, split: str, *, data_dir: epath.PathLike | None, **_
) -> SegmentationDataset:
    size = spec.image_shape[:2]
    return read_cityscapes.read_cityscapes(data_dir, split, size=size)


def _load_masks(spec: Source, split: str, **_) -> SegmentationDataset:
    return mask_folders.read_folder(
        spec.name.removeprefix(MASKS),
        split,
        class_names=spec.class_names,
        size=spec.image_shape[:2],
        in_memory=spec.in_memory,
    )


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


def _load_set(
    spec: Source, split: str, *, data_dir: epath.PathLike | None = None, **_
) -> AnyDataset:
    found = open_set(spec.name, data_dir=data_dir)
    if found.class_names != spec.class_names:
        raise ValueError(
            f"{found.name} has other classes ({len(found.class_names)}) than those "
            f"trained on ({spec.num_classes}); give the data that were trained on"
        )
    split = found.native_split(split)
    dataset = EncodedDataset(
        found.open(split), spec.image_size, resize=spec.resize or spec.image_size
    )
    if spec.augments_on_host:
        return dataset
    key = [spec.image_size, found.version(split)]
    return image_sets.in_memory(dataset, label=f"{spec.name}-{split}", key=key)


# Prefix of a name -> function of the rest of the name and the directory of TFDS.
_OPENERS: dict[str, Callable[[str, epath.PathLike | None], ImageSet]] = {
    TFDS: lambda place, data_dir: open_tfds(place, data_dir=data_dir),
    NPZ: lambda place, data_dir: open_npz(place),
    HF: lambda place, data_dir: open_hub(place),
}
_cifar = functools.partial(
    Source,
    image_size=32,
    stem="cifar",
    loader=_load_cifar,
    num_examples={"train": 50_000, "test": 10_000},
)
# The code of temporal smoothing scales pixels to [0, 1], and no further.
_photographs = functools.partial(
    Source,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    stem="cifar",
    splits=("train", "val", "test"),
    task=SEGMENTATION,
    resizes=True,
)
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
            num_examples={"train": shapes.TRAIN_SIZE, "test": shapes.TEST_SIZE},
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
            in_memory=False,
            num_examples={"train": 1_281_167, "test": 50_000},
        ),
        Source(
            name="moving_shapes",
            num_classes=moving_shapes.NUM_CLASSES,
            image_size=(moving_shapes.HEIGHT, moving_shapes.WIDTH),
            mean=moving_shapes.MEAN,
            std=moving_shapes.STD,
            stem="cifar",
            loader=_load_moving_shapes,
            class_names=moving_shapes.CLASS_NAMES,
            num_examples={
                "train": moving_shapes.TRAIN_VIDEOS * moving_shapes.NUM_FRAMES,
                "test": moving_shapes.TEST_VIDEOS * moving_shapes.NUM_FRAMES,
            },
            task=SEGMENTATION,
            palette=moving_shapes.PALETTE,
        ),
        _photographs(
            name="camvid",
            num_classes=len(camvid.CLASS_NAMES),
            image_size=camvid.SIZE,
            loader=_load_camvid,
            class_names=camvid.CLASS_NAMES,
            palette=camvid.PALETTE,
        ),
        _photographs(
            name="cityscapes",
            num_classes=len(read_cityscapes.CLASS_NAMES),
            image_size=read_cityscapes.SIZE,
            loader=_load_cityscapes,
            class_names=read_cityscapes.CLASS_NAMES,
            palette=read_cityscapes.PALETTE,
            in_memory=False,
            num_examples={"train": 2975, "val": 500, "test": 500},
        ),
    )
}
