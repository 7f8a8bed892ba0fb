"""A folder of images as a data set: PATH/train/CLASS/*.jpg, and val/ or test/ alike.

Contract of this file: classes are the folders of train/, in the order of their names.
Every other split must have folders of the same names, so that a label always means the
same class. Paths may be remote, as in gs://BUCKET/PATH.
"""

import dataclasses
import logging
from collections.abc import Sequence

from etils import epath

from spatial_smoothing.data import file_names
from spatial_smoothing.runtime import paths

SUFFIXES = file_names.IMAGE_SUFFIXES
_SPLITS = ("train", "val", "test")
_LAYOUT = "expected train/CLASS/*.jpg, and test/CLASS/*.jpg or val/CLASS/*.jpg"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FolderRecords:
    """Image files and their labels, in the order of class and name.

    Attributes:
      folder: The folder of the split, which holds the folders of the classes.
      class_names: Names of the classes' folders; a label is an index into them.
      files: For each file, the index of its class and its name.
    """

    folder: epath.Path
    class_names: tuple[str, ...]
    files: list[tuple[int, str]]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, number: int) -> tuple[bytes, int]:
        """Returns content and label of a file."""
        return self._path(number).read_bytes(), self.files[number][0]

    def file_name(self, number: int) -> str:
        """Returns the name of a file, without its folder."""
        return self.files[number][1]

    def describe(self, number: int) -> str:
        """Returns the path of a file."""
        return str(self._path(number))

    def _path(self, number: int) -> epath.Path:
        label, name = self.files[number]
        return self.folder / self.class_names[label] / name


def class_names(path: epath.PathLike) -> list[str]:
    """Returns the names of the classes to train on, sorted.

    Args:
      path: Folder of the data set, which holds train/.

    Raises:
      ValueError: There is no such folder, it has fewer than two classes, or the name of
        a class is not UTF-8.
    """
    folder = _split_folder(path, "train")
    found = class_folders(folder)
    if len(found) < 2:
        raise ValueError(f"{folder} has {len(found)} folders of classes; {_LAYOUT}")
    return found


def records(
    path: epath.PathLike, split: str, *, class_names: Sequence[str]
) -> FolderRecords:
    """Lists the image files of a split.

    Files with another suffix than `SUFFIXES` and subfolders of classes are not read; a
    warning says how many there are. Hidden files are passed over.

    Args:
      path: Folder of the data set, which holds train/.
      split: "train", "val" or "test"; "test" is val/ where there is no test/.
      class_names: Names of the classes, in the order of their labels. The split must
        have a folder of each name; in other splits than train/ it may be empty.

    Raises:
      ValueError: There is no such split, it has other classes, or no images.
    """
    folder = _split_folder(path, split)
    if unlike := file_names.difference(class_folders(folder), class_names):
        raise ValueError(
            f"{folder} {unlike}; every split needs a folder, if need be empty, for "
            "each class trained on, and no other"
        )
    return list_classes(folder, class_names, may_be_empty=split != "train")


def list_classes(
    folder: epath.Path, class_names: Sequence[str], *, may_be_empty: bool = False
) -> FolderRecords:
    """Lists the image files of classes, and says which files are not read.

    Args:
      folder: A folder that has a folder for each class.
      class_names: Names of the folders, in the order of their labels.
      may_be_empty: Whether some, but not all, classes may have no images.

    Raises:
      ValueError: A class, or the whole folder, has no images.
    """
    files: list[tuple[int, str]] = []
    # Images beside the folders of the classes belong to none of them.
    passed_over = [p for p in file_names.visible(folder) if p.name not in class_names]
    for label, name in enumerate(class_names):
        contents = file_names.visible(folder / name)
        images = [p for p in contents if file_names.has_image_suffix(p.name)]
        others = [p for p in contents if not file_names.has_image_suffix(p.name)]
        passed_over += others
        if not images and not may_be_empty:
            there = f", but {_described(others)}" if others else ""
            raise ValueError(
                f"{folder / name} has no images ({', '.join(SUFFIXES)}){there}; "
                "add some, or remove the class"
            )
        files += [(label, image.name) for image in images]
    if not files:
        there = f", but {_described(passed_over)}" if passed_over else ""
        raise ValueError(f"{folder} has no images ({', '.join(SUFFIXES)}){there}")
    if passed_over:
        _log.warning(
            "%s: %s are not read; images are files CLASS/NAME that end in %s",
            *(folder, _described(passed_over), ", ".join(SUFFIXES)),
        )
    return FolderRecords(folder, tuple(class_names), files)


def _described(contents: Sequence[epath.Path]) -> str:
    """Returns how many files and subfolders these are: "2 files and 1 subfolders"."""
    files, folders = [], []
    for path in contents:
        (folders if path.is_dir() else files).append(path.name)
    return " and ".join(
        f"{len(names)} {kind} ({file_names.listed(names)})"
        for kind, names in (("files", files), ("subfolders", folders))
        if names
    )


def class_folders(folder: epath.Path) -> list[str]:
    """Returns the names of the folders in a folder that are not hidden, sorted.

    Raises:
      ValueError: A name is not UTF-8.
    """
    found = [path for path in file_names.visible(folder) if path.is_dir()]
    for path in found:
        file_names.check_text(path)
    return [path.name for path in found]


def _split_folder(path: epath.PathLike, split: str) -> epath.Path:
    """Returns the folder of a split."""
    root = paths.absolute(path)
    if not root.is_dir():
        raise ValueError(f"no folder {root}; {_LAYOUT}")
    file_names.check_text(root)
    choices = ("test", "val") if split == "test" else (split,)
    for name in choices:
        if (root / name).is_dir():
            return root / name
    there = ", ".join(class_folders(root)) or "no folders"
    raise ValueError(f"{root} has no {' or '.join(choices)}/ ({there}); {_LAYOUT}")
