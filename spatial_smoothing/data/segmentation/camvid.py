"""CamVid, in the forms in which people have it, with 11 classes.

| form | images | masks |
|---|---|---|
| original | `701_StillsRaw_full/NAME.png` | `LabeledApproved_full/NAME_L.png` |
| split, colours | `SPLIT/NAME.png` | `SPLIT_labels/NAME_L.png` |
| split, numbers | `SPLIT/NAME.png` | `SPLITannot/NAME.png` |

Masks NAME_L.png are in colour; the others have class numbers, of which 11 is void.
A split is `train`, `val` or `test`. Of the original form it is the list of names in
`SPLIT.txt` (a name or a path in each line, of which the first counts); without lists,
it is the split that is commonly used, of 367, 101 and 233 images. Names are
VIDEO_NUMBER, with the number of the frame in its video. The frames of the videos that
have no labels may be in `frames/`, by such names too.

Classes and colours: the table of the code of Park et al., AAAI 2021. Colours that are
not in it are void.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np
from etils import epath

from spatial_smoothing.data import file_names
from spatial_smoothing.data.batches import VOID
from spatial_smoothing.data.segmentation import mask_files
from spatial_smoothing.data.segmentation.mask_files import FileFrames, MaskCodes
from spatial_smoothing.data.segmentation.sets import SegmentationDataset
from spatial_smoothing.runtime import paths

SIZE = (360, 480)
# Class -> the colours of the names that it is made of. The first is shown in pictures.
CLASSES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "sky": ((128, 128, 128),),
    "building": (
        *((128, 0, 0), (0, 128, 64), (64, 192, 0)),
        *((64, 0, 64), (192, 0, 128)),
    ),
    "pole": ((192, 192, 128), (0, 0, 64)),
    "road": ((128, 64, 128), (128, 0, 192), (192, 0, 64)),
    "pavement": ((0, 0, 192), (64, 192, 128), (128, 128, 192)),
    "tree": ((128, 128, 0), (192, 192, 0)),
    "sign": ((192, 128, 128), (128, 128, 64), (0, 64, 64)),
    "fence": ((64, 64, 128),),
    "car": (
        *((64, 0, 128), (64, 128, 192), (192, 64, 128)),
        *((192, 128, 192), (128, 64, 64)),
    ),
    "pedestrian": ((64, 64, 0), (192, 128, 64), (64, 0, 192), (64, 128, 64)),
    "bicyclist": ((0, 128, 192), (192, 0, 192)),
}
CLASS_NAMES = tuple(CLASSES)
PALETTE = tuple(colours[0] for colours in CLASSES.values())
CODES = MaskCodes(
    numbers={**{label: label for label in range(len(CLASSES))}, len(CLASSES): VOID},
    colours={
        colour: label
        for label, colours in enumerate(CLASSES.values())
        for colour in colours
    },
    others_are_void=True,
)

_IMAGES, _MASKS, _FRAMES = "701_StillsRaw_full", "LabeledApproved_full", "frames"
_LAYOUT = (
    f"expected {_IMAGES}/ and {_MASKS}/, or train/ and trainannot/, or train/ and "
    "train_labels/; pass --config.data_dir=DIR with the folder of CamVid"
)
# Frames without labels are read up to one second before one with a label.
_FRAMES_BEFORE = 30


def read_camvid(
    data_dir: epath.PathLike | None, split: str, *, size: tuple[int, int]
) -> SegmentationDataset:
    """Reads a split into memory.

    Args:
      data_dir: Folder of CamVid.
      split: "train", "val" or "test".
      size: (H, W) to which images and masks are resized, in pixels.

    Raises:
      ValueError: There is no such folder or split, an image has no mask, a mask has no
        image, or one of them cannot be read.
    """
    if not data_dir:
        raise ValueError(f"camvid has no folder; {_LAYOUT}")
    root = paths.absolute(data_dir)
    if not root.is_dir():
        raise ValueError(f"no folder {root}; {_LAYOUT}")
    images, masks = _pairs(root, split)
    extra = _by_name(root / _FRAMES) if (root / _FRAMES).is_dir() else {}
    frames = _frames(images, masks, extra, size)
    return mask_files.open_frames(frames, label=f"camvid-{split}", in_memory=True)


def _pairs(
    root: epath.Path, split: str
) -> tuple[dict[str, epath.Path], dict[str, epath.Path]]:
    """Returns the images and the masks of a split, by the names of the images."""
    if (root / _IMAGES).is_dir():
        images = _by_name(root / _IMAGES)
        masks = _by_name(root / _MASKS, ending="_L")
        chosen = _listed(root / f"{split}.txt", images)
        chosen = _common(images, split) if chosen is None else chosen
        if not chosen:
            raise ValueError(f"{root / _IMAGES} has no image of the {split} split")
        images = {name: images[name] for name in chosen}
        masks = {name: path for name, path in masks.items() if name in images}
    elif (root / f"{split}annot").is_dir():
        images, masks = _by_name(root / split), _by_name(root / f"{split}annot")
    elif (root / f"{split}_labels").is_dir():
        images = _by_name(root / split)
        masks = _by_name(root / f"{split}_labels", ending="_L")
    else:
        there = ", ".join(p.name for p in file_names.visible(root)) or "nothing"
        raise ValueError(f"{root} has no {split} split of CamVid ({there}); {_LAYOUT}")
    if unlike := file_names.difference(list(masks), list(images), of="masks"):
        raise ValueError(f"the {split} split in {root} {unlike}; each image needs one")
    if not images:
        raise ValueError(f"the {split} split in {root} has no images")
    return images, masks


def _by_name(folder: epath.Path, *, ending: str = "") -> dict[str, epath.Path]:
    """Returns the image files of a folder by name, without suffix and ending."""
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; {_LAYOUT}")
    found: dict[str, epath.Path] = {}
    for path in file_names.visible(folder):
        if not file_names.has_image_suffix(path.name):
            continue
        name = path.stem.removesuffix(ending)
        if name in found:
            raise ValueError(
                f"{folder} has {found[name].name} and {path.name}, of which only one "
                "can be taken; remove the other"
            )
        found[name] = path
    return found


def _listed(path: epath.Path, known: Iterable[str]) -> list[str] | None:
    """Returns the names in the list of a split; None where there is no list."""
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8; save it as UTF-8 text") from None
    # Editors of Windows begin a file with a mark, which is no part of the first name.
    lines = [line.split() for line in text.removeprefix("\ufeff").splitlines()]
    names = [epath.Path(line[0]).stem for line in lines if line]
    if missing := [name for name in names if name not in known]:
        raise ValueError(
            f"{path} lists {len(missing)} images that are not there: "
            f"{file_names.listed(missing)}"
        )
    return names


def _common(images: Iterable[str], split: str) -> list[str]:
    """Returns the names of the split that is commonly used."""

    def split_of(name: str) -> str:
        video, number = _video_and_number(name)
        if video == "Seq05VD" or (video == "0001TP" and number >= 8550):
            return "test"
        return "val" if video == "0016E5" and 7959 <= number <= 8159 else "train"

    return [name for name in images if split_of(name) == split]


def _video_and_number(name: str) -> tuple[str, int]:
    """Returns the video and the number of the frame that a name has."""
    match = re.fullmatch(r"(.+)_f?(\d+)", name)
    # A name without a number is a video of one frame.
    return (match[1], int(match[2])) if match else (name, 0)


def _by_place(files: Mapping[str, epath.Path]) -> dict[tuple[str, int], epath.Path]:
    """Returns (video, number) -> file, given files by name."""
    found: dict[tuple[str, int], epath.Path] = {}
    for name, path in files.items():
        place = video, number = _video_and_number(name)
        if place in found:
            raise ValueError(
                f"{found[place].name} and {path.name} are both frame {number} of "
                f"{video}, in {path.parent}; remove or rename one of them"
            )
        found[place] = path
    return found


def _frames(
    images: Mapping[str, epath.Path],
    masks: Mapping[str, epath.Path],
    extra: Mapping[str, epath.Path],
    size: tuple[int, int],
) -> FileFrames:
    """Returns the labelled frames of a split, and those of the videos before them."""
    wanted = {}
    for name in images:
        video, number = _video_and_number(name)
        wanted.setdefault(video, set()).update(
            range(number - _FRAMES_BEFORE + 1, number + 1)
        )
    found = {
        (video, number): (path, None)
        for (video, number), path in _by_place(extra).items()
        if number in wanted.get(video, ())
    }
    for place, path in _by_place(images).items():
        found[place] = (path, masks[path.stem])
    order = sorted(found)
    _, sequences = np.unique([video for video, _ in order], return_inverse=True)
    return FileFrames(
        images=tuple(found[place][0] for place in order),
        masks=tuple(found[place][1] for place in order),
        sequences=sequences,
        times=np.array([number for _, number in order]),
        size=size,
        codes=CODES,
    )
