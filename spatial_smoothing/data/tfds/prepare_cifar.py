"""Downloads CIFAR-10 and CIFAR-100 and prepares them for TFDS, without TensorFlow.

The builders here make what TFDS's own builders of these names make (features, class
names, example keys and hence `id`s and order), but read the archive with `tarfile` and
write array_record. TFDS's download manager fetches the archive and checks its size and
SHA-256. A file of the archive's name in DATA_DIR/downloads/manual is taken in place of
a download. `read_cifar` reads what is prepared here.

The binary layout (https://www.cs.toronto.edu/~kriz/cifar.html): an image is one byte
per label, then 32x32 bytes each of red, green and blue, row by row.
"""

import dataclasses
import posixpath
import tarfile
import zlib
from typing import ClassVar

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from spatial_smoothing.runtime import paths

IMAGE_SHAPE = (32, 32, 3)
_HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_CITATION = """@techreport{krizhevsky2009learning,
  author = {Krizhevsky, Alex},
  title = {Learning Multiple Layers of Features from Tiny Images},
  institution = {University of Toronto},
  year = {2009},
}"""


@dataclasses.dataclass(frozen=True)
class Labels:
    """One label byte of a record.

    Attributes:
      feature: Name of the feature that it becomes in TFDS.
      num_classes: K; the byte is in [0, K).
      names: Name of the file in the archive that lists the names of the classes.
    """

    feature: str
    num_classes: int
    names: str


@dataclasses.dataclass(frozen=True)
class Archive:
    """An archive in the binary layout.

    Attributes:
      url: Address of the archive; the last part is its file name.
      size: Size of the archive, in bytes.
      sha256: SHA-256 of the archive, in hexadecimal digits.
      folder: The folder inside the archive that holds all files named below.
      splits: Split -> files of records, in the order that numbers the examples.
      labels: The label bytes, in the order in which a record has them.
    """

    url: str
    size: int
    sha256: str
    folder: str
    splits: dict[str, tuple[str, ...]]
    labels: tuple[Labels, ...]

    @property
    def filename(self) -> str:
        """The name of the archive's file."""
        return posixpath.basename(self.url)


class _Cifar(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder of TFDS for what `archive`, which subclasses set, describes."""

    VERSION = tfds.core.Version("3.0.2")
    archive: ClassVar[Archive]

    @property
    def url_infos(self):
        """The sizes and checksums that TFDS's download manager checks."""
        archive = self.archive
        info = UrlInfo(archive.size, archive.sha256, filename=archive.filename)
        return {archive.url: info}

    def _info(self):
        labels = {
            label.feature: tfds.features.ClassLabel(num_classes=label.num_classes)
            for label in self.archive.labels
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=IMAGE_SHAPE),
                    **labels,
                }
            ),
            supervised_keys=("image", "label"),
            homepage=_HOMEPAGE,
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager):
        archive = self.archive
        path = dl_manager.download(archive.url)
        files = _read_members(path, archive)
        for label in archive.labels:
            names = _class_names(files[label.names], label, path)
            self.info.features[label.feature].names = names
        # All records are checked here, before any is written.
        records = {
            name: _split_records(files[name], archive.labels, f"{name} of {path}")
            for names in archive.splits.values()
            for name in names
        }
        return {
            split: self._generate_examples(split, [records[name] for name in names])
            for split, names in archive.splits.items()
        }

    def _generate_examples(self, split, records):
        features = [label.feature for label in self.archive.labels]
        number = 0  # TFDS shuffles by this key, as it does for its own builder
        for labels, images in records:
            for values, image in zip(labels.tolist(), images, strict=True):
                example = dict(zip(features, values, strict=True))
                example["id"] = f"{split}_{number:05d}"
                example["image"] = PIL.Image.fromarray(image)
                yield number, example
                number += 1


class Cifar10(_Cifar, skip_registration=True):
    """60,000 colour images of 32x32 pixels in 10 classes."""

    archive = Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        size=170052171,
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        folder="cifar-10-batches-bin",
        splits={
            "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        labels=(Labels("label", 10, "batches.meta.txt"),),
    )


