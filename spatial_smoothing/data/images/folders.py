"""A folder of images as a data set: PATH/train/CLASS/*.jpg, and val/ or test/ alike.

Contract of this file: classes are the folders of train/, in the order of their names,
and every other split has the same. Paths may be remote, as in gs://BUCKET/PATH.
"""

import dataclasses
from collections.abc import Sequence

from etils import epath

from spatial_smoothing.runtime import paths

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
_LAYOUT = "expected train/CLASS/*.jpg, and test/CLASS/*.jpg or val/CLASS/*.jpg"


@dataclasses.dataclass(frozen=True)
class FolderRecords:
    """Image files and their labels, in the order of class and name.

    Attributes:
      folder: Of the split.
      class_names: Of the folders in it; the label is their number.
      files: Number of the class and name of each file.
    """

    folder: epath.Path
    class_names: tuple[str, ...]
    files: list[tuple[int, str]]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, number: int) -> tuple[bytes, int]:
        """Returns content and label of a file."""
        return self._path(number).read_bytes(), self.files[number][0]

    def describe(self, number: int) -> str:
        """Returns the path of a file."""
        return str(self._path(number))

    def _path(self, number: int) -> epath.Path:
        label, name = self.files[number]
        return self.folder / self.class_names[label] / name


def class_names(path: epath.PathLike) -> list[str]:
    """Returns the names of the classes to train on.

    Raises:
      ValueError: There is no such folder, or it has fewer than two classes.
    """
    folder = _split_folder(path, "train")
    found = _folders(folder)
    if len(found) < 2:
        raise ValueError(f"{folder} has {len(found)} folders of classes; {_LAYOUT}")
    return found


def records(
    path: epath.PathLike, split: str, *, class_names: Sequence[str]
) -> FolderRecords:
    """Lists the files of a split; those with another suffix than `SUFFIXES` are not.

    Args:
      path: Of the folder of the data set.
      split: "train", "val" or "test"; "test" is val/ where there is no test/.
      class_names: That the split must have. Others than train/ may have empty ones.

    Raises:
      ValueError: There is no such split, it has other classes, or no images.
    """
    folder = _split_folder(path, split)
    there = _folders(folder)
    for has, names in (
        ("lacks", sorted({*class_names} - {*there})),
        ("also has", sorted({*there} - {*class_names})),
    ):
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise ValueError(
                f"{folder} {has} {len(names)} classes: {shown}; every split needs a "
                "folder, if need be empty, for each class trained on, and no other"
            )
    files = []
    for label, name in enumerate(class_names):
        found = sorted(
            file.name
            for file in (folder / name).iterdir()
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
        )
        if not found and split == "train":
            raise ValueError(
                f"{folder / name} has no images ({', '.join(SUFFIXES)}); "
                "add some, or remove the class"
            )
        files += [(label, file) for file in found]
    if not files:
        raise ValueError(f"{folder} has no images ({', '.join(SUFFIXES)})")
    return FolderRecords(folder, tuple(class_names), files)


def _split_folder(path: epath.PathLike, split: str) -> epath.Path:
    root = paths.absolute(path)
    if not root.is_dir():
        raise ValueError(f"no folder {root}; {_LAYOUT}")
    choices = ("test", "val") if split == "test" else (split,)
    for name in choices:
        if (root / name).is_dir():
            return root / name
    there = ", ".join(_folders(root)) or "no folders"
    raise ValueError(f"{root} has no {' or '.join(choices)}/ ({there}); {_LAYOUT}")


def _folders(folder: epath.Path) -> list[str]:
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    )
