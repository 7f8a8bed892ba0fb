"""Reads CIFAR-10-C, CIFAR-100-C and CIFAR-10-P from their published folders.

CIFAR-10-C and CIFAR-100-C: FOLDER/<corruption>.npy, u8[5 N, H, W, 3] with one block of
N images per severity, and FOLDER/labels.npy, [5 N]; N is 10,000. CIFAR-10-P:
FOLDER/<perturbation>.npy, u8[N, T, H, W, 3]. Arrays are mapped into memory, and never
unpickled. A folder that `writer` wrote also has generated.json, so that nobody takes it
for a published one. `read_imagenet_c` reads ImageNet-C.
"""

import json
import os
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath

from spatial_smoothing.data.corruption import perturbations, transforms
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.data.images import image_files
from spatial_smoothing.lookup import lookup
from spatial_smoothing.runtime import paths

LABELS, GENERATED = "labels.npy", "generated.json"
_BLOCKS = len(transforms.SEVERITIES)
_REMEDY = "extract the archive again, or make the folder with corrupt.py"
Path = os.PathLike | str


def available(
    folder: Path, *, names: Iterable[str] = tuple(transforms.CORRUPTIONS)
) -> list[str]:
    """Returns the corruptions, or other names, of which a folder has a file.

    Args:
      folder: A folder in the layout at the top of this file, local or remote.
      names: Names to look for, without the suffix .npy.
    """
    return [name for name in names if array_file(folder, name).is_file()]


def provenance(folder: Path) -> dict | None:
    """Returns how this package generated a folder; None for any other folder.

    Args:
      folder: A folder, which may have a generated.json as `writer` writes it.

    Raises:
      ValueError: generated.json is damaged.
    """
    path = epath.Path(folder) / GENERATED
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is not JSON: {error}; write the folder anew"
        ) from None


def read_cifar_c(
    folder: Path, name: str, severity: int, *, num_classes: int | None = None
) -> Dataset:
    """Reads a corruption of CIFAR-10-C or CIFAR-100-C at a severity.

    Args:
      folder: A folder in the layout at the top of this file, local or remote.
      name: One of `transforms.NAMES` or `transforms.EXTRA`.
      severity: Severity, an integer from 1 to 5.
      num_classes: K; labels outside [0, K) are refused. None allows all from 0 on.

    Returns:
      Images u8[N, H, W, 3], mapped into memory, and labels i32[N].

    Raises:
      ValueError: Unknown name or severity; a file is absent, damaged or of another
        shape than the layout says.
    """
    transforms.constants_of(name, severity)  # checks both
    labels = read_labels(folder, num_classes=num_classes)
    path = array_file(folder, name)
    images = _load(path, names=available(folder))
    _check_images(path, images, ndim=4)
    if len(images) != len(labels):
        raise ValueError(
            f"{path} has {len(images)} images, but {LABELS} has {len(labels)} labels; "
            f"{_REMEDY}"
        )
    size = len(labels) // _BLOCKS
    block = slice((severity - 1) * size, severity * size)
    return Dataset(images[block], labels[block])


def read_cifar_p(folder: Path, name: str) -> np.ndarray:
    """Reads the sequences of a perturbation of CIFAR-10-P.

    Args:
      folder: A folder in the layout at the top of this file, local or remote.
      name: One of `perturbations.NAMES`.

    Returns:
      u8[N, T, H, W, 3], mapped into memory; T is the number of frames.

    Raises:
      ValueError: Unknown name; the file is absent, damaged or of another shape.
    """
    frames = lookup(perturbations.PERTURBATIONS, name, "perturbation").frames
    path = array_file(folder, name)
    images = _load(path, names=available(folder, names=perturbations.NAMES))
    _check_images(path, images, ndim=5)
    if images.shape[1] != frames:
        raise ValueError(
            f"{path} has {images.shape[1]} frames, not {frames}; {_REMEDY}"
        )
    return images


def array_file(folder: Path, name: str) -> epath.Path:
    """Returns the path of the file of a corruption or perturbation."""
    return epath.Path(folder) / f"{name}.npy"


def read_labels(folder: Path, *, num_classes: int | None = None) -> np.ndarray:
    """Reads labels.npy.

    Args:
      folder: A folder in the layout at the top of this file, local or remote.
      num_classes: K; labels outside [0, K) are refused. None allows all from 0 on.

    Returns:
      i32[5 N].

    Raises:
      ValueError: The file is absent, damaged or not five blocks, or a label is out of
        range.
    """
    path = epath.Path(folder) / LABELS
    labels = _load(path, names=available(folder))
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{path} must be integers [5 N], not {labels.dtype}{list(labels.shape)}; "
            f"{_REMEDY}"
        )
    if not len(labels) or len(labels) % _BLOCKS:
        raise ValueError(
            f"{path} has {len(labels)} labels, which are not five blocks; {_REMEDY}"
        )
    top = int(labels.max())
    if labels.min() < 0 or (num_classes is not None and top >= num_classes):
        wrong = top if labels.min() >= 0 else int(labels.min())
        bound = "at least 0" if num_classes is None else f"in 0 to {num_classes - 1}"
        raise ValueError(f"{path} has the label {wrong}, not {bound}; {_REMEDY}")
    return np.asarray(labels, np.int32)


def _load(path: epath.Path, *, names: Sequence[str]) -> np.ndarray:
    """Maps an array into memory; `names` are those that an error says are there."""
    if not path.parent.is_dir():
        raise ValueError(f"no folder {path.parent}; pass the one with {path.name}")
    if not path.is_file():
        present = ", ".join(names) or "no corruption"
        raise ValueError(f"no file {path} (there: {present}); {_REMEDY}")
    try:
        return image_files.load_array(path)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"cannot read {path}: {paths.first_line(error)}; it may be truncated: "
            f"{_REMEDY}"
        ) from error


def _check_images(path: epath.Path, images: np.ndarray, *, ndim: int) -> None:
    """Raises ValueError unless the array has images (ndim 4) or sequences (ndim 5)."""
    if images.dtype != np.uint8 or images.ndim != ndim or images.shape[-1] != 3:
        layout = "N, H, W, 3" if ndim == 4 else "N, T, H, W, 3"
        raise ValueError(
            f"{path} must be uint8[{layout}], not {images.dtype}{list(images.shape)}; "
            f"{_REMEDY}"
        )
