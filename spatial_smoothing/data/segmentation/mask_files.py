"""Frames of videos in files: images, and masks with the class of every pixel.

Contract of this file: a mask is an image file of the size of its image. It has numbers
of classes (8 or 16 bits grey, or a palette whose numbers count), or colours (RGB). What
a number or a colour means is told by a `MaskCodes`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image
from etils import epath

from spatial_smoothing.data.batches import VOID
from spatial_smoothing.data.images import image_files
from spatial_smoothing.data.segmentation.sets import SegmentationDataset
from spatial_smoothing.runtime import cache, paths, progress

# Examples of at most so many bytes are held in memory; more are decoded when needed.
MAX_BYTES_IN_MEMORY = 2 * 2**30
Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class MaskCodes:
    """What the pixels of masks mean.

    Attributes:
      numbers: Number in a mask -> class in [0, K), or `VOID`; 255 is always void.
      colours: Colour in a mask -> class in [0, K), or `VOID`.
      others_are_void: Whether colours that are not in the table are void; if not, they
        are an error.
    """

    numbers: Mapping[int, int]
    colours: Mapping[Colour, int]
    others_are_void: bool = False

    def classes(self, mask: np.ndarray, path: epath.Path) -> np.ndarray:
        """Returns the class of every pixel, u8[H, W].

        Args:
          mask: Numbers [H, W], or colours u8[H, W, 3].
          path: File of the mask, for messages.

        Raises:
          ValueError: A number or a colour means nothing.
        """
        if mask.ndim == 3:
            return self._of_colours(mask, path)
        known = {VOID: VOID, **self.numbers}
        table = np.full(VOID + 2, -1)  # the last place is of all numbers above
        table[list(known)] = list(known.values())
        numbers = np.where((mask >= 0) & (mask <= VOID), mask, VOID + 1)
        choices = f"0 to {max(self.numbers)}, and {VOID}"
        return _known(table[numbers], mask, path, choices)

    def _of_colours(self, mask: np.ndarray, path: epath.Path) -> np.ndarray:
        if not self.colours:
            raise ValueError(
                f"{path} has colours, and no class has one; write masks of class "
                "numbers, or name the colours of the classes"
            )
        table = {
            int(_code(np.array(colour))): label
            for colour, label in self.colours.items()
        }
        codes = np.array(sorted(table))
        labels = np.array([table[code] for code in codes])
        found = _code(mask)
        place = np.minimum(np.searchsorted(codes, found), len(codes) - 1)
        other = VOID if self.others_are_void else -1
        classes = np.where(codes[place] == found, labels[place], other)
        return _known(classes, mask, path, f"{len(self.colours)} colours")


def _code(colours: np.ndarray) -> np.ndarray:
    """Returns one number for each colour [..., 3]."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return (red << 16) + (green << 8) + blue


def _known(
    classes: np.ndarray, mask: np.ndarray, path: epath.Path, choices: str
) -> np.ndarray:
    """Returns classes as bytes; ValueError if a pixel has none (-1)."""
    if (classes < 0).any():
        row, column = np.argwhere(classes < 0)[0]
        value = mask[row, column]
        shown = f"colour {tuple(map(int, value))}" if value.ndim else f"number {value}"
        raise ValueError(
            f"{path} has the {shown} at row {row}, column {column}, which is no class "
            f"(known: {choices})"
        )
    return classes.astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class FileFrames:
    """Frames in files; see `sets.Frames`.

    Attributes:
      images: File of each frame.
      masks: File of the mask of each frame; None where it has no label.
      sequences: i64[F], number of the video of each frame, not decreasing.
      times: i64[F], position of each frame in its video.
      size: (H, W) to which images and masks are resized, in pixels: images between
        pixels, masks to the nearest one.
      codes: What the pixels of masks mean.
    """

    images: tuple[epath.Path, ...]
    masks: tuple[epath.Path | None, ...]
    sequences: np.ndarray
    times: np.ndarray
    size: tuple[int, int]
    codes: MaskCodes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""
        return (*self.size, 3)

    @property
    def labelled(self) -> np.ndarray:
        """bool[F], which frames have a mask."""
        return np.array([mask is not None for mask in self.masks], bool)

    def image(self, number: int) -> np.ndarray:
        """Returns the pixels of a frame, u8[H, W, 3]."""
        path = self.images[number]
        image = _rgb(_opened(path), path)
        return _resized(image, self.size, PIL.Image.Resampling.BILINEAR, path)

    def label(self, number: int) -> np.ndarray:
        """Returns the classes of the pixels of a labelled frame, u8[H, W]."""
        path = self.masks[number]
        mask, image = _opened(path), _opened(self.images[number])
        if mask.size != image.size:
            (width, height), (image_width, image_height) = mask.size, image.size
            raise ValueError(
                f"{path} has {height}x{width} pixels, and its image "
                f"{self.images[number].name} has {image_height}x{image_width}"
            )
        if mask.mode not in ("1", "L", "P", "I", "I;16"):
            mask = _rgb(mask, path)
        pixels = _resized(mask, self.size, PIL.Image.Resampling.NEAREST, path)
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8)
        return self.codes.classes(pixels, path)


