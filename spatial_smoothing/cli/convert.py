"""Makes a workdir of a file with PyTorch weights, for `evaluate.py`.

    spatial-smoothing convert IN OUT --model=resnet_dnn_50

`python -m spatial_smoothing.convert` is the same. IN is .safetensors or .npz or, with
torch, .pth, .pth.tar, .pt, .ckpt or .bin. OUT is made, and must be new or empty. The
data set is the one with as many classes as the weights. Contract of this file: 0 is
success, 2 the caller's mistake and 130 an interruption, which are one line on stderr
and leave OUT as it was.
"""

import argparse
import hashlib
import pathlib
import shlex
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NoReturn

import jax

from spatial_smoothing.cli import commands, output
from spatial_smoothing.convert.files import StateDict, load_state_dict
from spatial_smoothing.convert.names import count_classes, known_layouts
from spatial_smoothing.convert.weights import from_pytorch
from spatial_smoothing.data import sources
from spatial_smoothing.models.network import HEAD
from spatial_smoothing.runs import recipes, workdirs
from spatial_smoothing.runtime import messages
from spatial_smoothing.training.checkpoints import Checkpoints


def _stage(value: str) -> int | str:
    """Reads an item of `--mc_stages`."""
    if value == HEAD or value.isdecimal():
        return value if value == HEAD else int(value)
    raise argparse.ArgumentTypeError(
        f"{value!r} is neither the number of a stage nor {HEAD!r}"
    )


# There are PyTorch names for networks that classify images only.
_DATASETS = sources.names(task=sources.CLASSIFICATION)
_FLAG = {"action": "store_true", "default": None}
# The fields of `recipes.MODEL_FIELDS` without those of the rivals. A field that is not
# given has the value that the model's name says.
_FIELDS: dict[str, dict[str, Any]] = {
    "stem": {"help": "first layers: cifar or imagenet; default: those of the data set"},
    "width": {"type": int, "help": "number of channels of the first stage"},
    "stages": {"type": int, "nargs": "+", "help": "number of blocks of each stage"},
    "rate": {"type": float, "help": "probability of dropout, in [0, 1)"},
    "stage_rates": {
        "type": float,
        "nargs": "+",
        "help": "probability of dropout of each stage, in place of one rate",
    },
    "mask": {"help": "what one draw of dropout decides: element or channel"},
    "dropout_placement": {"help": "where dropout is: residual, all or last"},
    "mc_stages": {
        "type": _stage,
        "nargs": "+",
        "help": "stages with dropout; default: all",
    },
    "smoothing": {
        "type": int,
        "nargs": "+",
        "help": "number of smoothing layers of each stage",
    },
    "temperature": {"type": float, "help": "temperature of smoothing, above 0"},
    "squash": {
        "help": "function of smoothing: tanh, sigmoid, softmax, clip, scale or none"
    },
    "taps": {"type": float, "nargs": "+", "help": "one-dimensional blur kernel"},
    "padding": {"help": "padding of the blur: full, zero, reflect, edge or wrap"},
    "smoothing_norm": {**_FLAG, "help": "smoothing begins with a batch normalisation"},
    "head": {
        "help": "classification head: gap, bn_gap, max, median, gap_clip, gap_mlp, mlp"
    },
    "head_temperature": {"type": float, "help": "temperature of gap_clip, above 0"},
    "conv_bias": {**_FLAG, "help": "the convolutions of AlexNet have biases"},
    "dtype": {"help": "compute type: float32 or bfloat16"},
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; --help shows how")


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts by command-line arguments; returns the exit code."""
    messages.quiet()
    try:
        options = vars(_parser().parse_args(arguments))
        source, out = options.pop("source"), options.pop("out").absolute()
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"{out} is there and not empty; choose another")
        print(convert(source, out, **options))
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0


def convert(
    source: pathlib.Path,
    out: pathlib.Path,
    *,
    model: str | None = None,
    dataset: str | None = None,
    data_dir: str | None = None,
    **fields,
) -> str:
    """Writes the workdir.

    Args:
      source: Path of the file with the state dictionary.
      out: Path of the workdir, new or empty.
      model: Name of the network, one of `models.names()`; None for the name in the
        file.
      dataset: Name of the data set that the network classifies; None for the only one
        with as many classes.
      data_dir: Directory of TFDS that `evaluate.py` reads; None for its default.
      **fields: Fields of the network, of `recipes.MODEL_FIELDS`. None leaves the value
        that the name says; the stem None is that of the data set.

    Returns:
      A text that says what was done, and how to evaluate the workdir.

    Raises:
      ValueError: if the file, the model and the data set do not fit together.
      OSError: if the file cannot be opened or the workdir not written.
    """
    name, state_dict = load_state_dict(source)
    model = model or name
    if model is None:
        raise ValueError(f"{source} does not name its model; pass --model=NAME")
    about = sources.source(dataset or _dataset(source, state_dict))
    if fields.get("stem") is None:
        fields["stem"] = about.stem
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = {
        "model": model,
        "dataset": about.name,
        "class_names": about.class_names,
        "data_dir": data_dir,
        "seed": 0,
        "converted_from": source.name,
        "converted_sha256": digest,
        **fields,
    }
    network = recipes.build_model(config)
    given = {
        field: getattr(network, field)
        for field, value in fields.items()
        if value is not None
    }
    variables = from_pytorch(model, state_dict, num_classes=about.num_classes, **given)
    _write(out, config, {"batch_stats": {}, **variables})
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return (
        f"{model} for {about.name} ({about.num_classes} classes, {network.stem} stem): "
        f"{count:,} parameters from {source}\n"
        f"step 0 in {out}; {commands.called('evaluate')} "
        f"--workdir={shlex.quote(str(out))}"
    )


def _dataset(source: pathlib.Path, state_dict: StateDict) -> str:
    """Returns the only data set with as many classes as the weights."""
    count = count_classes(state_dict)
    fitting = [n for n in _DATASETS if sources.source(n).num_classes == count]
    if len(fitting) == 1:
        return fitting[0]
    found = f"{count} classes" if count else "no last layer by a known name"
    choices = ", ".join(fitting or _DATASETS)
    layouts = "" if count else f"; layouts that are known: {known_layouts()}"
    raise ValueError(
        f"{source} has {found}; pass --dataset=NAME, of {choices}{layouts}"
    )


def _write(out: pathlib.Path, config: dict[str, Any], variables: dict) -> None:
    """Makes the workdir under a temporary name and renames it when it is complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        path = workdirs.claim(pathlib.Path(scratch) / out.name, config)
        with Checkpoints(path / "checkpoints") as checkpoints:
            checkpoints.save(0, {"variables": variables}, {"step": 0})
        pathlib.Path(path).rename(out)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"{commands.PROGRAM} convert",
        description="Makes a workdir of a file with PyTorch weights, for evaluate.py.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        metavar="IN",
        type=pathlib.Path,
        help="file with weights: .pth, .pth.tar, .pt, .ckpt, .bin, .safetensors, .npz",
    )
    parser.add_argument(
        "out", metavar="OUT", type=pathlib.Path, help="the workdir, new or empty"
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="name of the network; default: the name in the file",
    )
    parser.add_argument(
        "--dataset",
        help=f"{', '.join(_DATASETS)}; default: the one with as many classes",
    )
    parser.add_argument(
        "--data_dir", help="directory of TFDS; default: ~/tensorflow_datasets"
    )
    for field, options in _FIELDS.items():
        parser.add_argument(f"--{field}", **options)
    return parser


def run() -> NoReturn:
    """Runs the command with the arguments of the process."""
    output.watch(end=True)
    sys.exit(main())
