"""The names of the classes of a data set, without loading it."""

from etils import epath

from spatial_smoothing.data import shapes, sources
from spatial_smoothing.runtime import paths


def class_names(name: str, *, data_dir: epath.PathLike | None = None) -> list[str]:
    """Returns the K names, or numbers where the data set is not at hand.

    Args:
      name: Of the data set, in `sources.names()`.
      data_dir: The directory of TFDS, which keeps names beside the data; by default its
        own. Not used by `shapes`.

    Raises:
      ValueError: There is no such data set.
    """
    source = sources.source(name)
    if source.class_names:
        return list(source.class_names)
    if name == "shapes":
        return list(shapes.CLASS_NAMES)
    if not data_dir:
        from tensorflow_datasets.core import constants

        data_dir = constants.DATA_DIR
    folder = paths.absolute(data_dir) / sources.TFDS_NAMES.get(name, name)
    for path in sorted(folder.glob("*/label.labels.txt"), reverse=True):
        names = path.read_text().split()
        if len(names) == source.num_classes:
            return names
    return [str(label) for label in range(source.num_classes)]
