"""The names of the classes of a data set, without loading it."""

from collections.abc import Sequence

from etils import epath

from spatial_smoothing.data import file_names, shapes, sources
from spatial_smoothing.data.sources import Source
from spatial_smoothing.data.tfds import prepared, read_imagenet


def class_names(name: str, *, data_dir: epath.PathLike | None = None) -> list[str]:
    """Returns the K names of the classes, or numbers where no name is at hand.

    ImageNet's names are WordNet ids, such as "n01440764". The English names that
    torchvision keeps with its weights ("tench") are in no library that this package
    needs.

    Args:
      name: Name of the data set, see `sources.source`.
      data_dir: Directory of TFDS, which keeps names beside the data; None for TFDS's
        default. Not used by `shapes` and folders.

    Raises:
      ValueError: There is no such data set.
    """
    source = sources.source(name, data_dir=data_dir)
    known = known_names(source, data_dir=data_dir)
    return list(known or map(str, range(source.num_classes)))


def known_names(
    source: Source, *, data_dir: epath.PathLike | None = None
) -> Sequence[str] | None:
    """Returns the K names in the order of labels; None where they are not at hand.

    Args:
      source: The data set.
      data_dir: Directory of TFDS; None for TFDS's default.
    """
    if source.class_names:
        return source.class_names
    if source.name == "shapes":
        return shapes.CLASS_NAMES
    name = sources.TFDS_NAMES.get(source.name, source.name)
    folder = prepared.root(data_dir) / name
    # Not by a pattern: the directory may have [ in its own path.
    versions = file_names.visible(folder) if folder.is_dir() else []
    for version in reversed(versions):
        path = version / "label.labels.txt"
        names = path.read_text().split() if path.is_file() else []
        if len(names) == source.num_classes:
            return names
    if source.name == "imagenet":
        return read_imagenet.wordnet_ids() or None
    return None
