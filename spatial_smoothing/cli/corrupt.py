"""Corrupts a data set: `python corrupt.py --dataset=cifar100 --output=DIR`.

Writes the layout of CIFAR-10-C, which evaluate.py reads with --corrupted_dir=DIR: the
images that it makes itself where there is no such folder. What is there is kept, so
that an interrupted call is simply repeated.
"""

import jax
from absl import flags
from etils import epath

from spatial_smoothing.cli import start
from spatial_smoothing.data import datasets, sources
from spatial_smoothing.data.corruption import corrupted_sets, transforms
from spatial_smoothing.data.corruption.writer import write_cifar_c
from spatial_smoothing.runtime import progress

FLAGS = start.new_flags()
_DATASET = flags.DEFINE_string(
    "dataset", None, f"Of {', '.join(sources.names())}.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder, new or of the same call.", flag_values=FLAGS
)
_SPLIT = flags.DEFINE_string(
    "split", "test", "Split of the data set.", flag_values=FLAGS
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Of TFDS; its own if not given.", flag_values=FLAGS
)
_CORRUPTIONS = flags.DEFINE_list(
    "corruptions", list(transforms.NAMES), "Names.", flag_values=FLAGS
)
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images", 0, "Chosen at random; 0 for all.", flag_values=FLAGS
)


def corrupt() -> None:
    """Writes the corruptions asked for."""
    if not _DATASET.value or not _OUTPUT.value:
        raise ValueError("give --dataset=NAME and --output=DIR")
    names = list(dict.fromkeys(_CORRUPTIONS.value))
    if not names:
        raise ValueError("--corruptions must have at least one name, got none")
    for name in names:
        transforms.constants_of(name, 1)
    dataset = sources.load(_DATASET.value, _SPLIT.value, data_dir=_DATA_DIR.value)
    if not isinstance(dataset, datasets.Dataset):
        raise ValueError(
            f"{_DATASET.value} does not fit in memory; it cannot be written"
        )
    numbers = datasets.choose(dataset.num_examples, _NUM_IMAGES.value)
    output = epath.Path(_OUTPUT.value)
    for name in progress.track(names, total=len(names), name="Corruptions"):
        write_cifar_c(
            jax.random.key(transforms.SEED),
            output,
            dataset.subset(numbers),
            names=[name],
            constants=corrupted_sets.constants_for(dataset),
            numbers=numbers,
        )
    print(
        f"{len(names)} corruptions of {len(numbers):,} images of {_DATASET.value} in "
        f"{output}; python evaluate.py --suite=corruption --corrupted_dir={output}"
    )


def run() -> None:
    """Runs the command with the arguments of the process."""
    start.run(corrupt, FLAGS, about=__doc__)