def _opened(path: epath.Path) -> PIL.Image.Image:
    """Opens an image file; ValueError if it is none."""
    try:
        return image_files.open_content(path.read_bytes())
    except Exception as error:  # every decoder and file system raises its own
        raise ValueError(f"cannot read {path}: {paths.first_line(error)}") from None


def _rgb(image: PIL.Image.Image, path: epath.Path) -> PIL.Image.Image:
    """Converts an image to RGB; ValueError if it is damaged, or has too many bits."""
    try:
        return image_files.rgb(image)
    except Exception as error:  # converting decodes, and every decoder raises its own
        raise ValueError(f"cannot read {path}: {paths.first_line(error)}") from None


def _resized(
    image: PIL.Image.Image, size: tuple[int, int], method: int, path: epath.Path
) -> np.ndarray:
    """Returns the pixels of an image in another size; ValueError if it is damaged."""
    try:
        if image.size != size[::-1]:
            image = image.resize(size[::-1], method)
        return np.asarray(image)
    except Exception as error:
        raise ValueError(
            f"cannot read {path}: {paths.first_line(error)}; it may be truncated or "
            "damaged"
        ) from None


def size_of(path: epath.Path) -> tuple[int, int]:
    """Returns height and width of an image file, in pixels.

    Args:
      path: An image file.

    Raises:
      ValueError: It cannot be read.
    """
    width, height = _opened(path).size
    return height, width


def fits_in_memory(num_examples: int, size: tuple[int, int]) -> bool:
    """Whether so many examples of a size are held in memory.

    Args:
      num_examples: Number of images with masks.
      size: (H, W) in pixels.
    """
    return num_examples * size[0] * size[1] * 4 <= MAX_BYTES_IN_MEMORY


def open_frames(
    frames: FileFrames, *, label: str, in_memory: bool
) -> SegmentationDataset:
    """Returns the data set of the frames that have masks.

    Args:
      frames: The frames, at least one of which has a mask.
      label: What the cache calls the examples, such as "camvid-train".
      in_memory: Whether all examples are decoded now, or taken from the cache.
    """
    rows = np.flatnonzero(frames.labelled)
    dataset = SegmentationDataset(frames, rows)
    if not in_memory:
        return dataset

    def make() -> tuple[np.ndarray, np.ndarray]:
        count = len(rows)
        images = np.empty((count, *dataset.image_shape), np.uint8)
        labels = np.empty((count, *dataset.label_shape), np.uint8)
        each = progress.track(range(count), total=count, name=f"decoding {label}")
        for position in each:
            images[position], labels[position] = dataset.example(position)
        return images, labels

    key = [_VERSION, list(frames.size), _version(frames, rows), _codes(frames.codes)]
    return dataclasses.replace(dataset, decoded=cache.cached(label, key, make))


_VERSION = 1  # raise when images or masks are decoded in another way


def _version(frames: FileFrames, rows: Sequence[int]) -> list[object]:
    """Returns names, sizes and times of the files: new ones are read anew."""
    files = [path for row in rows for path in (frames.images[row], frames.masks[row])]
    return [[str(path), *paths.stamp(path)] for path in files]


def _codes(codes: MaskCodes) -> list[object]:
    """Returns a table of classes as values for JSON."""
    return [sorted(codes.numbers.items()), sorted(codes.colours.items())]
