"""Reads ImageNet-C, or any data set in its layout: files in folders of classes.

FOLDER/<corruption>/<severity>/<class>/*.JPEG; ImageNet-C's classes are WordNet ids.

Contract of this file: labels follow from the names of the folders, never from their
position alone. A folder whose names are not those of the classes is refused.
"""

import os
import re
from collections.abc import Sequence

from etils import epath

from spatial_smoothing.data import file_names
from spatial_smoothing.data.corruption import transforms
from spatial_smoothing.data.images import folders
from spatial_smoothing.data.images.pipeline import EncodedDataset

_WORDNET_ID = re.compile(r"n\d{8}")


def read_imagenet_c(
    folder: os.PathLike | str,
    name: str,
    severity: int,
    *,
    num_classes: int = 1000,
    size: int = 224,
    class_names: Sequence[str] | None = None,
) -> EncodedDataset:
    """Lists the files of a corruption at a severity; decodes them as they are needed.

    Args:
      folder: A folder in the layout at the top of this file, local or remote.
      name: One of `transforms.NAMES` or `transforms.EXTRA`.
      severity: Severity, an integer from 1 to 5.
      num_classes: K, the number of classes that there must be.
      size: Height and width in pixels. Images of this size are not resized.
      class_names: The K names of the classes' folders, in the order of their labels;
        None where a label is the position among the sorted names, as ImageNet defines
        it for WordNet ids.

    Raises:
      ValueError: Unknown name or severity; a folder is absent or empty, or the classes
        are others.
    """
    root = imagenet_c_folder(folder, name, severity)
    labelled = labelled_folders(root, num_classes=num_classes, class_names=class_names)
    records = folders.list_classes(root, labelled)
    return EncodedDataset(records, size, resize=size)


def imagenet_c_folder(
    folder: os.PathLike | str, name: str, severity: int
) -> epath.Path:
    """Returns the folder of a corruption at a severity.

    Args:
      folder: A folder in the layout at the top of this file, local or remote.
      name: One of `transforms.NAMES` or `transforms.EXTRA`.
      severity: Severity, an integer from 1 to 5.

    Raises:
      ValueError: Unknown name or severity, or there is no such folder.
    """
    transforms.constants_of(name, severity, constants="imagenet")  # checks both
    root = epath.Path(folder) / name / str(severity)
    if not root.is_dir():
        raise ValueError(
            f"no folder {root}; pass the folder of ImageNet-C that has "
            "<corruption>/<severity>/<wnid>"
        )
    return root


def labelled_folders(
    root: epath.Path,
    *,
    num_classes: int,
    class_names: Sequence[str] | None = None,
) -> list[str]:
    """Returns the names of the classes' folders in the order of labels.

    Args:
      root: The folder of a corruption at a severity, which holds those of the classes.
      num_classes: K, the number of classes that there must be.
      class_names: The K names in the order of labels; None for sorted names.

    Raises:
      ValueError: The folders have other names, or their number is another.
    """
    there = folders.class_folders(root)
    if class_names is None:
        if len(there) != num_classes:
            raise ValueError(
                f"{root} has {len(there)} classes, not {num_classes}; "
                "extract the archive again"
            )
        return there
    if unlike := file_names.difference(there, class_names):
        remedy = "name its folders as the classes that the network was trained on"
        if all(map(_WORDNET_ID.fullmatch, there)):
            remedy += " (no list here says which WordNet id is which of them)"
        raise ValueError(f"{root} {unlike}; {remedy}")
    return list(class_names)
