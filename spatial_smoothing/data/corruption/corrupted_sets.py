"""All corrupted versions of a data set: made on the device, or read from a folder.

Contract of this file: a `CorruptedSet` has a data set, like those of `datasets`, for
each corruption and severity. All have the same examples in the same order.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from spatial_smoothing.data import file_names
from spatial_smoothing.data.class_names import known_names
from spatial_smoothing.data.corruption import (
    read_cifar_c,
    read_imagenet_c,
    transforms,
)
from spatial_smoothing.data.datasets import AnyDataset, Dataset
from spatial_smoothing.data.images.pipeline import EncodedDataset
from spatial_smoothing.data.sources import Source
from spatial_smoothing.data.tfds import prepared
from spatial_smoothing.runtime import paths, random_bits

GENERATED = "corrupted (generated)"
_SMALL = 64  # largest height and width, in pixels, corrupted as CIFAR's images are
# Name of a data set -> name of its corrupted versions in TFDS, and of their split.
_TFDS = {
    "cifar10": ("cifar10_corrupted", "test"),
    "imagenet": ("imagenet2012_corrupted", "validation"),
}
# Names that TFDS has for corruptions of CIFAR-10.
_TFDS_NAMES = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}


class CorruptedSet(Protocol):
    """The corrupted versions of a data set.

    Attributes:
      data: Where the images are from, as reports call it.
      deviations: Corruption -> a word for how it departs from the published one.
    """

    data: str
    deviations: Mapping[str, str]

    def check(self, name: str, severity: int) -> None:
        """Raises ValueError unless there is a version of these images.

        Args:
          name: Name of the corruption.
          severity: Severity, an integer from 1 to 5.
        """

    def load(self, name: str, severity: int) -> AnyDataset:
        """Returns a version; ValueError where it is absent or damaged.

        Args:
          name: Name of the corruption.
          severity: Severity, an integer from 1 to 5.
        """

    def originals(self, clean: AnyDataset) -> AnyDataset:
        """Returns the examples of a split of which there are versions, if known.

        Args:
          clean: All examples of the split. They are returned where nothing says which
            of them were corrupted.
        """


@dataclasses.dataclass(frozen=True)
class CorruptedDataset:
    """A data set whose images are corrupted, on the device, when they are needed.

    Attributes:
      clean: The N images to corrupt.
      numbers: i64[N], numbers of the examples, from which the random bits follow.
      name: Name of the corruption.
      severity: Severity, an integer from 1 to 5.
      constants: "cifar" or "imagenet", see `transforms.corrupt`.
    """

    clean: AnyDataset
    numbers: np.ndarray
    name: str
    severity: int
    constants: str

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self.numbers)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """H, W, C."""
        return self.clean.image_shape

    def subset(self, rows: np.ndarray) -> "CorruptedDataset":
        """Returns some of the examples.

        Args:
          rows: i64[n], their positions in this data set; or a mask, bool[N].
        """
        return dataclasses.replace(
            self, clean=self.clean.subset(rows), numbers=self.numbers[rows]
        )

    def batches(
        self, batch_size: int, *, rows: Sequence[int] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yields all examples in order, images on the device; the last is padded.

        Args:
          batch_size: B.
          rows: Positions in [0, B) of the examples of every batch that are wanted; None
            for all.
        """
        part = np.arange(batch_size) if rows is None else np.asarray(rows)
        for index, batch in enumerate(self.clean.batches(batch_size, rows=rows)):
            places = np.minimum(index * batch_size + part, self.num_examples - 1)
            images = transforms.corrupt(
                random_bits.key(transforms.SEED),
                batch["image"],
                self.name,
                self.severity,
                constants=self.constants,
                numbers=self.numbers[places],
            )
            yield {**batch, "image": images}


def generated(clean: AnyDataset) -> CorruptedSet:
    """Returns the versions that this package makes, the same in every run."""
    return _Generated(clean)


def read(folder: epath.PathLike, source: Source) -> CorruptedSet:
    """Returns the versions in a folder, whose layout is recognised.

    Args:
      folder: A folder in the layout of CIFAR-10-C or of ImageNet-C, or a directory of
        TFDS with cifar10_corrupted or imagenet2012_corrupted.
      source: The data set whose corrupted versions these are.

    Raises:
      ValueError: The folder is absent, or has none of these layouts.
    """
    path = paths.absolute(folder)
    if not path.is_dir():
        raise ValueError(f"no folder {path} with corrupted images")
    file_names.check_text(path)  # reports name the folder
    tfds, _ = _TFDS.get(source.name, ("", ""))
    if tfds and (path / tfds).is_dir():
        return _Prepared(path, source)
    if any(each.suffix == ".npy" for each in file_names.visible(path)):
        return _Arrays(path, source)
    if any((path / name).is_dir() for name in transforms.CORRUPTIONS):
        return _Files(path, source)
    raise ValueError(
        f"{path} holds no corrupted images of {source.name}: neither <corruption>.npy "
        "with labels.npy, nor <corruption>/<severity>/<class>/"
        + (f", nor {tfds} of TFDS" if tfds else "")
    )


