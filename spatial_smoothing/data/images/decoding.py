"""Decodes, crops, resizes and flips images on the host, as ImageNet is trained on.

Contract of this file: content is a file's bytes, in any format of Pillow, or the
decoded pixels of an image, u8[H, W, 3] or grey u8[H, W]; pixels are u8[S, S, 3], RGB.
Geometry and interpolation (bilinear, antialiased) are those of torchvision on Pillow
images, and pixels are equal to theirs unless a docstring says otherwise. What cannot be
decoded raises whatever its decoder raises. Images that fit in memory, such as CIFAR's,
are cropped and flipped on the device by `data/augment.py`.
"""

import contextlib
import math

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

from spatial_smoothing.data.images import image_files

Box = tuple[int, int, int, int]
Content = bytes | np.ndarray
_BILINEAR = PIL.Image.Resampling.BILINEAR
_ATTEMPTS = 10


def center_crop(
    content: Content, *, size: int, resize: int | None = None, upright: bool = False
) -> np.ndarray:
    """Resizes the shorter side, and takes the square in the middle.

    Args:
      content: Content of an image file, or decoded pixels.
      size: S, height and width of the square in pixels.
      resize: Length of the shorter side in pixels, at least S; None for S * 256 / 224.
      upright: Whether to turn the image upright, as its EXIF metadata say.

    Returns:
      u8[S, S, 3], RGB.
    """
    image = image_files.rgb(_open(content, upright))
    resize = resize or image_files.shorter_side(size)
    return np.asarray(image_files.center(image, size=size, resize=resize))


def random_crop(
    content: Content, rng: np.random.Generator, *, size: int, upright: bool = False
) -> np.ndarray:
    """Takes a random box, resizes it, and mirrors it with probability one half.

    A JPEG whose box is at least 2 S high and wide is decoded at a half, a quarter or an
    eighth of its size, which is faster; pixels then differ by a level or so.

    Args:
      content: Content of an image file, or decoded pixels.
      rng: Generator that draws the box and whether to mirror.
      size: S, height and width of the result in pixels.
      upright: Whether to turn the image upright, as its EXIF metadata say.

    Returns:
      u8[S, S, 3], RGB.
    """
    image = _open(content, upright)
    box = random_box(rng, *image.size)
    flip = rng.random() < 0.5
    scaled = _reduce(image, box, size)
    image = image_files.rgb(image)
    if scaled is None:
        # Cropped first: resizing a part of an image would see the pixels around it.
        image = _crop(image, box)
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
    """Draws left, top, right and bottom of a box in an image, in pixels.

    Args:
      rng: Generator.
      width: Width of the image, in pixels.
      height: Height of the image, in pixels.
      area: Least and largest area of the box, as a share of the image's; uniform.
      aspect: Least and largest width over height; uniform in its logarithm. After ten
        boxes that do not fit, the largest centred one within these limits is taken.
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


def _open(content: Content, upright: bool) -> PIL.Image.Image:
    """Opens an image, without decoding it where it is upright."""
    if isinstance(content, np.ndarray):
        return PIL.Image.fromarray(content)
    image = image_files.open_content(content)
    if upright and image.getexif().get(PIL.ExifTags.Base.Orientation, 1) != 1:
        return PIL.ImageOps.exif_transpose(image)
    return image


def _crop(image: PIL.Image.Image, box: Box) -> PIL.Image.Image:
    """Takes a box out of an image, also where Pillow would warn of its size."""
    pixels = (box[2] - box[0]) * (box[3] - box[1])
    is_large = pixels > (PIL.Image.MAX_IMAGE_PIXELS or math.inf)
    # Threads take turns without warnings; only boxes that need it have to wait.
    with image_files.without_size_warnings() if is_large else contextlib.nullcontext():
        return image.crop(box)


def _reduce(image: PIL.Image.Image, box: Box, size: int) -> tuple[float, ...] | None:
    """Has a JPEG decoded smaller where the box still is at least as large as S.

    Returns:
      The box in the smaller image, in its pixels; None where nothing is to be gained.
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
