"""Cityscapes as TFDS prepares it: the 19 classes that networks are trained on.

Contract of this file: labels are the numbers of Cityscapes' own classes ("label ids");
those that no network is trained on are void. The test split has no labels, so that the
validation split serves as "test". Images are single ones, and no videos.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
from etils import epath

from spatial_smoothing.data.batches import VOID
from spatial_smoothing.data.images import image_files
from spatial_smoothing.data.segmentation.sets import SegmentationDataset
from spatial_smoothing.data.tfds import prepared
from spatial_smoothing.runtime import paths

NAME = "cityscapes/semantic_segmentation"
SIZE = (512, 1024)
_SPLITS = {"train": "train", "val": "validation", "test": "validation"}
_REMEDY = (
    "pass --config.data_dir=DIR with the directory in which TFDS prepared it, from the "
    f"archives of cityscapes-dataset.com: tfds build {NAME} --file_format=array_record"
)
# Class -> number of Cityscapes, and colour.
CLASSES: dict[str, tuple[int, tuple[int, int, int]]] = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
CLASS_NAMES = tuple(CLASSES)
PALETTE = tuple(colour for _, colour in CLASSES.values())
_OF_NUMBER = np.full(256, VOID, np.uint8)
_OF_NUMBER[[number for number, _ in CLASSES.values()]] = np.arange(len(CLASSES))


@dataclasses.dataclass(frozen=True)
class CityscapesFrames:
    """Images and labels of a split; see `segmentation.sets.Frames`.

    Attributes:
      records: TFDS's examples by number, with `image_left` and `segmentation_label` as
        the contents of image files.
      name: Split and folder, for messages.
      size: (H, W) to which images and labels are resized, in pixels.
    """

    records: Sequence[Mapping[str, Any]]
    name: str
    size: tuple[int, int]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""
        return (*self.size, 3)

    @property
    def sequences(self) -> np.ndarray:
        """i64[F]: each image is a video of one frame."""
        return np.arange(len(self.records))

    @property
    def times(self) -> np.ndarray:
        """i64[F], all 0."""
        return np.zeros(len(self.records), np.int64)

    @property
    def labelled(self) -> np.ndarray:
        """bool[F], all True."""
        return np.ones(len(self.records), bool)

    def image(self, number: int) -> np.ndarray:
        """Returns the pixels of an image, u8[H, W, 3]."""
        image = self._opened(number, "image_left").convert("RGB")
        return self._resized(image, PIL.Image.Resampling.BILINEAR)

    def label(self, number: int) -> np.ndarray:
        """Returns the classes of the pixels of an image, u8[H, W]."""
        label = self._opened(number, "segmentation_label").convert("L")
        return _OF_NUMBER[self._resized(label, PIL.Image.Resampling.NEAREST)]

    def _opened(self, number: int, feature: str) -> PIL.Image.Image:
        try:
            image = image_files.open_content(self.records[number][feature])
            image.load()
            return image
        except Exception as error:  # every decoder and file system raises its own
            raise ValueError(
                f"cannot read {feature} of record {number} of {self.name}: "
                f"{paths.first_line(error)}"
            ) from None

    def _resized(self, image: PIL.Image.Image, method: int) -> np.ndarray:
        if image.size != self.size[::-1]:
            image = image.resize(self.size[::-1], method)
        return np.asarray(image)


def read_cityscapes(
    data_dir: epath.PathLike | None, split: str, *, size: tuple[int, int]
) -> SegmentationDataset:
    """Opens a split, whose images are decoded when they are needed.

    Args:
      data_dir: Directory of TFDS; None for TFDS's default.
      split: "train", "val" or "test".
      size: (H, W) to which images and labels are resized, in pixels.

    Raises:
      ValueError: Nothing is prepared, or only in other formats or in a bucket.
    """
    import tensorflow_datasets as tfds

    root = prepared.root(data_dir)
    folder = prepared.find(root, NAME)
    if folder is None:
        raise prepared.nothing_prepared(root, NAME, _REMEDY)
    if paths.is_remote(folder):
        raise ValueError(
            f"array_record cannot be read in a bucket: {folder}; mount the bucket as a "
            "file system (gcsfuse), or copy the folder to a disk"
        )
    skip = tfds.decode.SkipDecoding()
    try:
        builder = tfds.builder_from_directory(folder)
        records = builder.as_data_source(
            _SPLITS[split],
            file_format="array_record",
            decoders={"image_left": skip, "segmentation_label": skip},
        )
    except Exception as error:  # TFDS, protobuf and json each raise their own
        raise prepared.unreadable(folder, error) from error
    frames = CityscapesFrames(records, f"{_SPLITS[split]} in {folder}", size)
    return SegmentationDataset(frames, np.arange(len(records)))
