"""Sequences of frames: read from files, or made of single images.

Contract of this file: frames are u8 RGB in 0 to 255; the first axis is time, from the
oldest frame to the newest.
"""

import functools
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from spatial_smoothing.data import file_names
from spatial_smoothing.data.images import image_files
from spatial_smoothing.runtime import paths

_log = logging.getLogger(__name__)


class Frames(NamedTuple):
    """A sequence of frames that are read when they are wanted.

    Attributes:
      names: Name of each frame, T of them: that of its file, or a number.
      read: Number of a frame in [0, T) -> u8[H, W, 3].
    """

    names: Sequence[str]
    read: Callable[[int], np.ndarray]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields the frames in order."""
        return (self.read(number) for number in range(len(self.names)))


def read_frames(
    path: epath.PathLike, *, size: int | tuple[int, int], resize: int | None = None
) -> np.ndarray:
    """Reads all of a sequence into memory, or maps it; see `open_frames`.

    Args:
      path: A folder of images; a file *.npy with u8[T, H, W, 3]; or an image.
      size: Height and width in pixels; one number where they are equal.
      resize: Length in pixels to which the shorter side of images is resized before
        the centre is taken; None for the largest centred part of the right aspect.

    Returns:
      u8[T, H, W, 3] with at least one frame.

    Raises:
      ValueError: As `open_frames`, and for a damaged image.
    """
    path = paths.absolute(path)
    if path.suffix == ".npy" and not path.is_dir():
        return _read_stack(path, size)
    return np.stack(list(open_frames(path, size=size, resize=resize)))


def open_frames(
    path: epath.PathLike,
    *,
    size: int | tuple[int, int],
    resize: int | None = None,
    method: str = "bicubic",
) -> Frames:
    """Opens a sequence: a folder of images, a stack saved by `np.save`, or an image.

    Files are taken by name, numbers in names by value: frame2 before frame10. Files
    that are no images and subfolders are not frames; a warning says how many there are.
    Hidden files are passed over. A stack stays on disk until it is indexed. A single
    image becomes the sequence of `moving_crop`.

    Args:
      path: A folder of images; a file *.npy with u8[T, H, W, 3]; or an image.
      size: Height and width in pixels; one number where they are equal.
      resize: Length in pixels to which the shorter side of images is resized before
        the centre is taken; None for the largest centred part of the right aspect, see
        `image_files.read`.
      method: How images are resized, "bicubic" or "bilinear".

    Returns:
      At least one frame. Images are read, and refused where they are damaged, when they
      are wanted.

    Raises:
      ValueError: There is nothing there, or a stack has another type or shape.
    """
    path = paths.absolute(path)
    if path.suffix == ".npy" and not path.is_dir():
        return _in_array(_read_stack(path, size))
    read_file = functools.partial(
        image_files.read, size=size, resize=resize, method=method
    )
    if path.is_file():
        image = read_file(path).pixels
        return _in_array(np.asarray(moving_crop(image[None]))[:, 0])
    if not path.is_dir():
        raise ValueError(f"no frames in {path}: give a folder of images or a .npy file")
    files = _image_files(path)
    files.sort(key=lambda file: (_natural(file.name), file.name))

    def read(number: int) -> np.ndarray:
        return read_file(files[number]).pixels

    return Frames([file.name for file in files], read)


def _in_array(frames: np.ndarray) -> Frames:
    """Frames that are in memory, or mapped into it, named by their numbers from 1."""
    names = [str(number) for number in range(1, len(frames) + 1)]
    return Frames(names, lambda number: np.asarray(frames[number]))


def _image_files(folder: epath.Path) -> list[epath.Path]:
    """Returns the images in a folder; ValueError if there are none."""
    images, others = [], []
    for path in file_names.visible(folder):
        is_frame = path.is_file() and image_files.is_image(path)
        (images if is_frame else others).append(path)
    passed_over = file_names.listed(path.name for path in others)
    if not images:
        there = f"{len(others)} other files or folders: {passed_over}"
        raise ValueError(
            f"no frames in {folder}: the folder holds no images"
            + (f", but {there}" if others else "")
        )
    if others:
        _log.warning(
            "%s: %d of %d files or folders are no images and are skipped: %s",
            *(folder, len(others), len(others) + len(images), passed_over),
        )
    return images


def moving_crop(
    images: jax.Array, *, num_frames: int = 6, padding: int = 4
) -> jax.Array:
    """Makes sequences that end in given images: a crop that moves to its place.

    Images are mirrored at the lower and right edges. The crop begins `padding` pixels
    down and to the right and moves straight to the image itself, evenly up to rounding:
    steps are whole pixels, so that no frame is blurred by interpolation.

    Args:
      images: [B, H, W, C], of any type.
      num_frames: T, at least 1.
      padding: Length of the path in each direction, in pixels, less than H and W.

    Returns:
      [T, B, H, W, C], of the type of `images`. The images are the last frames, so that
      their labels are those of the last frames.

    Raises:
      ValueError: A number is out of range.
    """
    _, height, width, _ = images.shape
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    if not 0 <= padding < min(height, width):
        raise ValueError(
            f"padding must be at least 0 and less than the height and width of "
            f"{height}x{width} images, got {padding}"
        )
    edges = ((0, 0), (0, padding), (0, padding), (0, 0))
    padded = jnp.pad(images, edges, mode="reflect")
    # The share of the path that is left at each frame, from 1 to 0.
    left = np.arange(num_frames)[::-1] / max(num_frames - 1, 1)
    offsets = np.rint(padding * left).astype(int)
    return jnp.stack([padded[:, at : at + height, at : at + width] for at in offsets])


def _read_stack(path: epath.Path, size: int | tuple[int, int]) -> np.ndarray:
    """Maps the frames of a .npy file into memory, u8[T, H, W, 3]."""
    height, width = (size, size) if isinstance(size, int) else size
    if not path.exists():
        raise ValueError(f"no file {path}")
    try:
        frames = image_files.load_array(path)
        if not isinstance(frames, np.ndarray):
            raise ValueError("it is an archive of arrays, as of np.savez")
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"cannot read {path}: {error}; save uint8 frames with np.save"
        ) from error
    if frames.dtype != np.uint8:
        raise ValueError(f"{path} must hold uint8 in 0 to 255, got {frames.dtype}")
    shape = list(frames.shape)
    if shape[1:] != [height, width, 3] or not shape[0]:
        raise ValueError(
            f"{path} must be [T, {height}, {width}, 3] with at least one frame, got "
            f"{shape}; a folder of images is cropped and resized"
        )
    return frames


def _natural(name: str) -> list[str | int]:
    """Splits a name into text, in lower case, and numbers, to sort by."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]
