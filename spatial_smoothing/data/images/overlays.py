"""Pictures of segmented frames, as files: the colours of the classes over the frame.

Contract of this file: frames and pictures are u8[H, W, 3], RGB in 0 to 255. A palette
is K times (red, green, blue).
"""

import io
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from etils import epath

_LINE = 18  # pixels, height of a line of the legend
_BOX = 14  # pixels, side of its coloured squares


def overlay(
    frame: np.ndarray,
    classes: np.ndarray,
    palette: Sequence[Sequence[int]],
    *,
    share: float = 0.5,
) -> np.ndarray:
    """Lays the colours of the classes of the pixels over a frame.

    Args:
      frame: u8[H, W, 3].
      classes: int[H, W], in [0, K).
      palette: Colours of the classes.
      share: Share of the colours in the picture, in [0, 1].

    Returns:
      u8[H, W, 3].
    """
    colours = np.asarray(palette, np.float32)[classes]
    mixed = (1 - share) * np.float32(frame) + share * colours
    return np.uint8(np.rint(mixed))


def legend(palette: Sequence[Sequence[int]], names: Sequence[str]) -> np.ndarray:
    """Draws a coloured square beside the name of each class, below each other.

    Args:
      palette: Colours of K classes.
      names: Their names.

    Returns:
      u8[H, W, 3], as large as the names need.
    """
    font = PIL.ImageFont.load_default(size=12)
    width = max(int(font.getlength(name)) for name in names) + _BOX + 16
    image = PIL.Image.new("RGB", (width, _LINE * len(names) + 6), "white")
    draw = PIL.ImageDraw.Draw(image)
    for number, (colour, name) in enumerate(zip(palette, names, strict=True)):
        top = 4 + _LINE * number
        box = (4, top, 4 + _BOX, top + _BOX)
        draw.rectangle(box, fill=tuple(colour), outline="black")
        draw.text((_BOX + 10, top), name, fill="black", font=font)
    return np.asarray(image)


def write_png(path: epath.PathLike, picture: np.ndarray) -> None:
    """Writes a picture to a PNG file.

    Args:
      path: The file.
      picture: u8[H, W, 3].
    """
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture).save(buffer, format="png")
    epath.Path(path).write_bytes(buffer.getvalue())
