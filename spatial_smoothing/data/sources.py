"""The data sets by name, and how to load one: decoded, as host arrays.

Images are uint8[N, H, W, C] (NHWC, RGB), labels int32[N] in [0, num_classes). CIFAR is
read in the order of TFDS, as array_record and hence without TensorFlow; `shapes` is
made by this package. Decoded sets are cached on disk (see `cache`). ImageNet does not
fit in memory, and is known by its description alone.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from spatial_smoothing.data import cache, shapes
from spatial_smoothing.lookup import lookup, unknown

SPLITS = ("train", "test")
_BATCH_SIZE = 256  # records read at once
_REMEDY = (
    "pass --config.data_dir=DIR with the directory of TFDS, or --config.download=True "
    "to prepare {name} there"
)


class Dataset(NamedTuple):
    """Images uint8[N, H, W, C] and their labels int32[N], in host memory."""

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as it is known before it is loaded.

    Attributes:
      name: Its name in `SOURCES`, and in TFDS where it comes from there.
      num_classes: Number of classes.
      image_size: Height and width in pixels.
      mean: Mean of the training images per channel (RGB), images scaled to [0, 1].
      std: Standard deviation of the same.
      stem: Of the networks made for images of this size, "cifar" or "imagenet".
      loader: Called as `loader(source, split, data_dir=..., download=...)`.
    """

    name: str
    num_classes: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    stem: str
    loader: Callable[..., Dataset]


def names() -> list[str]:
    """Returns the names of the data sets."""
    return list(SOURCES)


def source(name: str) -> Source:
    """Returns the data set of this name.

    Raises:
      ValueError: There is no such data set.
    """
    return lookup(SOURCES, name, "data set")


def load(
    name: str,
    split: str,
    *,
    data_dir: epath.PathLike | None = None,
    download: bool = False,
) -> Dataset:
    """Loads a split into host memory.

    Args:
      name: A name in `names()`.
      split: "train" or "test".
      data_dir: The directory of TFDS, which holds NAME/VERSION; by default its
        own, $TFDS_DATA_DIR or ~/tensorflow_datasets. Not used by `shapes`.
      download: Whether to download and prepare a data set of which the directory holds
        nothing. What is there is never changed.

    Raises:
      ValueError: No such data set or split, or the data are absent or damaged.
    """
    spec = source(name)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    return spec.loader(spec, split, data_dir=data_dir, download=download)


def _load_shapes(spec: Source, split: str, **_) -> Dataset:
    make = lambda: shapes.generate(split)
    return Dataset(*cache.cached(f"{spec.name}-{split}", [shapes.VERSION], make))


def _load_cifar(
    spec: Source, split: str, *, data_dir: epath.PathLike | None, download: bool
) -> Dataset:
    root = _root(data_dir)
    folder = _prepared(root, spec.name)
    if folder is None:
        if not download:
            raise _nothing_prepared(root, spec.name)
        # Imported here, because TFDS takes longer to import than all else.
        from spatial_smoothing.data import cifar

        folder = cifar.prepare(spec.name, root)
    files = sorted((p.name, p.stat().length, p.stat().mtime) for p in folder.iterdir())
    make = lambda: _read(spec, folder, split)
    return Dataset(*cache.cached(f"{spec.name}-{split}", [str(folder), files], make))


def _refuse(spec: Source, split: str, **_) -> Dataset:
    raise ValueError(f"{spec.name} {split} does not fit in memory")


def _root(data_dir: epath.PathLike | None) -> epath.Path:
    if not data_dir:
        from tensorflow_datasets.core import constants

        data_dir = constants.DATA_DIR
    return epath.Path(data_dir).expanduser().resolve()


def _prepared(root: epath.Path, name: str) -> epath.Path | None:
    """Returns the newest version in the directory of TFDS that is array_record.

    Raises:
      ValueError: There are versions, but all in other formats.
    """
    formats = {folder: _formats(folder) for folder in _versions(root / name)}
    for folder, found in formats.items():
        if "array_record" in found:
            return folder
    if not formats:
        return None
    folder, found = next(iter(formats.items()))
    raise ValueError(
        f"{folder} is prepared as {', '.join(found) or 'no known format'}, which takes "
        "TensorFlow to read; write array_record beside it (tfds convert_format "
        f"--dataset_version_dir={folder} --out_file_format=array_record), or pass "
        "another --config.data_dir"
    )


