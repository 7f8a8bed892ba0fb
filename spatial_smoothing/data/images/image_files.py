"""Image files as the networks take them: RGB, 8 bits a channel, of one size.

Contract of this file: what can be made such an image is (grey, palette, CMYK, alpha,
rotation in the metadata, any size; of 16 bits of colour Pillow keeps the upper 8); the
rest is refused by the name of the file.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps
from etils import epath

from spatial_smoothing.data import file_names
from spatial_smoothing.lookup import lookup
from spatial_smoothing.runtime import paths

_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr")
_RESAMPLING = {
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "bilinear": PIL.Image.Resampling.BILINEAR,
}
_FILTERS = threading.Lock()  # of warnings, which all threads share


class ImageFile(NamedTuple):
    """An image, and what it was before it was converted and resized.

    Attributes:
      pixels: u8[H, W, 3], RGB in 0 to 255.
      size: Width and height before it was resized, in pixels.
      mode: Pillow's name of the kind of pixels, such as "RGB", before the conversion.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    mode: str


def read(
    path: epath.PathLike,
    *,
    size: int | tuple[int, int],
    resize: int | None = None,
    method: str = "bicubic",
) -> ImageFile:
    """Reads an image file: the first frame, upright, any alpha laid on white.

    Args:
      path: An image file, in any format of Pillow.
      size: Height and width of the result in pixels; one number where they are equal.
      resize: Length in pixels to which the shorter side is resized before the centre is
        taken, see `center`, for squares; None takes the largest centred part of the
        right aspect and resizes that.
      method: How that part is resized: "bicubic", or "bilinear", as images of
        segmentation are.

    Raises:
      ValueError: There is no such file, or it is no image, truncated, damaged, too
        large, or grey of more than 8 bits, whose range the file does not tell.
    """
    path = epath.Path(path)
    if not path.is_file():
        raise ValueError(f"no image file {path}")
    try:
        with open_content(path.read_bytes()) as file:
            mode = file.mode
            image = PIL.ImageOps.exif_transpose(file)
    except PIL.UnidentifiedImageError:
        raise ValueError(f"{path} is not an image file") from None
    except TooManyPixelsError as error:
        raise ValueError(f"cannot read {path}: {error}") from None
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
    height, width = (size, size) if isinstance(size, int) else size
    if resize is not None:
        image = center(image, size=height, resize=resize)
    elif image.size != (width, height):
        resampling = lookup(_RESAMPLING, method, "method of resizing")
        image = PIL.ImageOps.fit(image, (width, height), resampling)
    return ImageFile(np.asarray(image), original, mode)


def is_image(path: epath.Path) -> bool:
    """Whether a file is to be read as an image: by its suffix, or by its content.

    A file with an image's suffix counts whatever it holds, so that reading it names a
    damaged one.
    """
    if file_names.has_image_suffix(path.name):
        return True
    try:
        with path.open("rb") as file, without_size_warnings():
            PIL.Image.open(file)  # reads the beginning of the file
    except PIL.UnidentifiedImageError:
        return False
    except Exception:  # an image, though one that cannot be read
        return True
    return True


class TooManyPixelsError(ValueError):
    """An image has more pixels than Pillow takes for harmless."""


def open_content(content: bytes) -> PIL.Image.Image:
    """Opens an image without decoding it, up to twice Pillow's limit of pixels.

    Pillow warns above `PIL.Image.MAX_IMAGE_PIXELS`, about 89 million, and refuses twice
    as many, because a small file can make a machine run out of memory. Cameras make
    photographs between the two, which are read here without a warning.

    Args:
      content: Content of an image file.

    Raises:
      PIL.UnidentifiedImageError: The content is no image.
      TooManyPixelsError: The image has more pixels than that.
    """
    try:
        with without_size_warnings():
            return PIL.Image.open(io.BytesIO(content))
    except PIL.UnidentifiedImageError:
        # Pillow names the object in memory, and its address.
        raise PIL.UnidentifiedImageError(
            "it is no image, or of a format that Pillow does not know"
        ) from None
    except PIL.Image.DecompressionBombError:
        limit = 2 * PIL.Image.MAX_IMAGE_PIXELS
        raise TooManyPixelsError(
            f"it has more than {limit:,} pixels; make it smaller"
        ) from None


@contextlib.contextmanager
def without_size_warnings() -> Iterator[None]:
    """Keeps Pillow from warning of images that are large; threads take turns."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        yield


def rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Converts an image to RGB, any alpha laid on white.

    Raises:
      ValueError: The image has more than 8 bits a channel.
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
    """Returns the length to which ImageNet's shorter sides are resized, in pixels.

    Args:
      size: Height and width of the centre that is taken afterwards, in pixels.
    """
    return round(size * 256 / 224)


def center(image: PIL.Image.Image, *, size: int, resize: int) -> PIL.Image.Image:
    """Resizes the shorter side, and takes the square in the middle.

    Args:
      image: Image of any size.
      size: Height and width of the square, in pixels.
      resize: Length of the shorter side before, in pixels, at least `size`.
    """
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