def constants_for(clean: AnyDataset) -> str:
    """Returns the set of constants of `transforms` for the size of these images."""
    return "cifar" if clean.image_shape[0] <= _SMALL else "imagenet"


class _Generated:
    """Versions that are made on the device."""

    data, deviations = GENERATED, transforms.DEVIATIONS

    def __init__(self, clean: AnyDataset):
        self._clean = clean
        self._constants = constants_for(clean)

    def check(self, name: str, severity: int) -> None:
        transforms.constants_of(name, severity, constants=self._constants)

    def load(self, name: str, severity: int) -> AnyDataset:
        numbers = np.arange(self._clean.num_examples)
        return CorruptedDataset(self._clean, numbers, name, severity, self._constants)

    def originals(self, clean: AnyDataset) -> AnyDataset:
        return clean


class _Arrays:
    """Versions in the layout of CIFAR-10-C."""

    def __init__(self, folder: epath.Path, source: Source):
        # generated.json, if this package wrote the folder; it says which examples.
        about = read_cifar_c.provenance(folder)
        self.data = GENERATED if about else f"corrupted ({folder.resolve().name})"
        self.deviations = about["deviations"] if about else {}
        self._numbers = about.get("numbers") if about else None
        self._folder, self._source = folder, source

    def check(self, name: str, severity: int) -> None:
        self.load(name, severity)

    def load(self, name: str, severity: int) -> Dataset:
        found = read_cifar_c.read_cifar_c(
            self._folder, name, severity, num_classes=self._source.num_classes
        )
        size = self._source.image_size
        if found.image_shape != (size, size, 3):
            raise ValueError(
                f"{read_cifar_c.array_file(self._folder, name)} has images "
                f"{list(found.image_shape)}, not {[size, size, 3]}"
            )
        return found

    def originals(self, clean: AnyDataset) -> AnyDataset:
        if self._numbers is None or max(self._numbers) >= clean.num_examples:
            return clean  # the folder does not say, or has another split
        return clean.subset(np.asarray(self._numbers))


class _Encoded:
    """Versions whose images are decoded when they are needed."""

    deviations: Mapping[str, str] = {}

    def __init__(self, folder: epath.Path, source: Source):
        self.data = f"corrupted ({folder.resolve().name})"
        self._folder, self._source = folder, source

    def originals(self, clean: AnyDataset) -> AnyDataset:
        return clean


class _Files(_Encoded):
    """Versions in the layout of ImageNet-C; files are listed when they are needed."""

    def check(self, name: str, severity: int) -> None:
        root = read_imagenet_c.imagenet_c_folder(self._folder, name, severity)
        read_imagenet_c.labelled_folders(root, **self._classes())

    def load(self, name: str, severity: int) -> EncodedDataset:
        return read_imagenet_c.read_imagenet_c(
            self._folder,
            name,
            severity,
            size=self._source.image_size,
            **self._classes(),
        )

    def _classes(self) -> dict[str, Any]:
        """Returns number and names of the classes, by which folders get labels."""
        class_names = known_names(self._source)
        if class_names is None:
            raise ValueError(
                f"the names of the classes of {self._source.name}, by which the "
                f"folders in {self._folder} would get their labels, are not at hand; "
                "TFDS keeps them beside the data, in $TFDS_DATA_DIR"
            )
        return {"num_classes": self._source.num_classes, "class_names": class_names}


class _Prepared(_Encoded):
    """Versions that TFDS prepared, one data set for each corruption and severity."""

    def __init__(self, folder: epath.Path, source: Source):
        super().__init__(folder, source)
        self._name, self._split = _TFDS[source.name]
        self.data = f"corrupted (TFDS {self._name})"

    def check(self, name: str, severity: int) -> None:
        self._version(name, severity)

    def load(self, name: str, severity: int) -> EncodedDataset:
        records = prepared.encoded_records(
            self._version(name, severity),
            self._split,
            num_classes=self._source.num_classes,
        )
        size = self._source.image_size
        return EncodedDataset(records, size, resize=size)

    def _version(self, name: str, severity: int) -> epath.Path:
        """Returns the folder of a version; ValueError if it is not prepared."""
        transforms.constants_of(name, severity)  # checks both
        if self._name == "cifar10_corrupted":
            name = _TFDS_NAMES.get(name, name)
        config = f"{name}_{severity}"
        found = prepared.find(self._folder / self._name, config)
        if found is None:
            raise ValueError(
                f"no {self._name}/{config} in {self._folder}; prepare it: tfds build "
                f"{self._name} --config={config} --file_format=array_record"
            )
        return found
