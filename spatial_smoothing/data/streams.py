"""Sequences of frames: from files, or made of single images.

Contract of this file: frames are uint8 RGB in 0 to 255, T first, the oldest first.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from spatial_smoothing.data.images import image_files


def read_frames(
    path: epath.PathLike, *, size: int, resize: int | None = None
) -> np.ndarray:
    """Reads a sequence: a folder of images, a stack saved by `np.save`, or an image.

    Files are taken by name, numbers in names by value: frame2 before frame10. Hidden
    files and subfolders are not frames. A stack stays on disk until it is indexed. A
    single image becomes the sequence of `moving_crop`.

    Args:
      path: A folder, whose images are read as `image_files.read` does, which crops and
        resizes; a file *.npy with u8[T, S, S, 3]; or an image.
      size: S, height and width in pixels.
      resize: Of images, as for `image_files.read`.

    Returns:
      u8[T, S, S, 3], of at least one frame.

    Raises:
      ValueError: if there is nothing there, a file is no image or damaged, or a stack
        has another type or shape.
    """
    path = epath.Path(path)
    if path.suffix == ".npy" and not path.is_dir():
        return _read_stack(path, size)
    if path.is_file():
        image = image_files.read(path, size=size, resize=resize).pixels
        return np.asarray(moving_crop(image[None]))[:, 0]
    if not path.is_dir():
        raise ValueError(f"no frames in {path}: give a folder of images or a .npy file")
    files = [
        file
        for file in path.iterdir()
        if file.is_file() and not file.name.startswith(".")
    ]
    if not files:
        raise ValueError(f"no frames in {path}: the folder holds no files")
    files.sort(key=lambda file: (_natural(file.name), file.name))
    read = functools.partial(image_files.read, size=size, resize=resize)
    return np.stack([read(file).pixels for file in files])


def moving_crop(
    images: jax.Array, *, num_frames: int = 6, padding: int = 4
) -> jax.Array:
    """Makes sequences that end in given images: a crop that moves to its place.

    Images are mirrored at the lower and right edges. The crop begins `padding` pixels
    down and to the right and moves straight to the image itself, evenly up to rounding:
    steps are whole pixels, so that no frame is blurred by interpolation.

    Args:
      images: u8[B, H, W, 3], or of any type and number of channels.
      num_frames: T, at least 1.
      padding: Length of the path in each direction, in pixels, less than H and W.

    Returns:
      [T, B, H, W, 3], of the type of `images`, which are the last frames: labels of the
      images are those of the last frames.

    Raises:
      ValueError: for numbers out of range.
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
    left = np.arange(num_frames)[::-1] / max(num_frames - 1, 1)
    offsets = np.rint(padding * left).astype(int)
    return jnp.stack([padded[:, at : at + height, at : at + width] for at in offsets])


def _read_stack(path: epath.Path, size: int) -> np.ndarray:
    if not path.exists():
        raise ValueError(f"no file {path}")
    try:
        frames = image_files.load_array(path)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"cannot read {path}: {error}; save uint8 frames with np.save"
        ) from error
    if frames.dtype != np.uint8:
        raise ValueError(f"{path} must hold uint8 in 0 to 255, got {frames.dtype}")
    shape = list(frames.shape)
    if shape[1:] != [size, size, 3] or not shape[0]:
        raise ValueError(
            f"{path} must be [T, {size}, {size}, 3] with at least one frame, got "
            f"{shape}; a folder of images is cropped and resized"
        )
    return frames


def _natural(name: str) -> list[str | int]:
    """Splits a name into text, in lower case, and numbers."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]
