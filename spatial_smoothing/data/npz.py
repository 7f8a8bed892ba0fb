"""Reads images and labels from a file of NumPy, `.npz`.

Contract of this file: the arrays of a split are `SPLIT_images`, u8[N, H, W, 3] (grey:
u8[N, H, W] or u8[N, H, W, 1]), and `SPLIT_labels`, whole numbers [N] or [N, 1]. A file
with `images` and `labels` alone has the split "test". `class_names`, text [K], may name
the classes.
"""

import functools
import re
from collections.abc import Sequence

import numpy as np
from etils import epath

from spatial_smoothing.data.image_sets import ArrayRecords, ImageSet
from spatial_smoothing.runtime import paths

_LAYOUT = (
    "expected train_images u8[N, H, W, 3], train_labels i[N], test_images and "
    "test_labels, or images and labels alone"
)
_MAX_CLASSES = 100_000


def open_npz(place: str) -> ImageSet:
    """Opens a file; it reads the labels, and images when they are needed.

    Args:
      place: Path of the file.

    Raises:
      ValueError: There is no such file, it is damaged, or its arrays are others.
    """
    path = paths.absolute(place)
    if not path.is_file():
        raise ValueError(f"no file {path}; {_LAYOUT}")
    with _Arrays(path) as arrays:
        images = {_split_of(name): name for name in arrays.names if _is_images(name)}
        if not images:
            there = ", ".join(arrays.names) or "nothing"
            raise ValueError(f"{path} has no images ({there}); {_LAYOUT}")
        labels = [
            _labels(arrays[name], f"{name} of {path}")
            for split in images
            if (name := _labels_name(images[split])) in arrays.names
        ]
        named = None
        if "class_names" in arrays.names:
            named = _class_names(arrays["class_names"], path)
        sizes = {arrays.shape(name)[1:3] for name in images.values()}
    largest = max((int(each.max()) for each in labels if each.size), default=0)
    class_names = tuple(map(str, range(largest + 1) if named is None else named))
    if len(class_names) <= largest:
        raise ValueError(
            f"{path} has the label {largest}, but {len(class_names)} class_names"
        )
    size = sizes.pop()
    is_square = not sizes and len({*size}) == 1 and len(size) == 2
    stamp = paths.stamp(path)
    return ImageSet(
        name=str(path),
        class_names=class_names,
        splits=tuple(images),
        image_size=size[0] if is_square else None,
        open=functools.partial(_open, path, images),
        version=lambda split: [str(path), split, *stamp],
    )


def _open(
    path: epath.Path, names: dict[str, str], split: str, *, labelled: bool = True
) -> ArrayRecords:
    """Reads the images and the labels of a split."""
    name = names[split]
    where = f"{name} of {path}"
    with _Arrays(path) as arrays:
        images = arrays[name]
        if labelled and _labels_name(name) not in arrays.names:
            raise ValueError(f"{path} has {name} without labels; {_LAYOUT}")
        labels = np.zeros(len(images), np.int32)
        if labelled:
            labels = _labels(
                arrays[_labels_name(name)], f"{_labels_name(name)} of {path}"
            )
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(f"{where} is {images.dtype}{list(images.shape)}; {_LAYOUT}")
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim == 4 and images.shape[-1] != 3:
        raise ValueError(f"{where} has {images.shape[-1]} channels; {_LAYOUT}")
    if len(images) != len(labels) or not len(images):
        raise ValueError(f"{where} has {len(images)} images and {len(labels)} labels")
    return ArrayRecords(images, labels, where)


def _class_names(values: np.ndarray, path: epath.Path) -> Sequence[str]:
    """Returns the names of the classes as text."""
    if values.ndim != 1 or values.dtype.kind not in "SUiu":
        raise ValueError(
            f"class_names of {path} is {values.dtype}{list(values.shape)}; it must be "
            "text, or whole numbers, of the shape [K]"
        )
    names = values.tolist()
    try:
        # An array of bytes holds text in UTF-8.
        return [n.decode() if isinstance(n, bytes) else str(n) for n in names]
    except UnicodeDecodeError:
        raise ValueError(f"class_names of {path} are not UTF-8") from None


def _labels(values: np.ndarray, where: str) -> np.ndarray:
    """Returns labels as i32[N]."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    is_whole = np.issubdtype(values.dtype, np.integer)
    if values.ndim != 1 or not is_whole or (values.size and values.min() < 0):
        raise ValueError(
            f"{where} is {values.dtype}{list(values.shape)}; labels are whole numbers "
            "from 0, of the shape [N]"
        )
    # Every number up to the largest one is a class. Above 2^31 it would become another.
    if values.size and values.max() >= _MAX_CLASSES:
        raise ValueError(
            f"{where} has the label {values.max()}, and labels are below "
            f"{_MAX_CLASSES:,}; number the classes from 0"
        )
    return values.astype(np.int32)


def _is_images(name: str) -> bool:
    return name == "images" or name.endswith("_images")


def _split_of(name: str) -> str:
    return name.removesuffix("images").removesuffix("_") or "test"


def _labels_name(images_name: str) -> str:
    return re.sub("images$", "labels", images_name)


class _Arrays:
    """The arrays of a file by name; errors name the file.

    Args:
      path: The file.
    """

    def __init__(self, path: epath.Path):
        self._path = path

    def __enter__(self) -> "_Arrays":
        self._file = self._path.open("rb")
        try:
            self._arrays = np.load(self._file, allow_pickle=False)
            self.names = self._arrays.files
        except Exception as error:  # a damaged zip file raises one of many
            self._file.close()
            raise self._unreadable(error) from None
        return self

    def __exit__(self, *exception) -> None:
        self._file.close()

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            return self._arrays[name]
        except Exception as error:
            raise self._unreadable(error) from None

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of an array, from its header: pixels may be many."""
        try:
            with self._arrays.zip.open(f"{name}.npy") as file:
                version = np.lib.format.read_magic(file)
                if version == (1, 0):
                    return np.lib.format.read_array_header_1_0(file)[0]
                return np.lib.format.read_array_header_2_0(file)[0]
        except Exception as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> ValueError:
        return ValueError(
            f"cannot read {self._path}: {paths.first_line(error)}; {_LAYOUT}"
        )
