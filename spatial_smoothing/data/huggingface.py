"""Opens image classification sets through Hugging Face's library `datasets`.

The library is an extra: `pip install 'spatial-smoothing[hf]'`.
"""

import dataclasses
import functools
from typing import Any

from spatial_smoothing.data.image_sets import ImageSet
from spatial_smoothing.data.images import image_files
from spatial_smoothing.runtime import paths

_LOOKED_AT = 20  # images whose size is looked at


@dataclasses.dataclass(frozen=True)
class HubRecords:
    """Encoded images and labels of a split, by number.

    Attributes:
      rows: The rows of the split; the image column holds the content of a file.
      image: Name of the image column.
      label: Name of the label column; None where labels are not used, and all are 0.
      num_classes: K; labels are in [0, K).
      name: Set and split, for messages.
    """

    rows: Any
    image: str
    label: str | None
    num_classes: int
    name: str

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, number: int) -> tuple[bytes, int]:
        """Returns content and label of a row; ValueError if the label is none."""
        row = self.rows[number]
        held = row[self.image]
        content = held["bytes"]
        if content is None:  # the rows hold paths, and not the files themselves
            content = paths.absolute(held["path"]).read_bytes()
        if self.label is None:
            return content, 0
        label = row[self.label]
        if label is None or not 0 <= label < self.num_classes:
            raise ValueError(f"label {label} is not in 0 to {self.num_classes - 1}")
        return content, int(label)

    def describe(self, number: int) -> str:
        """Returns set, split and number of a row."""
        return f"row {number} of {self.name}"


def open_hub(place: str) -> ImageSet:
    """Opens a set of the Hugging Face Hub, or a local folder.

    Args:
      place: Name of a set, such as "zalando-datasets/fashion_mnist", or path of a
        folder, such as one with parquet files; with "#COLUMN" behind it, that column is
        the label.

    Raises:
      ValueError: The library is not installed, the set cannot be loaded, or it has no
        column of images, or not one of class labels.
    """
    name, _, column = place.partition("#")
    try:
        import datasets
    except ModuleNotFoundError:
        raise ValueError(
            f"reading hf:{place} takes the library datasets; "
            "pip install 'spatial-smoothing[hf]'"
        ) from None
    folder = paths.absolute(name)
    is_local = bool(name) and folder.is_dir()
    try:
        if is_local and (folder / "dataset_dict.json").exists():
            splits = datasets.load_from_disk(str(folder))
        else:
            splits = datasets.load_dataset(str(folder) if is_local else name)
    except Exception as error:  # the library raises what each of its parts raises
        raise ValueError(
            f"cannot load hf:{place}: {paths.first_line(error)}; give the name of a "
            "set of the Hub, or a folder"
        ) from None
    features = next(iter(splits.values())).features
    image = _column(place, features, datasets.Image, "")
    label = _column(place, features, datasets.ClassLabel, column)
    names = tuple(map(str, features[label].names))

    def open_split(split: str, *, labelled: bool = True) -> HubRecords:
        rows = splits[split].cast_column(image, datasets.Image(decode=False))
        where = f"hf:{place}, split {split}"
        return HubRecords(rows, image, label if labelled else None, len(names), where)

    return ImageSet(
        name=f"hf:{place}",
        class_names=names,
        splits=tuple(splits),
        image_size=_common_size(open_split(next(iter(splits)), labelled=False)),
        open=open_split,
        version=functools.partial(_version, splits, label),
    )


def _column(place: str, features: Any, kind: type, wanted: str) -> str:
    """Returns the name of the only column of a kind, or of the one that is wanted."""
    found = [name for name, feature in features.items() if isinstance(feature, kind)]
    if wanted in found:
        return wanted
    if len(found) == 1 and not wanted:
        return found[0]
    if "label" in found and not wanted:
        return "label"
    raise ValueError(
        f"hf:{place} has {len(found)} columns of the type {kind.__name__} "
        f"({', '.join(found) or 'columns are ' + ', '.join(features)}); "
        "choose the label as hf:NAME#COLUMN"
    )


def _version(splits: Any, label: str, split: str) -> list[Any]:
    """Returns the files that hold the rows of a split: new ones are read anew."""
    rows = splits[split]
    names = sorted(str(file["filename"]) for file in rows.cache_files)
    files = [[name, *paths.stamp(paths.absolute(name))] for name in names]
    return [files, rows.num_rows, label, split]


def _common_size(records: HubRecords) -> int | None:
    """Returns the height and width of some images; None where they differ.

    A column of images does not tell their size. Should another image differ, it is
    resized as every image is.
    """
    count = len(records)
    if not count:
        return None
    chosen = sorted({0, count - 1, *range(0, count, max(count // _LOOKED_AT, 1))})
    sizes = {
        image_files.open_content(records.read(number)[0]).size for number in chosen
    }
    (width, height) = sizes.pop()
    return height if not sizes and height == width else None
