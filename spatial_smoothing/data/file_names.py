"""Names of files and folders: hidden ones, suffixes of images, names that are no text.

Contract of this file: every reader of folders in this package uses these rules, so that
a file which one reader passes over is passed over by all of them.
"""

import os
from collections.abc import Iterable, Sequence

from etils import epath

# What operating systems and archive programs leave between the files of a user.
_LEFT_BY_SYSTEMS = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"}
)
# Formats that Pillow reads everywhere, whatever libraries it is built with.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
)
_SHOWN = 3  # names in a message, before "..."


def is_hidden(name: str) -> bool:
    """Whether a file or folder is not a part of the data.

    Args:
      name: Name without its folder, such as ".DS_Store", "._photo.png",
        ".ipynb_checkpoints", "Thumbs.db" or "__MACOSX".
    """
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def has_image_suffix(name: str) -> bool:
    """Whether a name ends as an image file's does, in small letters or capitals."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def visible(folder: epath.Path) -> list[epath.Path]:
    """Returns the files and folders in a folder that are not hidden, by name."""
    return sorted(
        (path for path in folder.iterdir() if not is_hidden(path.name)),
        key=lambda path: path.name,
    )


def check_text(path: epath.PathLike) -> None:
    """Checks that a name can be written to reports and configs, which are UTF-8.

    Names in a file system are bytes. Those of an archive that was packed in another
    encoding need not be UTF-8, and Python holds their bytes in lone surrogates, which
    no file in UTF-8 can have.

    Args:
      path: A file or folder, local or remote.

    Raises:
      ValueError: The path is not UTF-8.
    """
    text = os.fspath(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        shown = text.encode("utf-8", "backslashreplace").decode("utf-8")
        raise ValueError(
            f"the name of {shown} is not UTF-8, so that no report could name it; "
            "rename it (convmv does so for whole folders)"
        ) from None


def listed(names: Iterable[str]) -> str:
    """Returns the first names of a list for a message: "a, b, c, ..."."""
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def difference(
    found: Sequence[str], expected: Sequence[str], *, of: str = "classes"
) -> str:
    """Describes how the names that were found differ from those expected.

    Args:
      found: Names that are there, in any order.
      expected: Names that should be there, in any order.
      of: What the names are, in the plural.

    Returns:
      A text such as "lacks 2 classes: cat, dog and also has 1 classes: cow"; empty if
      the names are the same.
    """
    lacking = sorted({*expected} - {*found})
    extra = sorted({*found} - {*expected})
    parts = [
        f"{verb} {len(names)} {of}: {listed(names)}"
        for verb, names in (("lacks", lacking), ("also has", extra))
        if names
    ]
    return " and ".join(parts)
