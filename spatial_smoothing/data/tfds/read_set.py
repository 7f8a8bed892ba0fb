"""Opens any image classification set that TFDS prepared as array_record.

Sizes, classes and names come from what TFDS wrote beside the images.
"""

import functools
from typing import Any

from etils import epath

from spatial_smoothing.data.image_sets import ImageSet
from spatial_smoothing.data.tfds import prepared
from spatial_smoothing.data.tfds.prepared import EncodedRecords
from spatial_smoothing.runtime import paths

_REMEDY = (
    "pass --config.data_dir=DIR with the directory in which TFDS prepared it: "
    "tfds build {name} --file_format=array_record"
)


def open_tfds(place: str, *, data_dir: epath.PathLike | None = None) -> ImageSet:
    """Opens a set in the directory of TFDS.

    Args:
      place: "NAME", or "NAME/CONFIG" where the set has configurations; with "#FEATURE"
        behind it, that feature is the label, as in "cifar100#coarse_label".
      data_dir: Directory of TFDS; None for TFDS's default.

    Raises:
      ValueError: Nothing is prepared, or only in other formats; or the set has no
        feature `image`, or no label.
    """
    import tensorflow_datasets as tfds

    name, _, feature = place.partition("#")
    feature = feature or "label"
    root = prepared.root(data_dir)
    folder = prepared.find(root, name) if name else None
    if folder is None:
        raise prepared.nothing_prepared(root, name, _REMEDY.format(name=name))
    try:
        info = tfds.builder_from_directory(folder).info
        features = dict(info.features)
    except Exception as error:  # TFDS, protobuf and json each raise their own
        raise prepared.unreadable(folder, error) from error
    image, label = features.get("image"), features.get(feature)
    if not isinstance(image, tfds.features.Image):
        there = ", ".join(features)
        raise ValueError(f"{folder} has no feature 'image', only {there}")
    if not isinstance(label, tfds.features.ClassLabel):
        labels = [
            key
            for key, value in features.items()
            if isinstance(value, tfds.features.ClassLabel)
        ]
        raise ValueError(
            f"{folder} has no class label {feature!r}; labels: "
            f"{', '.join(labels) or 'none'}; choose one as tfds:{name}#LABEL"
        )
    height, width = image.shape[:2]
    return ImageSet(
        name=f"tfds:{place} in {folder}",
        class_names=tuple(map(str, label.names)),
        splits=tuple(info.splits),
        image_size=height if height == width else None,
        open=functools.partial(_open, folder, feature, label.num_classes),
        version=functools.partial(_version, folder, feature),
    )


def _open(
    folder: epath.Path,
    feature: str,
    num_classes: int,
    split: str,
    *,
    labelled: bool = True,
) -> EncodedRecords:
    """Opens a split and leaves its images encoded."""
    return prepared.encoded_records(
        folder,
        split,
        num_classes=num_classes,
        feature=feature,
        labelled=labelled,
    )


def _version(folder: epath.Path, feature: str, split: str) -> list[Any]:
    """Returns names, sizes and times of the files: new ones are read anew."""
    files = sorted([p.name, *paths.stamp(p)] for p in folder.iterdir())
    return [str(paths.absolute(folder)), feature, split, files]
