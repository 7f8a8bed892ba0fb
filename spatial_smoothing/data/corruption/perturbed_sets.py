"""All perturbed versions of a data set: made on the device, or read from a folder.

Contract of this file: a `PerturbedSet` has sequences of all examples, in their order.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

import jax
import numpy as np
from etils import epath

from spatial_smoothing.data import batches, file_names
from spatial_smoothing.data.corruption import perturbations, read_cifar_c, transforms
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.lookup import lookup
from spatial_smoothing.runtime import paths, random_bits

Sequences = Iterator[tuple[np.ndarray | jax.Array, np.ndarray]]
GENERATED = "perturbed (generated)"


class PerturbedSet(Protocol):
    """The perturbed versions of a data set.

    Attributes:
      data: Where the images are from, as reports call it.
      deviations: Perturbation -> a word for how it departs from the published one.
      num_examples: Number of sequences of each perturbation.
    """

    data: str
    deviations: Mapping[str, str]
    num_examples: int

    def check(self, name: str) -> None:
        """Raises ValueError unless the sequences of a perturbation are there."""

    def batches(self, name: str, numbers: np.ndarray, *, batch_size: int) -> Sequences:
        """Yields the sequences of some examples.

        Args:
          name: Name of the perturbation.
          numbers: i64[N], numbers of the examples in the data set, in order.
          batch_size: B.

        Yields:
          Frames u8[T, B, H, W, 3], and a mask bool[B], False for padding.
        """


def generated(clean: AnyDataset) -> PerturbedSet:
    """Returns the sequences that this package makes, the same in every run."""
    return _Generated(clean)


def read(folder: epath.PathLike, *, image_size: int) -> PerturbedSet:
    """Returns the sequences in a folder in the layout of CIFAR-10-P.

    Args:
      folder: A folder with <perturbation>.npy, see `read_cifar_c`.
      image_size: Height and width in pixels that frames must have.

    Raises:
      ValueError: There is no such folder, or no perturbation in it.
    """
    path = paths.absolute(folder)
    file_names.check_text(path)  # reports name the folder
    return _Arrays(path, image_size)


class _Generated:
    """Sequences that are made on the device."""

    data = GENERATED
    deviations: Mapping[str, str] = {
        "motion_blur": transforms.DEVIATIONS["motion_blur"]
    }

    def __init__(self, clean: AnyDataset):
        self._clean, self.num_examples = clean, clean.num_examples

    def check(self, name: str) -> None:
        lookup(perturbations.PERTURBATIONS, name, "perturbation")

    def batches(self, name, numbers, *, batch_size) -> Sequences:
        key = random_bits.key(transforms.SEED)
        # The numbers of the examples go through the batches as if they were labels.
        rows = batches.sequential(numbers, numbers, batch_size=batch_size)
        clean = self._clean.subset(numbers).batches(batch_size)
        for batch, row in zip(clean, rows, strict=True):
            frames = perturbations.sequence(
                key, batch["image"], name, numbers=row["label"]
            )
            yield frames, batch["mask"]


class _Arrays:
    """Sequences in the layout of CIFAR-10-P."""

    deviations: Mapping[str, str] = {}

    def __init__(self, folder: epath.Path, image_size: int):
        self.data = f"perturbed ({folder.resolve().name})"
        self._folder, self._size = folder, image_size
        names = read_cifar_c.available(folder, names=perturbations.NAMES)
        if not names:
            raise ValueError(
                f"{folder} holds no sequences, <perturbation>.npy; choices: "
                f"{', '.join(perturbations.NAMES)}"
            )
        self.num_examples = len(read_cifar_c.read_cifar_p(folder, names[0]))

    def check(self, name: str) -> None:
        self._read(name)

    def batches(self, name, numbers, *, batch_size) -> Sequences:
        sequences = self._read(name)
        for row in batches.sequential(numbers, numbers, batch_size=batch_size):
            yield sequences[row["image"]].swapaxes(0, 1), row["mask"]

    def _read(self, name: str) -> np.ndarray:
        found = read_cifar_c.read_cifar_p(self._folder, name)
        path = read_cifar_c.array_file(self._folder, name)
        if found.shape[2:4] != (self._size, self._size):
            raise ValueError(
                f"{path} has frames {list(found.shape[2:])}, not "
                f"{[self._size, self._size, 3]}"
            )
        if len(found) != self.num_examples:
            raise ValueError(
                f"{path} has {len(found)} sequences, others {self.num_examples}; "
                "extract the archive again"
            )
        return found
