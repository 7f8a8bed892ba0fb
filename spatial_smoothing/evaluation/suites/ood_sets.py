"""The sets of images that `--suite=ood` is to detect: read from a flag, and loaded.

Contract of this file: a set is given as `near:SPEC` or `far:SPEC`, where SPEC names a
data set as `Setting.load` takes it. No set is that which is tested, or another one.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from spatial_smoothing.data.datasets import AnyDataset, Dataset
from spatial_smoothing.evaluation.detection import DISTANCES
from spatial_smoothing.runs import recipes

_TFDS = "tfds:"


class OodSet(NamedTuple):
    """A set of out-of-distribution images.

    Attributes:
      name: The data set as the flag names it.
      distance: "near" or "far"; "validation" for the set that constants are chosen on.
      dataset: The images; their labels mean nothing.
    """

    name: str
    distance: str
    dataset: AnyDataset


class OodSets(NamedTuple):
    """All sets of an evaluation.

    Attributes:
      tested: The sets to be detected.
      validation: The set on which constants are chosen; None for published constants.
    """

    tested: tuple[OodSet, ...]
    validation: OodSet | None = None


def parse(text: str | None) -> list[tuple[str, str]]:
    """Reads the flag `--ood`.

    Args:
      text: Its value, such as "near:cifar10,far:svhn_cropped".

    Returns:
      Pairs of distance and name of the data set.

    Raises:
      ValueError: for a list without a set, or with one that is not near or far, has no
        name, or is there twice.
    """
    parts = [part for part in (text or "").split(",") if part.strip()]
    if not parts:
        raise ValueError(
            "--suite=ood detects the images of other data sets, and --ood names none; "
            "give --ood=near:NAME,far:NAME,..."
        )
    found: list[tuple[str, str]] = []
    for part in parts:
        distance, colon, name = part.strip().partition(":")
        if not colon or distance not in DISTANCES:
            raise ValueError(
                f"--ood of --suite=ood must say of each data set whether it is near or "
                f"far, got {part}; give near:{part} or far:{part}"
            )
        if not name:
            raise ValueError(f"--ood has no data set after {part}; give {part}NAME")
        if any(_is_same(name, other) for _, other in found):
            raise ValueError(f"--ood must name each data set once, got {name} twice")
        found.append((distance, name))
    return found


def has_distances(text: str | None) -> bool:
    """Whether the flag `--ood` names sets for `--suite=ood`, and not a single one."""
    return any(part.startswith(("near:", "far:")) for part in (text or "").split(","))


def check_names(
    pairs: Iterable[tuple[str, str]], validation: str | None, own: str
) -> None:
    """Raises ValueError if a set is tested on twice, or is not another one.

    Args:
      pairs: Pairs of distance and name, of `parse`.
      validation: Name of the set that constants are chosen on; None for none.
      own: Name of the data set that the network classifies.
    """
    names = [name for _, name in pairs]
    for name in [*names, *([validation] if validation else [])]:
        if _is_same(name, own):
            raise ValueError(
                f"--ood names {name}, which is what the network classifies; choose "
                "another data set"
            )
    if validation == "":
        raise ValueError(
            "--ood_validation names no data set; give one, or leave it out"
        )
    if validation and any(_is_same(validation, name) for name in names):
        raise ValueError(
            f"--ood_validation={validation} is tested on, too; choose a data set that "
            "--ood does not name"
        )


def load(
    pairs: Sequence[tuple[str, str]],
    validation: str | None,
    *,
    own: AnyDataset,
    load: Callable[[str, str], AnyDataset],
) -> OodSets:
    """Loads the sets.

    Args:
      pairs: Pairs of distance and name, of `parse`.
      validation: Name of the set that constants are chosen on; None for none.
      own: The images in distribution that are tested.
      load: Function of the name and the split of a data set to its examples.

    Raises:
      ValueError: if a set is not there, has images of another size, or has the very
        images of another set or of `own`.
    """
    tested = tuple(OodSet(name, how, load(name, "test")) for how, name in pairs)
    chosen_on = None
    if validation is not None:
        chosen_on = OodSet(validation, "validation", load(validation, "test"))
    # Copies of one set under two names are found by their images, if in memory.
    seen = (
        {_digest(own): "the split that is tested"} if isinstance(own, Dataset) else {}
    )
    for each in (*tested, *([chosen_on] if chosen_on else [])):
        shapes = [list(data.image_shape) for data in (each.dataset, own)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"images of {each.name} are {shapes[0]}, those tested on {shapes[1]}"
            )
        if isinstance(each.dataset, Dataset):
            other = seen.setdefault(_digest(each.dataset), each.name)
            if other != each.name:
                raise ValueError(
                    f"the images of {each.name} are those of {other}; choose another "
                    "data set"
                )
    return OodSets(tested, chosen_on)


def _digest(dataset: Dataset) -> int:
    """A number that differs where images do; labels of OOD images mean nothing."""
    return zlib.crc32(np.ascontiguousarray(dataset.images))


def _is_same(name: str, other: str) -> bool:
    """Whether two names are of one data set, or of parts of one."""
    names = [
        re.sub(r"\[[^\]]*\]$", "", text).removeprefix(_TFDS) for text in (name, other)
    ]
    return recipes.is_same_dataset(*names)