class Cifar100(_Cifar, skip_registration=True):
    """60,000 colour images of 32x32 pixels in 100 classes, which form 20 groups."""

    archive = Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        size=168513733,
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        folder="cifar-100-binary",
        splits={"train": ("train.bin",), "test": ("test.bin",)},
        labels=(
            Labels("coarse_label", 20, "coarse_label_names.txt"),
            Labels("label", 100, "fine_label_names.txt"),
        ),
    )


BUILDERS = {"cifar10": Cifar10, "cifar100": Cifar100}


def prepare(name: str, data_dir: epath.PathLike) -> epath.Path:
    """Downloads a data set and writes it below `data_dir` as array_record.

    Without a network, the download manager tries for about three minutes.

    Args:
      name: "cifar10" or "cifar100", a key of `BUILDERS`.
      data_dir: Directory of TFDS; it is made where it does not exist.

    Returns:
      The folder of the prepared version, DATA_DIR/NAME/VERSION. It appears complete or
      not at all, so that an interrupted preparation is simply done again.

    Raises:
      ValueError: The archive cannot be had or is not the expected one, or the folder
        exists and is not complete.
    """
    builder = BUILDERS[name](data_dir=data_dir)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        builder.download_and_prepare(file_format="array_record", download_config=config)
    except (OSError, tfds.download.DownloadError, NonMatchingChecksumError) as error:
        if not builder.is_prepared():  # else another process was the first to finish
            raise _failure(builder, error) from error
    if not builder.is_prepared():
        raise ValueError(
            f"{builder.data_path} is not a complete TFDS data set; "
            "remove it and start again"
        )
    return builder.data_path


def _failure(builder: _Cifar, error: Exception) -> ValueError:
    """Returns the error for a download or a preparation that failed."""
    archive, root = builder.archive, builder.data_dir_root
    reason = paths.first_line(error).rstrip(".:")
    if getattr(error, "filename", None):  # of the operating system, not the network
        remedy = "pass a --config.data_dir that can be written to"
    else:
        manual = root / "downloads" / "manual" / archive.filename
        remedy = f"or put {archive.url} (sha256 {archive.sha256}) at {manual}"
    return ValueError(f"cannot prepare {builder.name} in {root}: {reason}; {remedy}")


def _read_members(path: epath.Path, archive: Archive) -> dict[str, bytes]:
    """Returns name -> content of the files that `archive` names; extracts nothing."""
    names = [label.names for label in archive.labels]
    names += [name for files in archive.splits.values() for name in files]
    members = {f"{archive.folder}/{name}": name for name in names}
    contents = {}
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:gz") as tar:
            for member in tar:
                if member.isfile() and member.name in members:
                    contents[members[member.name]] = tar.extractfile(member).read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a readable tar.gz archive: {error}") from error
    missing = [member for member, name in members.items() if name not in contents]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    return contents


def _class_names(content: bytes, label: Labels, path: epath.Path) -> list[str]:
    """Parses the file of class names, one a line; ValueError if some are missing."""
    names = content.decode().split()
    if len(names) != label.num_classes:
        raise ValueError(
            f"{label.names} of {path} has {len(names)} names, not {label.num_classes}"
        )
    return names


def _split_records(
    content: bytes, labels: tuple[Labels, ...], where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Parses the records of a file.

    Args:
      content: Content of the file, N records one after the other.
      labels: The L label bytes with which each record begins.
      where: What the file is called in messages.

    Returns:
      Labels u8[N, L] and images u8[N, 32, 32, 3], RGB.

    Raises:
      ValueError: The content is no whole number of records, or a label is too large.
    """
    height, width, channels = IMAGE_SHAPE
    length = len(labels) + height * width * channels
    if not content or len(content) % length:
        raise ValueError(
            f"{where} has {len(content)} bytes, which are not records of {length}"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    values, pixels = np.split(records, [len(labels)], axis=1)
    for label, column in zip(labels, values.T, strict=True):
        if column.max() >= label.num_classes:
            raise ValueError(
                f"{where} has the {label.feature} {column.max()}, "
                f"not in 0 to {label.num_classes - 1}"
            )
    planes = pixels.reshape(-1, channels, height, width)
    return values, planes.transpose(0, 2, 3, 1)
