"""Corrupts a data set: `python corrupt.py --dataset=cifar100 --output=DIR`.

Writes the layout of CIFAR-10-C, which evaluate.py reads with --corrupted_dir=DIR: the
images that it makes itself where there is no such folder. What is there is kept, so
that an interrupted call is simply repeated.
"""

import jax
from absl import flags
from etils import epath

from spatial_smoothing import cli, logs
from spatial_smoothing.data import corrupted_sets, corruptions, datasets, sources
from spatial_smoothing.data.corrupted_writer import write_cifar_c

_DATASET = flags.DEFINE_string("dataset", None, f"Of {', '.join(sources.names())}.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder, new or of the same call.")
_SPLIT = flags.DEFINE_string("split", "test", "Split of the data set.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Of TFDS; its own if not given.")
_CORRUPTIONS = flags.DEFINE_list("corruptions", list(corruptions.NAMES), "Names.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 0, "Chosen at random; 0 for all.")


def corrupt() -> None:
    """Writes the corruptions asked for."""
    if not _DATASET.value or not _OUTPUT.value:
        raise ValueError("give --dataset=NAME and --output=DIR")
    names = list(dict.fromkeys(_CORRUPTIONS.value))
    if not names:
        raise ValueError("--corruptions must have at least one name, got none")
    for name in names:
        corruptions.constants_of(name, 1)
    dataset = sources.load(_DATASET.value, _SPLIT.value, data_dir=_DATA_DIR.value)
    if not isinstance(dataset, datasets.Dataset):
        raise ValueError(
            f"{_DATASET.value} does not fit in memory; it cannot be written"
        )
    numbers = datasets.choose(dataset.num_examples, _NUM_IMAGES.value)
    output = epath.Path(_OUTPUT.value)
    for name in logs.track(names, total=len(names), name="Corruptions"):
        write_cifar_c(
            jax.random.key(corruptions.SEED),
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


if __name__ == "__main__":
    cli.run(corrupt)
