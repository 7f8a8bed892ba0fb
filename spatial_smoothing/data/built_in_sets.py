"""The data sets that have a name of their own: a table, and how each of them is loaded.

Contract of this file: a loader is called as `loader(source, split, data_dir=...,
download=...)`. What is held in memory is cached on the disk (see `runtime/cache.py`).
"""

import functools

from etils import epath

from spatial_smoothing.data import shapes
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.data.images.pipeline import EncodedDataset
from spatial_smoothing.data.segmentation import camvid, moving_shapes, sets
from spatial_smoothing.data.segmentation.sets import SegmentationDataset
from spatial_smoothing.data.source import SEGMENTATION, Source
from spatial_smoothing.data.tfds import read_cityscapes
from spatial_smoothing.data.tfds.read_cifar import read_cifar
from spatial_smoothing.data.tfds.read_imagenet import read_imagenet
from spatial_smoothing.runtime import cache

# Name of a data set -> its name in TFDS, where they differ.
TFDS_NAMES = {"imagenet": "imagenet2012"}


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
