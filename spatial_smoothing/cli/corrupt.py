"""Corrupts a data set: `python corrupt.py --dataset=cifar100 --output=DIR`.

Writes the layout of CIFAR-10-C, which evaluate.py reads with --corrupted_dir=DIR.
Without such a folder, evaluate.py makes the same images itself. Files that are there
are kept, so that an interrupted command is simply repeated.
"""

import shlex

from absl import flags
from etils import epath

from spatial_smoothing.cli import commands, devices, start
from spatial_smoothing.data import datasets, sources
from spatial_smoothing.data.corruption import corrupted_sets, transforms
from spatial_smoothing.data.corruption.writer import write_cifar_c
from spatial_smoothing.runs import locks
from spatial_smoothing.runtime import paths, progress, random_bits

# The layout of CIFAR-10-C holds images of one size, each with one label.
_NAMES = [
    name
    for name in sources.names(task=sources.CLASSIFICATION)
    if sources.SOURCES[name].in_memory
]
FLAGS = start.new_flags()
_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    f"Data set to corrupt: {', '.join(_NAMES)}, or one of tfds:NAME, npz:FILE and "
    "hf:NAME with images of at most 64x64 pixels.",
    flag_values=FLAGS,
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder to write to. It is new, or was written by the same command.",
    flag_values=FLAGS,
)
_SPLIT = flags.DEFINE_string(
    "split",
    "test",
    "Split of the data set, such as test or train.",
    flag_values=FLAGS,
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Directory of TFDS. Without it, that is ~/tensorflow_datasets.",
    flag_values=FLAGS,
)
_DOWNLOAD = flags.DEFINE_bool(
    "download",
    False,
    "Whether to download and prepare CIFAR where the directory does not have it.",
    flag_values=FLAGS,
)
_CORRUPTIONS = flags.DEFINE_list(
    "corruptions",
    list(transforms.NAMES),
    "Names of the corruptions, separated by commas. Without it, these are all: "
    f"{', '.join(transforms.NAMES)}.",
    flag_values=FLAGS,
)
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images",
    0,
    "Number of images, which are chosen at random; 0 takes all.",
    lower_bound=0,
    flag_values=FLAGS,
)


def corrupt() -> None:
    """Writes the corruptions that `--corruptions` names."""
    names = list(dict.fromkeys(_CORRUPTIONS.value))
    if not names:
        raise ValueError("--corruptions must have at least one name, got none")
    for name in names:
        transforms.constants_of(name, 1)
    name = _DATASET.value
    is_built_in = name in sources.SOURCES
    if name.startswith(sources.MASKS) or (is_built_in and name not in _NAMES):
        raise ValueError(_unsuitable(name))
    dataset = sources.load(
        name,
        _SPLIT.value,
        data_dir=_DATA_DIR.value,
        download=_DOWNLOAD.value,
    )
    if not isinstance(dataset, datasets.Dataset):
        raise ValueError(_unsuitable(name))
    numbers = datasets.choose(dataset.num_examples, _NUM_IMAGES.value)
    output = paths.absolute(_OUTPUT.value)
    devices.warn()
    # Two writers would write to one temporary file. A bucket is refused by the writer.
    with locks.locked(output, make=not paths.is_remote(output)):
        for each in progress.track(names, total=len(names), name="Corruptions"):
            write_cifar_c(
                random_bits.key(transforms.SEED),
                output,
                dataset.subset(numbers),
                names=[each],
                constants=corrupted_sets.constants_for(dataset),
                numbers=numbers,
            )
    print(
        f"{len(names)} corruptions of {len(numbers):,} images of {name} are "
        f"in {output}\nscore a run on them, in place of RUN: {hint(names, output)}"
    )


def _unsuitable(name: str) -> str:
    """Says that a data set cannot be written, and which ones can."""
    return (
        f"{name} cannot be written: it must have images with one label each, which are "
        f"held in memory, as {', '.join(_NAMES)} have"
    )


def hint(names: list[str], output: epath.Path) -> str:
    """Returns the command that evaluates a run on what was written."""
    command = f"{commands.called('evaluate')} --workdir=RUN --suite=corruption"
    if names != list(transforms.NAMES):
        command += f" --corruptions={','.join(names)}"
    if _SPLIT.value != "test":
        command += f" --split={_SPLIT.value}"
    return f"{command} --corrupted_dir={shlex.quote(str(paths.absolute(output)))}"


def run() -> None:
    """Runs the command with the arguments of the process."""
    start.run(
        start.Command(corrupt, FLAGS, about=__doc__, required=("dataset", "output"))
    )
