"""Writes generated corruptions of any data set in the layout of CIFAR-10-C.

`read_cifar_c` describes the layout and reads it. The folder also has generated.json,
which says how it was made, and which corruptions depart from their definition.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import jax
import numpy as np
from etils import epath

from spatial_smoothing.data.corruption import read_cifar_c, transforms
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.runtime import paths


def write_cifar_c(
    key: jax.Array,
    folder: os.PathLike | str,
    dataset: Dataset,
    *,
    names: Sequence[str] = transforms.NAMES,
    constants: str = "cifar",
    numbers: np.ndarray | None = None,
    batch_size: int = 500,
) -> list[str]:
    """Writes corrupted versions of a data set in the layout of CIFAR-10-C.

    Files appear under their name when complete; those that are there are kept, so that
    an interrupted call is simply repeated.

    Args:
      key: Key of the random bits, the same for all images.
      folder: A local folder; it is made where it does not exist.
      dataset: Images u8[N, H, H, 3] and labels i32[N].
      names: Names of the corruptions to write.
      constants: "cifar" or "imagenet", see `transforms.corrupt`.
      numbers: i64[N], numbers of the images in their data set, from which the random
        bits follow; None for 0, 1, ...
      batch_size: Number of images corrupted at once; the result does not depend on it.

    Returns:
      The names that were written now.

    Raises:
      ValueError: Unknown name or set of constants; the folder holds other data, or is
        in a bucket.
    """
    for name in names:
        transforms.constants_of(name, 1, constants=constants)
    if paths.is_remote(folder):
        raise ValueError(f"{folder} is in a bucket; write to a disk, and copy it there")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(len(dataset.labels)) if numbers is None else numbers
    _claim(folder, _description(key, dataset, constants, numbers))
    labels = np.tile(np.asarray(dataset.labels, np.int32), len(transforms.SEVERITIES))
    if not (folder / read_cifar_c.LABELS).exists():
        _write_array(folder / read_cifar_c.LABELS, labels.shape, labels.dtype, [labels])
    shape = (len(labels), *dataset.images.shape[1:])
    written = []
    for name in names:
        if not read_cifar_c.array_file(folder, name).exists():
            batches = _corrupted(
                key, dataset.images, numbers, name, constants, batch_size
            )
            _write_array(
                read_cifar_c.array_file(folder, name), shape, np.uint8, batches
            )
            written.append(name)
    return written


def _description(
    key: jax.Array, dataset: Dataset, constants: str, numbers: np.ndarray
) -> dict:
    """Returns the content of generated.json."""
    digest = hashlib.sha256(np.ascontiguousarray(dataset.images))
    digest.update(np.ascontiguousarray(dataset.labels, np.int32))
    digest.update(np.ascontiguousarray(numbers, np.int64))
    return {
        "generated_by": "spatial_smoothing",
        "constants": constants,
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "examples_sha256": digest.hexdigest(),
        "numbers": np.asarray(numbers).tolist(),
        "deviations": transforms.DEVIATIONS,
    }


def _claim(folder: pathlib.Path, description: dict) -> None:
    """Writes generated.json, or checks that the one in the folder says the same."""
    found = read_cifar_c.provenance(folder)
    if found is None:
        taken = [*read_cifar_c.available(folder), *(folder.glob(read_cifar_c.LABELS))]
        if taken:
            raise ValueError(
                f"{folder} holds corrupted data that this package did not write; pass "
                "another folder"
            )
        text = json.dumps(description, indent=2) + "\n"
        paths.write_text(epath.Path(folder) / read_cifar_c.GENERATED, text)
        return
    # The numbers are part of the digest, and too many for a message.
    for field, value in description.items():
        if field != "numbers" and found.get(field) != value:
            raise ValueError(
                f"{folder} was written with another {field.replace('_', ' ')}: "
                f"{found.get(field)}, not {value}; pass another folder"
            )


def _corrupted(
    key: jax.Array,
    images: np.ndarray,
    numbers: np.ndarray,
    name: str,
    constants: str,
    batch_size: int,
) -> Iterator[np.ndarray]:
    """Yields u8[n, H, H, 3], batch by batch, one severity after the other."""
    size = len(images)
    batch_size = min(batch_size, size)
    for severity in transforms.SEVERITIES:
        for start in range(0, size, batch_size):
            # The last batch is filled up, since another size would be compiled anew.
            chosen = np.minimum(np.arange(start, start + batch_size), size - 1)
            batch = transforms.corrupt(
                key,
                images[chosen],
                name,
                severity,
                constants=constants,
                numbers=numbers[chosen],
            )
            yield np.asarray(batch)[: size - start]


def _write_array(
    path: pathlib.Path, shape: tuple, dtype: np.dtype, parts: Iterable[np.ndarray]
) -> None:
    """Writes an .npy file part by part, under its name only when complete."""
    temporary = path.with_suffix(".npy.tmp")
    try:
        with paths.naming(epath.Path(path)), temporary.open("wb") as file:
            _write_parts(file, shape, np.dtype(dtype), parts)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_parts(
    file: BinaryIO, shape: tuple, dtype: np.dtype, parts: Iterable[np.ndarray]
) -> None:
    """Writes the header of an .npy file, and the parts of its array behind it."""
    # Not through a memory map, because a full disk would end the process.
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
    for part in parts:
        file.write(np.ascontiguousarray(part, dtype))
