"""Encoded images to pixels: cropped, resized, RGB; on the host, as ImageNet is used.

Contract of this file: content is a file's bytes, in any format of Pillow; pixels are
u8[S, S, 3]. Geometry and interpolation (bilinear, antialiased) are those of torchvision
on Pillow images, and pixels equal to theirs unless the docstring says otherwise. What
cannot be decoded raises whatever its decoder raises.
"""

import io
import math

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

from spatial_smoothing.data.images import image_files

Box = tuple[int, int, int, int]
_BILINEAR = PIL.Image.Resampling.BILINEAR
_ATTEMPTS = 10


def center_crop(
    content: bytes, *, size: int, resize: int | None = None, upright: bool = False
) -> np.ndarray:
    """Resizes the shorter side, and takes the square in the middle.

    Args:
      content: Of the file.
      size: S, in pixels.
      resize: Length of the shorter side, at least S; None for S * 256 / 224.
      upright: Whether to turn the image as its metadata say.
    """
    image = image_files.rgb(_open(content, upright))
    resize = resize or image_files.shorter_side(size)
    return np.asarray(image_files.center(image, size=size, resize=resize))


def random_crop(
    content: bytes, rng: np.random.Generator, *, size: int, upright: bool = False
) -> np.ndarray:
    """Takes a random box, resizes it, and mirrors it with probability one half.

    A JPEG whose box is at least 2 S high and wide is decoded at a half, a quarter or an
    eighth of its size, which is faster; pixels then differ by a level or so.

    Args:
      content: Of the file.
      rng: Of the box and the flip.
      size: S, in pixels.
      upright: Whether to turn the image as its metadata say.
    """
    image = _open(content, upright)
    box = random_box(rng, *image.size)
    flip = rng.random() < 0.5
    scaled = _reduce(image, box, size)
    image = image_files.rgb(image)
    if scaled is None:
        image = image.crop(box)  # whose resizing sees no pixels outside
    image = image.resize((size, size), _BILINEAR, box=scaled)
    if flip:
        image = image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def random_box(
    rng: np.random.Generator,
    width: int,
    height: int,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """Draws left, top, right and bottom of a box in an image.

    Args:
      rng: Generator.
      width: Of the image, in pixels.
      height: Of the image, in pixels.
      area: Least and largest share of the image's, uniform.
      aspect: Least and largest width over height, uniform in its logarithm. After ten
        boxes that do not fit, the largest centred one within these.
    """
    for _ in range(_ATTEMPTS):
        pixels = width * height * rng.uniform(*area)
        ratio = math.exp(rng.uniform(*map(math.log, aspect)))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = int(rng.integers(width - w + 1))
            top = int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * aspect[1])))
    h = min(height, max(1, round(width / aspect[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _open(content: bytes, upright: bool) -> PIL.Image.Image:
    """Opens an image, without decoding it where it is upright."""
    image = PIL.Image.open(io.BytesIO(content))
    if upright and image.getexif().get(PIL.ExifTags.Base.Orientation, 1) != 1:
        return PIL.ImageOps.exif_transpose(image)
    return image


def _reduce(image: PIL.Image.Image, box: Box, size: int) -> tuple[float, ...] | None:
    """Has a JPEG decoded smaller where the box still is at least as large as S.

    Returns:
      The box in the smaller image; None where nothing is to be gained.
    """
    factor = min(box[2] - box[0], box[3] - box[1]) // size
    if factor < 2:
        return None
    width, height = image.size
    image.draft(None, (width // min(factor, 8), height // min(factor, 8)))
    if image.size == (width, height):  # no JPEG, or one that is turned
        return None
    x, y = image.size[0] / width, image.size[1] / height
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y
