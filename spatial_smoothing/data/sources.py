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

`KINDS` says which function makes a `Source` of a name with a prefix; names without one
are in `built_in_sets.py`. A name may end with a subset in brackets, and so may a split:
`test[:500]` (see `subsets.py`). `other_sets.py` loads what a network was not trained
on.

Contract of this file: labels are i32 in [0, num_classes); those of segmentation sets
have a class for every pixel, see `segmentation/sets.py`. What is held in memory is
cached on the disk (see `runtime/cache.py`).
"""

import dataclasses
from collections.abc import Callable, Sequence

from etils import epath

from spatial_smoothing.data import subsets
from spatial_smoothing.data.built_in_sets import SOURCES, TFDS_NAMES
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.data.datasets import Dataset as Dataset
from spatial_smoothing.data.described_sets import described_source, open_set
from spatial_smoothing.data.folder_sets import folder_source, masks_source
from spatial_smoothing.data.images.pipeline import EncodedDataset
from spatial_smoothing.data.segmentation.sets import SegmentationDataset
from spatial_smoothing.data.source import (
    CLASSIFICATION,
    FOLDER,
    HF,
    LIST,
    MASKS,
    NPZ,
    SEGMENTATION,
    SPLITS,
    TFDS,
    Given,
    Source,
    as_given,
    height_and_width,
    resized,
)
from spatial_smoothing.lookup import lookup, unknown

__all__ = [
    "CLASSIFICATION",
    "FOLDER",
    "HF",
    "LIST",
    "MASKS",
    "NPZ",
    "SEGMENTATION",
    "SOURCES",
    "SPLITS",
    "TFDS",
    "TFDS_NAMES",
    "Source",
    "height_and_width",
    "load",
    "load_source",
    "names",
    "open_set",
    "resized",
    "source",
]

# How a name begins -> function of the name and of what is known of it to the source.
KINDS: dict[str, Callable[[str, Given], Source]] = {
    FOLDER: folder_source,
    MASKS: masks_source,
    TFDS: described_source,
    NPZ: described_source,
    HF: described_source,
    # Lists are not trained on: opening one says which kinds of sets are.
    LIST: described_source,
}


def names(*, task: str | None = None) -> list[str]:
    """Returns the names of the data sets.

    Args:
      task: `CLASSIFICATION` or `SEGMENTATION`, for the sets of this task; None for all.
    """
    return [name for name, spec in SOURCES.items() if task in (None, spec.task)]


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
    given = Given(
        class_names=class_names,
        image_size=image_size,
        mean=mean,
        std=std,
        in_memory=in_memory,
        palette=palette,
        data_dir=data_dir,
    )
    for prefix, source_of in KINDS.items():
        if name.startswith(prefix):
            return source_of(name, given)
    return as_given(lookup(SOURCES, name, "data set"), given)


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
