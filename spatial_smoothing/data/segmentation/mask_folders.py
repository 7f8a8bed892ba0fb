"""A folder of images and masks as a segmentation set: `masks:PATH`.

    PATH/classes.txt                    a class in each line
    PATH/train/images/NAME.jpg          an image
    PATH/train/masks/NAME.png           its mask, of the same size
    PATH/train/images/VIDEO/NAME.jpg    a frame of a video
    PATH/train/masks/VIDEO/NAME.png     its mask; not every frame needs one

and `val/` or `test/` alike. A line of `classes.txt` is the name of a class, and, where
masks are in colour, its red, green and blue in 0 to 255: `road 128 64 128`. A line
whose name is `void` stands for pixels that have no class. In masks that hold numbers, 0
is the first line, 1 the second one, and so on; 255 is void too. Frames of a video are
taken by name, numbers in names by value.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from spatial_smoothing.data import file_names
from spatial_smoothing.data.batches import VOID
from spatial_smoothing.data.segmentation import mask_files
from spatial_smoothing.data.segmentation.mask_files import Colour, FileFrames, MaskCodes
from spatial_smoothing.data.segmentation.sets import SegmentationDataset
from spatial_smoothing.runtime import paths

CLASSES_FILE = "classes.txt"
SPLITS = ("train", "val", "test")
_VOID = "void"
_LAYOUT = (
    f"expected {CLASSES_FILE}, train/images/*.jpg, train/masks/*.png, and test/ or "
    "val/ alike"
)


class Classes(NamedTuple):
    """What `classes.txt` says.

    Attributes:
      names: Names of the K classes.
      palette: Colour of each class in pictures; of classes without one, made here.
      codes: What the pixels of masks mean.
    """

    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    codes: MaskCodes


def read_classes(path: epath.PathLike) -> Classes:
    """Reads `classes.txt`.

    Args:
      path: Folder of the data set.

    Raises:
      ValueError: There is no such file, it is not UTF-8, or a line of it cannot be
        understood.
    """
    root = paths.absolute(path)
    if not root.is_dir():
        raise ValueError(f"no folder {root}; {_LAYOUT}")
    file = root / CLASSES_FILE
    if not file.exists():
        raise ValueError(f"no file {file} with a class in each line; {_LAYOUT}")
    names, numbers, colours, palette = [], {}, {}, []
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8; save it as UTF-8 text") from None
    # Editors of Windows begin a file with a mark, which is no part of the first name.
    text = text.removeprefix("\ufeff")
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > VOID:
        raise ValueError(
            f"{file} has {len(lines)} lines; masks hold numbers below {VOID}, so that "
            f"there are at most {VOID}"
        )
    for number, line in enumerate(lines):
        name, colour = _parsed(line, file)
        label = VOID if name == _VOID else len(names)
        numbers[number] = label
        if colour is not None:
            if colour in colours:
                raise ValueError(f"{file} has the colour {colour} twice")
            colours[colour] = label
        if label != VOID:
            if name in names:
                raise ValueError(f"{file} has the class {name!r} twice")
            names.append(name)
            palette.append(colour or _generated(label))
    if not 2 <= len(names) < VOID:
        raise ValueError(f"{file} has {len(names)} classes; it needs 2 to {VOID - 1}")
    return Classes(tuple(names), tuple(palette), MaskCodes(numbers, colours))


def _parsed(line: str, file: epath.Path) -> tuple[str, Colour | None]:
    """Returns the name and the colour in a line."""
    match = re.fullmatch(r"(.*\S)\s+(\d+)\s+(\d+)\s+(\d+)", line.strip())
    if not match:
        return line.strip(), None
    colour = tuple(int(part) for part in match.groups()[1:])
    if max(colour) > 255:
        raise ValueError(f"{file} has a colour above 255 in the line {line.strip()!r}")
    return match[1], colour


def _generated(label: int) -> Colour:
    """Returns a colour for a class that has none: bits of its number, as in VOC."""
    channels, rest = [0, 0, 0], label + 1
    for bit in range(7, -1, -1):
        for channel in range(3):
            channels[channel] |= ((rest >> channel) & 1) << bit
        rest >>= 3
    return tuple(channels)


def frames(
    path: epath.PathLike,
    split: str,
    *,
    codes: MaskCodes,
    size: tuple[int, int] | None,
) -> FileFrames:
    """Lists the images and masks of a split.

    Args:
      path: Folder of the data set.
      split: "train", "val" or "test"; "test" is val/ where there is no test/.
      codes: What the pixels of masks mean.
      size: (H, W) to which they are resized, in pixels; None for that of the first
        image.

    Raises:
      ValueError: There is no such split, it has no masks, a mask has no image, or an
        image that is no frame of a video has no mask.
    """
    folder = _split_folder(paths.absolute(path), split)
    images, masks = (_files(folder / kind) for kind in ("images", "masks"))
    if lost := sorted("/".join(key) for key in masks.keys() - images.keys()):
        raise ValueError(
            f"{len(lost)} masks in {folder / 'masks'} have no image: "
            f"{file_names.listed(lost)}"
        )
    bare = sorted(name for video, name in images.keys() - masks.keys() if not video)
    if bare:
        raise ValueError(
            f"{len(bare)} images in {folder / 'images'} have no mask: "
            f"{file_names.listed(bare)}; only frames in a folder of a video may lack "
            "theirs"
        )
    if not masks:
        raise ValueError(f"{folder} has no masks; {_LAYOUT}")
    order = sorted(images, key=lambda key: (key[0], _natural(key[1]), key[1]))
    sequences, times = _places([video for video, _ in order])
    return FileFrames(
        images=tuple(images[key] for key in order),
        masks=tuple(masks.get(key) for key in order),
        sequences=sequences,
        times=times,
        size=size or mask_files.size_of(images[order[0]]),
        codes=codes,
    )


def read_folder(
    path: epath.PathLike,
    split: str,
    *,
    class_names: Sequence[str],
    size: tuple[int, int],
    in_memory: bool,
) -> SegmentationDataset:
    """Reads a split of a folder of images and masks.

    Args:
      path: Folder of the data set.
      split: "train", "val" or "test".
      class_names: Names of the classes that the network knows.
      size: (H, W) to which images and masks are resized, in pixels.
      in_memory: Whether all examples are decoded now.

    Raises:
      ValueError: As `read_classes` and `frames`, or the folder has other classes.
    """
    classes = read_classes(path)
    if classes.names != tuple(class_names):
        unlike = (
            file_names.difference(classes.names, class_names) or "has another order"
        )
        raise ValueError(
            f"{paths.absolute(path) / CLASSES_FILE} {unlike} than trained on; give the "
            "data that were trained on"
        )
    found = frames(path, split, codes=classes.codes, size=size)
    label = f"masks-{paths.absolute(path).name}-{split}"
    return mask_files.open_frames(found, label=label, in_memory=in_memory)


def _split_folder(root: epath.Path, split: str) -> epath.Path:
    choices = ("test", "val") if split == "test" else (split,)
    for name in choices:
        if (root / name / "images").is_dir():
            return root / name
    raise ValueError(f"{root} has no {' or '.join(choices)}/images/; {_LAYOUT}")


def _files(folder: epath.Path) -> dict[tuple[str, str], epath.Path]:
    """Returns (video or "", name without suffix) -> file, of a folder."""
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; {_LAYOUT}")
    found = {}
    for path in file_names.visible(folder):
        inner = file_names.visible(path) if path.is_dir() else [path]
        for file in inner:
            if file_names.has_image_suffix(file.name):
                file_names.check_text(file)
                key = (path.name if path.is_dir() else "", file.stem)
                if key in found:
                    raise ValueError(
                        f"{file.parent} has {found[key].name} and {file.name}, of "
                        "which only one can be taken; remove the other"
                    )
                found[key] = file
    return found


def _places(videos: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the number of the video of each frame, and its position in it.

    Args:
      videos: Name of the video of each frame, in order; "" of an image that is none.
    """
    sequences, times = [], []
    for index, video in enumerate(videos):
        is_next = index > 0 and video != "" and video == videos[index - 1]
        sequences.append(sequences[-1] + (not is_next) if index else 0)
        times.append(times[-1] + 1 if is_next else 0)
    return np.array(sequences), np.array(times)


def _natural(name: str) -> list[str | int]:
    """Splits a name into text and numbers, to sort by."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]
