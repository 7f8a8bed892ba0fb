"""Image files as the networks take them: RGB, 8 bits a channel, square.

Contract of this file: what can be made such an image is (grey, palette, CMYK, alpha,
rotation in the metadata, any size; of 16 bits of colour Pillow keeps the upper 8); the
rest is refused by the name of the file.
"""

import io
import warnings
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps
from etils import epath

from spatial_smoothing.runtime import paths

_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr")


class ImageFile(NamedTuple):
    """An image, and what it was.

    Attributes:
      pixels: u8[S, S, 3].
      size: Width and height before it was resized, in pixels.
      mode: Of Pillow, such as "RGB", before it was converted.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    mode: str


def read(path: epath.PathLike, *, size: int, resize: int | None = None) -> ImageFile:
    """Reads an image file: the first frame, upright, any alpha laid on white.

    One of another size is cropped to a centred square and resized, or as `center`.

    Args:
      path: Of the file, in any format of Pillow.
      size: S, in pixels.
      resize: As for `center`; None for the whole square.

    Raises:
      ValueError: for what is no image, is truncated or damaged, or is grey of more
        than 8 bits, whose range the file does not tell.
    """
    path = epath.Path(path)
    if not path.is_file():
        raise ValueError(f"no image file {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(io.BytesIO(path.read_bytes())) as file:
                mode = file.mode
                image = PIL.ImageOps.exif_transpose(file)
    except PIL.UnidentifiedImageError:
        raise ValueError(f"{path} is not an image file") from None
    except Exception as error:  # every decoder raises its own
        raise ValueError(
            f"cannot read {path}: {paths.first_line(error)}; it may be truncated or "
            "damaged"
        ) from error
    original = image.size
    try:
        image = rgb(image)
    except ValueError as error:
        raise ValueError(f"{path} has {error}") from None
    if resize is not None:
        image = center(image, size=size, resize=resize)
    elif image.size != (size, size):
        image = PIL.ImageOps.fit(image, (size, size), PIL.Image.Resampling.BICUBIC)
    return ImageFile(np.asarray(image), original, mode)


def rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Converts an image to RGB, any alpha laid on white.

    Raises:
      ValueError: for more than 8 bits a channel.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode not in _MODES:
        raise ValueError(
            f"mode {image.mode!r}; convert it to 8 bits a channel, grey or RGB"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image)
    return image.convert("RGB")


def shorter_side(size: int) -> int:
    """Returns what ImageNet's images are resized to before the centre is taken."""
    return round(size * 256 / 224)


def center(image: PIL.Image.Image, *, size: int, resize: int) -> PIL.Image.Image:
    """Resizes the shorter side to `resize`, and takes the square in the middle."""
    shorter = min(image.size)
    width, height = (int(resize * side / shorter) for side in image.size)
    image = image.resize((width, height), PIL.Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def load_array(path: epath.Path) -> np.ndarray:
    """Maps the array of a .npy file into memory; reads it where it is in a bucket."""
    if not paths.is_remote(path):
        return np.load(path, mmap_mode="r", allow_pickle=False)
    return np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
