"""Directories of TFDS: finds a prepared data set, DIR/NAME/VERSION, and opens it.

Contract of this file: only the format array_record is read, which takes no TensorFlow.
TFDS is imported inside the functions, because importing it takes longer than the rest
of this package does.
"""

import contextlib
import dataclasses
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from spatial_smoothing.runtime import paths


class Split(NamedTuple):
    """A split of a prepared data set.

    Attributes:
      records: Examples by number; dictionaries with `image` and `label`.
      shards: For each file of the split, in order, its path and its number of examples.
    """

    records: Sequence[Mapping[str, Any]]
    shards: list[tuple[epath.Path, int]]


@dataclasses.dataclass(frozen=True)
class EncodedRecords:
    """Encoded images and labels of a split, by number.

    Attributes:
      source: TFDS's examples by number; `image` is the content of an image file.
      name: Split and folder, for messages.
      num_classes: K; labels are in [0, K).
      feature: Name of the feature that is the label; None where labels are not used,
        and all are 0.
    """

    source: Sequence[Mapping[str, Any]]
    name: str
    num_classes: int
    feature: str | None = "label"

    def __len__(self) -> int:
        return len(self.source)

    def read(self, number: int) -> tuple[bytes, int]:
        """Returns content and label of a record; ValueError if the label is none."""
        example = self.source[number]
        if self.feature is None:
            return example["image"], 0
        label = int(example[self.feature])
        if not 0 <= label < self.num_classes:
            raise ValueError(f"label {label} is not in 0 to {self.num_classes - 1}")
        return example["image"], label

    def file_name(self, number: int) -> str:
        """Returns the name of the file that an image was made of; "" if not known."""
        name = self.source[number].get("file_name", b"")
        return name.decode() if isinstance(name, bytes) else str(name)

    def describe(self, number: int) -> str:
        """Returns split and number of a record."""
        return f"record {number} of {self.name}"


def root(data_dir: epath.PathLike | None) -> epath.Path:
    """Returns the directory of TFDS; None gives TFDS's default, $TFDS_DATA_DIR."""
    if not data_dir:
        from tensorflow_datasets.core import constants

        data_dir = constants.DATA_DIR
    return paths.absolute(data_dir)


def find(root: epath.Path, name: str) -> epath.Path | None:
    """Returns the folder of a data set's newest version that is array_record.

    Args:
      root: Directory of TFDS.
      name: Name of the data set in TFDS; NAME/CONFIG where it has configurations.

    Returns:
      ROOT/NAME/VERSION; None where nothing is prepared.

    Raises:
      ValueError: There are versions, but all are in other formats.
    """
    formats = {folder: _formats(folder) for folder in _versions(root / name)}
    for folder, found in formats.items():
        if "array_record" in found:
            return folder
    if not formats:
        return None
    folder, found = next(iter(formats.items()))
    raise ValueError(
        f"{folder} is prepared as {', '.join(found) or 'no known format'}, which takes "
        "TensorFlow to read; write array_record beside it (tfds convert_format "
        f"--dataset_version_dir={folder} --out_file_format=array_record), or pass "
        "another --config.data_dir"
    )


def _versions(folder: epath.Path) -> list[epath.Path]:
    """Returns the prepared versions in the folder of a data set, newest first.

    One that is not complete has no dataset_info.json, or another name than a version.
    """
    if not folder.is_dir():
        return []
    versions = [
        path
        for path in folder.iterdir()
        if re.fullmatch(r"\d+\.\d+\.\d+", path.name)
        and (path / "dataset_info.json").exists()
    ]
    return sorted(versions, key=lambda p: [*map(int, p.name.split("."))], reverse=True)


def _formats(folder: epath.Path) -> list[str]:
    """Returns the file formats in a version: "array_record", "tfrecord", ..."""
    matches = (re.search(r"\.(\w+)-\d+-of-\d+$", p.name) for p in folder.iterdir())
    return sorted({match[1] for match in matches if match})


