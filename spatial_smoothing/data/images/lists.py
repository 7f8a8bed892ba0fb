"""Image files that a text file lists, or that are anywhere below a folder.

A list has a line `relative/path label` for each image, as the lists of OpenOOD have.
"""

import dataclasses
import os
from collections.abc import Sequence

from etils import epath

from spatial_smoothing.data import file_names
from spatial_smoothing.runtime import paths

# Folders beside a list, or above it, in which OpenOOD keeps the images.
_IMAGE_FOLDERS = ("", "images_classic", "images_largescale")
_LEVELS = 3  # folders above the list that are searched


@dataclasses.dataclass(frozen=True)
class FileRecords:
    """Image files and their labels, in the order of a list.

    Attributes:
      folder: The folder that the paths of the files are relative to.
      files: For each file, its label and its path.
    """

    folder: epath.Path
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
        return self.folder / self.files[number][1]


def read_list(place: str, *, num_classes: int | None = None) -> FileRecords:
    """Reads a list of image files.

    Args:
      place: Path of the list, or "LIST@FOLDER" with the folder that its paths are
        relative to. Without it, that is the first of the list's folder, the folders
        above it, and `images_classic/` and `images_largescale/` in these, in which the
        first image is.
      num_classes: K, where labels must be in [0, K); None where labels are not used,
        and may be any whole number or missing. All are 0 then.

    Raises:
      ValueError: There is no such file, it lists nothing, or a line is not as it should
        be.
    """
    path, folder = _parts(place)
    if not path.is_file():
        raise ValueError(f"no list of images {path}; a line is: relative/path label")
    try:
        # Editors of Windows begin a file with a mark, which is no part of a path.
        text = path.read_text(encoding="utf-8").removeprefix("\ufeff")
        lines = text.splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text; a line is: relative/path label") from None
    files = [
        _parse(line, f"{path}, line {number}", num_classes)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not files:
        raise ValueError(f"{path} lists no images; a line is: relative/path label")
    return FileRecords(_folder_of(path, folder, files[0][1]), files)


def images_below(folder: epath.PathLike) -> FileRecords:
    """Lists all image files below a folder, at any depth, by path; labels are 0.

    Hidden files and folders are passed over, and links to a folder that they are in.

    Raises:
      ValueError: There is no such folder, or it has no images.
    """
    root = paths.absolute(folder)
    if not root.is_dir():
        raise ValueError(f"no folder {root}; expected image files at any depth")
    files = [(0, name) for name in _names_below(root, "", frozenset())]
    if not files:
        suffixes = ", ".join(file_names.IMAGE_SUFFIXES)
        raise ValueError(f"{root} has no images at any depth ({suffixes})")
    return FileRecords(root, files)


def _names_below(folder: epath.Path, prefix: str, above: frozenset[str]) -> list[str]:
    """Returns the paths of images below a folder, relative to where it began.

    Args:
      folder: The folder.
      prefix: Its path, relative to where it began.
      above: The folders that it is in. A link to one of them has no end, and is passed
        over.
    """
    place = os.fspath(folder)
    if not paths.is_remote(place):
        place = os.path.realpath(place)
    if place in above:
        return []
    above |= {place}
    found = []
    for path in file_names.visible(folder):
        name = f"{prefix}{path.name}"
        if path.is_dir():
            found += _names_below(path, f"{name}/", above)
        elif file_names.has_image_suffix(path.name):
            found.append(name)
    return found


def _parts(place: str) -> tuple[epath.Path, epath.Path | None]:
    """Returns the path of a list, and the folder that is given behind an "@"."""
    path = paths.absolute(place)
    if "@" not in place or path.exists():  # a path may have an "@" itself
        return path, None
    name, _, folder = place.rpartition("@")
    return paths.absolute(name), paths.absolute(folder)


def _parse(line: str, where: str, num_classes: int | None) -> tuple[int, str]:
    """Returns label and path of a line; the path may have spaces."""
    parts = line.strip().rsplit(maxsplit=1)
    has_label = len(parts) == 2 and parts[1].lstrip("-").isdigit()
    if num_classes is None:
        return 0, parts[0] if has_label else line.strip()
    if not has_label:
        raise ValueError(
            f"{where} has no label: {line.strip()!r}; a line is: relative/path label"
        )
    label = int(parts[1])
    if not 0 <= label < num_classes:
        raise ValueError(
            f"{where} has the label {label}, not in 0 to {num_classes - 1}"
        )
    return label, parts[0]


def _folder_of(path: epath.Path, folder: epath.Path | None, first: str) -> epath.Path:
    """Returns the folder in which the first image of a list is."""
    if folder is not None:
        candidates: Sequence[epath.Path] = [folder]
    else:
        above = [path.parent, *path.parent.parents][: _LEVELS + 1]
        candidates = [
            each / name if name else each for each in above for name in _IMAGE_FOLDERS
        ]
    for candidate in candidates:
        if (candidate / first).exists():
            return candidate
    searched = ", ".join(os.fspath(each) for each in candidates[:3])
    raise ValueError(
        f"the first image of {path}, {first}, is not in {searched}"
        f"{', ...' if len(candidates) > 3 else ''}; give its folder as "
        f"list:{path}@FOLDER"
    )
