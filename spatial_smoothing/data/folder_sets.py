"""Data sets that folders of the user are: `folder:PATH` and `masks:PATH`."""

import dataclasses

from spatial_smoothing.data.built_in_sets import SOURCES
from spatial_smoothing.data.images import folders
from spatial_smoothing.data.images.pipeline import EncodedDataset
from spatial_smoothing.data.segmentation import mask_files, mask_folders
from spatial_smoothing.data.segmentation.mask_files import MaskCodes
from spatial_smoothing.data.segmentation.sets import SegmentationDataset
from spatial_smoothing.data.source import (
    FOLDER,
    MASKS,
    SEGMENTATION,
    Given,
    Source,
    as_given,
    resized,
)


def folder_source(name: str, given: Given) -> Source:
    """Returns the data set that a folder is: ImageNet's, with other classes.

    Args:
      name: "folder:PATH".
      given: What is known of it; without `class_names`, train/ is listed.

    Raises:
      ValueError: The folder is not there, or it cannot have images of this size.
    """
    path = name.removeprefix(FOLDER)
    if not path:
        raise ValueError("folder: has no path; give folder:PATH")
    class_names = given.class_names
    if class_names is None:
        class_names = folders.class_names(path)
    spec = dataclasses.replace(
        SOURCES["imagenet"],
        name=name,
        num_classes=len(class_names),
        loader=_load_folder,
        class_names=tuple(class_names),
        splits=("train", "val", "test"),
        num_examples={},
        kept=("class_names",),
    )
    return as_given(spec, given)


def _load_folder(spec: Source, split: str, **_) -> EncodedDataset:
    records = folders.records(
        spec.name.removeprefix(FOLDER), split, class_names=spec.class_names
    )
    return EncodedDataset(records, spec.image_size, upright=True)


def masks_source(name: str, given: Given) -> Source:
    """Returns the data set that a folder of images and masks is.

    Args:
      name: "masks:PATH".
      given: What is known of it. Without `class_names` or `palette`, `classes.txt` is
        read; without `in_memory` or both numbers of `image_size`, the first image is.

    Raises:
      ValueError: The folder is not there, or its files cannot be read.
    """
    path = name.removeprefix(MASKS)
    if not path:
        raise ValueError("masks: has no path; give masks:PATH")
    class_names, palette = given.class_names, given.palette
    if class_names is None or palette is None:
        classes = mask_folders.read_classes(path)
        class_names, palette = classes.names, classes.palette
    image_size, in_memory = given.image_size, given.in_memory
    if in_memory is None or image_size is None or isinstance(image_size, int):
        codes = MaskCodes({}, {})  # no mask is read
        frames = mask_folders.frames(path, "train", codes=codes, size=None)
        image_size = frames.size if image_size is None else image_size
        image_size = resized(image_size, like=frames.size)
        in_memory = mask_files.fits_in_memory(int(frames.labelled.sum()), image_size)
    spec = Source(
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
        kept=("class_names", "image_size", "in_memory", "palette"),
    )
    return as_given(spec, given)


def _load_masks(spec: Source, split: str, **_) -> SegmentationDataset:
    return mask_folders.read_folder(
        spec.name.removeprefix(MASKS),
        split,
        class_names=spec.class_names,
        size=spec.image_shape[:2],
        in_memory=spec.in_memory,
    )
