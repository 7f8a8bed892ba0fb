"""What is known of a data set before it is loaded, and what the caller knows of it.

`sources.py` makes a `Source` of a name.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.data.images import image_files

# How the names of data sets begin that are not built in.
FOLDER = "folder:"
NPZ = "npz:"
HF = "hf:"
TFDS = "tfds:"
LIST = "list:"
MASKS = "masks:"
SPLITS = ("train", "test")
CLASSIFICATION, SEGMENTATION = "classification", "segmentation"


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as it is known before it is loaded.

    Attributes:
      name: Name of the data set, one of `sources.names()`, "folder:PATH", "masks:PATH",
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
      kept: Names of the attributes that a run keeps, because only the data tell them.
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
    kept: tuple[str, ...] = ()

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
          The arguments of `sources.source` of these names.
        """
        return {name: getattr(self, name) for name in self.kept}


@dataclasses.dataclass(frozen=True)
class Given:
    """What the caller of `sources.source` knows of a data set; None for the rest.

    Attributes:
      class_names: Names of the classes, in the order of their labels.
      image_size: Height and width in pixels, where they are equal; else both of them.
      mean: Mean of each channel (RGB), in [0, 1].
      std: Standard deviation of each channel, in [0, 1].
      in_memory: Whether images are held in memory.
      palette: Colours of the classes in pictures, K times (red, green, blue).
      data_dir: Directory of TFDS.
    """

    class_names: Sequence[str] | None = None
    image_size: int | Sequence[int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    in_memory: bool | None = None
    palette: Sequence[Sequence[int]] | None = None
    data_dir: epath.PathLike | None = None


def as_given(spec: Source, given: Given) -> Source:
    """Returns a data set with the size, mean and standard deviation of the caller.

    Args:
      spec: The data set.
      given: What the caller says of it.

    Raises:
      ValueError: The data set cannot have this size.
    """
    image_size = given.image_size
    spec = dataclasses.replace(
        spec, mean=tuple(given.mean or spec.mean), std=tuple(given.std or spec.std)
    )
    if image_size in (None, spec.image_size):
        return spec
    if spec.task == SEGMENTATION and spec.resizes:
        size = resized(image_size, like=height_and_width(spec.image_size))
        return dataclasses.replace(spec, image_size=size)
    if not spec.augments_on_host:
        size = spec.image_size
        raise ValueError(f"images of {spec.name} have {size} pixels, not {image_size}")
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    return dataclasses.replace(spec, image_size=image_size)


def height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    """Returns a size as height and width, in pixels.

    Args:
      size: Height and width in pixels, where they are equal; else both of them.
    """
    return (size, size) if isinstance(size, int) else tuple(size)


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
