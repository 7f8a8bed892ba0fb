"""Lists of folders on the command line: `--workdir=A,B`, `--workdir=A --workdir=B`."""

from collections.abc import Sequence

from etils import epath

from spatial_smoothing.evaluation.suites import check_list
from spatial_smoothing.runtime import paths


def split(name: str, values: Sequence[str]) -> list[str]:
    """Returns the folders that the values of a flag name.

    Commas separate folders. The name of a folder may have commas itself, as in
    `lr=0.1,bs=16`: what exists under the longer name is one folder.

    Args:
      name: Name of the flag, for errors.
      values: Its values, each with one or more folders.

    Raises:
      ValueError: if a value can be read in two ways, or a folder is named twice,
        however it is written.
    """
    found = [folder for value in values for folder in _split_one(name, value)]
    check_list(f"--{name}", [str(paths.absolute(folder)) for folder in found])
    return found


def _split_one(name: str, value: str) -> list[str]:
    parts = value.split(",")
    found = []
    while parts:
        # The longest run of parts that is a folder; a part alone need not exist.
        sizes = [
            size for size in range(len(parts), 1, -1) if _exists(",".join(parts[:size]))
        ]
        size = sizes[0] if sizes else 1
        if size > 1 and all(map(_exists, parts[:size])):
            raise ValueError(
                f"--{name}={value} can be one folder or {size}, for all of them are "
                f"there; give each one with a flag --{name} of its own, or rename one"
            )
        found.append(",".join(parts[:size]))
        parts = parts[size:]
    return [folder for folder in found if folder]


def _exists(path: str) -> bool:
    return bool(path) and epath.Path(paths.absolute(path)).exists()