def nothing_prepared(root: epath.Path, name: str, remedy: str) -> ValueError:
    """Returns the error for a data set of which nothing is prepared.

    Args:
      root: Directory of TFDS.
      name: Name of the data set in TFDS.
      remedy: What to do about it, unless `root` suggests a better directory.
    """
    if not root.exists():
        return ValueError(f"data directory {root} does not exist; {remedy}")
    if not root.is_dir():
        return ValueError(f"data directory {root} is not a directory; {remedy}")
    if (root / "dataset_info.json").exists():
        remedy = f"did you mean --config.data_dir={root.parent.parent}?"
    elif _versions(root):
        remedy = f"did you mean --config.data_dir={root.parent}?"
    others = {p.parent.parent.name for p in root.glob("*/[0-9]*/dataset_info.json")}
    return ValueError(
        f"no {name} of TFDS in data directory {root} "
        f"(no {name}/VERSION/dataset_info.json; prepared there: "
        f"{', '.join(sorted(others)) or 'nothing'}); {remedy}"
    )


@contextlib.contextmanager
def local_copy(folder: epath.Path, split: str) -> Iterator[epath.Path]:
    """Yields a folder, or a copy of one in a bucket: array_record reads only files.

    Args:
      folder: Folder of the version.
      split: Name of the split whose records are copied; others are left out.
    """
    if not paths.is_remote(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = epath.Path(scratch) / folder.name
        copy.mkdir()
        for path in folder.iterdir():
            if "-of-" not in path.name or f"-{split}.array_record-" in path.name:
                (copy / path.name).write_bytes(path.read_bytes())
        yield copy


def open_split(
    folder: epath.Path,
    split: str,
    *,
    num_classes: int,
    encoded: bool = False,
    feature: str = "label",
) -> Split:
    """Opens a split of a version.

    Args:
      folder: Folder of the version.
      split: Name of the split in TFDS.
      num_classes: K; data with another number of classes are refused.
      encoded: Whether images are left as the bytes of their files.
      feature: Name of the feature that is the label.

    Raises:
      ValueError: There is no such split, the data are damaged, or they have another
        number of classes.
    """
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()} if encoded else None
    try:
        builder = tfds.builder_from_directory(folder)
        found = builder.info.features[feature].num_classes
        records = builder.as_data_source(file_format="array_record", decoders=decoders)
    except Exception as error:  # TFDS, protobuf and json each raise their own
        raise unreadable(folder, error) from error
    if found != num_classes:
        raise ValueError(f"{folder} has {found} classes, not {num_classes}")
    if split not in records:
        raise ValueError(
            f"{folder} has no split {split!r}, only {', '.join(records)}; "
            "pass a --config.data_dir that has it"
        )
    info = builder.info.splits[split]
    shards = list(zip(info.filepaths, info.shard_lengths, strict=True))
    return Split(records[split], shards)


def encoded_records(
    folder: epath.Path,
    split: str,
    *,
    num_classes: int,
    feature: str = "label",
    labelled: bool = True,
) -> EncodedRecords:
    """Opens a split and leaves its images encoded.

    Args:
      folder: Folder of the version, not in a bucket.
      split: Name of the split in TFDS.
      num_classes: K; data with another number of classes are refused.
      feature: Name of the feature that is the label.
      labelled: Whether labels are read; if not, all are 0.

    Raises:
      ValueError: The folder is in a bucket, there is no such split, or the data are
        damaged or have another number of classes.
    """
    if paths.is_remote(folder):
        raise ValueError(
            f"array_record cannot be read in a bucket: {folder}; mount the bucket as a "
            "file system (gcsfuse), or copy the folder to a disk, and pass that as "
            "--config.data_dir"
        )
    records, _ = open_split(
        folder, split, num_classes=num_classes, encoded=True, feature=feature
    )
    return EncodedRecords(
        records, f"{split} in {folder}", num_classes, feature if labelled else None
    )


def unreadable(path: epath.Path, error: Exception) -> ValueError:
    """Returns the error for files that cannot be read.

    Args:
      path: File or folder.
      error: What reading it raised.
    """
    return ValueError(
        f"cannot read {path}: {type(error).__name__}: {paths.first_line(error)}; if it "
        "is damaged, remove this version and prepare it again"
    )
