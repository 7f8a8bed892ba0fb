"""Opens ImageNet (ILSVRC 2012), which TFDS prepared; images are decoded when needed.

`images/pipeline.py` is the input pipeline that reads, decodes, crops and flips them.
"""

import functools
import importlib.resources
import re

from etils import epath

from spatial_smoothing.data.images.pipeline import EncodedDataset
from spatial_smoothing.data.tfds import prepared

NAME = "imagenet2012"  # in TFDS
_SPLITS = {"train": "train", "test": "validation"}  # ours -> TFDS's
_REMEDY = (
    "pass --config.data_dir=DIR with the directory in which TFDS prepared it: "
    "tfds build imagenet2012 --file_format=array_record"
)


def read_imagenet(
    split: str,
    *,
    image_size: int,
    num_classes: int = 1000,
    data_dir: epath.PathLike | None = None,
) -> EncodedDataset:
    """Opens a split in the directory of TFDS.

    Args:
      split: "train", or "test", which is TFDS's "validation".
      image_size: Height and width to which images are cropped, in pixels.
      num_classes: K; data with another number of classes are refused.
      data_dir: Directory of TFDS, which holds imagenet2012/VERSION; None for TFDS's
        default.

    Raises:
      ValueError: The data are absent, damaged or in another format than array_record.
    """
    root = prepared.root(data_dir)
    folder = prepared.find(root, NAME)
    if folder is None:
        raise prepared.nothing_prepared(root, NAME, _REMEDY)
    records = prepared.encoded_records(folder, _SPLITS[split], num_classes=num_classes)
    return EncodedDataset(records, image_size)


@functools.cache
def wordnet_ids() -> tuple[str, ...]:
    """Returns the WordNet ids of the 1000 classes, in the order of their labels.

    TFDS brings the list by which it labels ImageNet. The ids are sorted, so that labels
    are those of torchvision too. The tuple is empty where TFDS has no such list.
    """
    files = importlib.resources.files("tensorflow_datasets")
    try:
        text = files.joinpath("datasets/imagenet2012/labels.txt").read_text("utf-8")
    except FileNotFoundError:  # a version of TFDS that keeps it elsewhere
        return ()
    return tuple(re.findall(r"n\d{8}", text))