def _versions(folder: epath.Path) -> list[epath.Path]:
    """Returns the prepared versions in the folder of a data set, newest first.

    One that is not complete has no dataset_info.json, or another name than a version.
    """
    if not folder.is_dir():
        return []
    versions = [
        path
        for path in folder.iterdir()
        if re.fullmatch(r"\d+\.\d+\.\d+", path.name)
        and (path / "dataset_info.json").exists()
    ]
    return sorted(versions, key=lambda p: [*map(int, p.name.split("."))], reverse=True)


def _formats(folder: epath.Path) -> list[str]:
    """Returns the file formats in a version: "array_record", "tfrecord", ..."""
    matches = (re.search(r"\.(\w+)-\d+-of-\d+$", p.name) for p in folder.iterdir())
    return sorted({match[1] for match in matches if match})


def _nothing_prepared(root: epath.Path, name: str) -> ValueError:
    remedy = _REMEDY.format(name=name)
    if not root.exists():
        return ValueError(f"data directory {root} does not exist; {remedy}")
    if not root.is_dir():
        return ValueError(f"data directory {root} is not a directory; {remedy}")
    if (root / "dataset_info.json").exists():
        remedy = f"did you mean --config.data_dir={root.parent.parent}?"
    elif _versions(root):
        remedy = f"did you mean --config.data_dir={root.parent}?"
    others = {p.parent.parent.name for p in root.glob("*/[0-9]*/dataset_info.json")}
    return ValueError(
        f"no {name} of TFDS in data directory {root} "
        f"(no {name}/VERSION/dataset_info.json; prepared there: "
        f"{', '.join(sorted(others)) or 'nothing'}); {remedy}"
    )


def _read(spec: Source, folder: epath.Path, split: str) -> Dataset:
    """Reads and decodes all records of a split, in the order of TFDS."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        num_classes = builder.info.features["label"].num_classes
        records = builder.as_data_source(file_format="array_record")
    except Exception as error:  # TFDS, protobuf and json each raise their own
        raise _unreadable(folder, error) from error
    if num_classes != spec.num_classes:
        raise ValueError(f"{folder} has {num_classes} classes, not {spec.num_classes}")
    if split not in records:
        raise ValueError(
            f"{folder} has no split {split!r}, only {', '.join(records)}; "
            "pass a --config.data_dir that has it"
        )
    shards = builder.info.splits[split]
    size, count = spec.image_size, shards.num_examples
    images = np.empty((count, size, size, 3), np.uint8)
    labels = np.empty(count, np.int32)
    stop = 0
    for path, length in zip(shards.filepaths, shards.shard_lengths, strict=True):
        start, stop = stop, stop + length
        try:
            _decode(records[split], range(start, stop), images, labels)
        except Exception as error:  # the file, its records and their images alike
            raise _unreadable(path, error) from error
    if np.any((labels < 0) | (labels >= num_classes)):
        raise ValueError(f"{folder} has labels outside 0 to {num_classes - 1}")
    return Dataset(images, labels)


def _decode(
    records: Sequence, rows: range, images: np.ndarray, labels: np.ndarray
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


def _unreadable(path: epath.Path, error: Exception) -> ValueError:
    reason = str(error).strip().partition("\n")[0]
    return ValueError(
        f"cannot read {path}: {type(error).__name__}: {reason}; if it is damaged, "
        "remove this version and prepare it again (--config.download=True)"
    )


# Means and standard deviations are the published ones of the training images.
SOURCES = {
    spec.name: spec
    for spec in (
        Source(
            name="cifar10",
            num_classes=10,
            image_size=32,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
            stem="cifar",
            loader=_load_cifar,
        ),
        Source(
            name="cifar100",
            num_classes=100,
            image_size=32,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
            stem="cifar",
            loader=_load_cifar,
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
            loader=_refuse,
        ),
    )
}
