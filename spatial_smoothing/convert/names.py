"""What PyTorch calls the variables of a network.

Contract of this file: a path leads from the collection to the leaf, as in `("params",
"stage1_block0", "conv1", "kernel")`; its PyTorch key is a module and a leaf, as in
`layer1.0.conv1.weight`. There are two namings, that of the paper's authors and that of
torchvision's ResNet, ResNeXt, WideResNet, AlexNet and VGG with batch normalisation.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from spatial_smoothing.lookup import lookup
from spatial_smoothing.models.network import Network
from spatial_smoothing.models.resnet import ResNet
from spatial_smoothing.models.vgg import VGG

Path = tuple[str, ...]
Rules = Iterable[tuple[str, str]]  # a pattern of Flax modules and its replacement

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def pytorch_key(model: Network, path: Path, *, naming: str = "authors") -> str:
    """Returns the PyTorch key of a variable.

    Args:
      model: The network.
      path: Keys of the variable, from the collection to the leaf.
      naming: "authors" or "torchvision", a key of `NAMINGS`.

    Raises:
      ValueError: The naming is unknown, or has no name for the variable.
    """
    *module, leaf = path[1:]
    joined = "/".join(module)
    for pattern, replacement in lookup(NAMINGS, naming, "naming")(model):
        if match := re.fullmatch(pattern, joined):
            return f"{match.expand(replacement)}.{_LEAVES[leaf]}"
    raise ValueError(
        f"there is no {naming} name for {joined!r} of this network; "
        f"namings: {', '.join(NAMINGS)}"
    )


def _authors(model: Network) -> Rules:
    """Yields the rules of the names that the paper's authors give."""
    residual = isinstance(model, ResNet)
    # In PyTorch the classifier is a sequence, in which pools come before the layers
    # with weights: one in plain networks, and one more before the MLP.
    position = (not residual) + (model.head == "mlp")
    yield r"head/norm", rf"classifier.{position}.bn"
    yield r"head/(dense\d?)", rf"classifier.{position}.\1"
    yield r"smoothing(\d+)_(\d+)/norm", r"smooth\1.\2.bn"
    if residual:
        yield r"stem_conv", r"layer0.0"
        yield r"stem_norm", r"layer0.1"
        yield from _residual_blocks("shortcut")
        return
    for stage, depth in enumerate(model.stages):
        for block in range(depth):
            index = block + (stage > 0)  # a pool comes first in all stages but one
            yield f"stage{stage}_block{block}/conv", f"layer{stage}.{index}.conv"
            yield f"stage{stage}_block{block}/norm", f"layer{stage}.{index}.bn"


def _torchvision(model: Network) -> Rules:
    """Yields the rules of torchvision's names; none for networks it does not have."""
    if getattr(model, "preactivation", False):
        return
    if isinstance(model, ResNet):
        yield r"stem_conv", r"conv1"
        yield r"stem_norm", r"bn1"
        yield r"head/dense", r"fc"
        yield from _residual_blocks("downsample")
        return
    vgg = isinstance(model, VGG)
    # In PyTorch the classifier is a sequence, in which dense layers are numbered among
    # ReLU and dropout layers; AlexNet's begins with dropout.
    for number, index in enumerate((0, 3, 6) if vgg else (1, 4, 6), 1):
        yield rf"head/dense{number}", rf"classifier.{index}"
    index = 0
    for stage, depth in enumerate(model.stages):
        for block in range(depth):
            yield f"stage{stage}_block{block}/conv", f"features.{index}"
            if vgg:
                yield f"stage{stage}_block{block}/norm", f"features.{index + 1}"
            index += 3 if vgg else 2  # convolution, norm, ReLU
        index += 1  # pool


def _residual_blocks(shortcut: str) -> Rules:
    """Yields the rules of residual blocks, whose projections are called `shortcut`."""
    block = r"stage(\d+)_block(\d+)"
    yield rf"{block}/conv(\d)", r"layer\1.\2.conv\3"
    yield rf"{block}/norm(\d)", r"layer\1.\2.bn\3"
    yield rf"{block}/shortcut_conv", rf"layer\1.\2.{shortcut}.0"
    yield rf"{block}/shortcut_norm", rf"layer\1.\2.{shortcut}.1"


# Name of the last layer's bias in any naming; its length is the number of classes.
LAST_BIAS = r"(fc|classifier\.6|classifier\.\d\.dense3?)\.bias"
# What wrappers of networks put in front of all names: DataParallel, torch.compile,
# Lightning and others that hold the network in an attribute.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")


def without_prefixes(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a state dictionary without the prefixes that all of its names have.

    Args:
      state_dict: PyTorch name -> array.
    """
    found = dict(state_dict)
    for prefix in _shared_prefixes(found):
        found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found


def _shared_prefixes(names: Iterable[str]) -> Iterator[str]:
    """Yields the prefixes, outermost first, that all names share."""
    names = list(names)
    while names:
        shared = [p for p in PREFIXES if all(name.startswith(p) for name in names)]
        if not shared:
            return
        yield shared[0]
        names = [name.removeprefix(shared[0]) for name in names]


def count_classes(state_dict: Mapping[str, Any]) -> int | None:
    """Returns the number of classes of weights; None where no last layer is known.

    Args:
      state_dict: PyTorch name -> array, in any naming, with prefixes or without.
    """
    named = without_prefixes(state_dict).items()
    biases = [value for key, value in named if re.fullmatch(LAST_BIAS, key)]
    return len(biases[0]) if biases and np.ndim(biases[0]) == 1 else None


# Name of a layout -> function from a network to its rules, of which the first that
# matches holds.
NAMINGS = {"authors": _authors, "torchvision": _torchvision}
# Names of each layout to tell it by, for messages.
EXAMPLES = {
    "authors": "layer0.0.weight, classifier.0.dense.weight",
    "torchvision": "conv1.weight, fc.weight or features.0.weight",
}


def known_layouts() -> str:
    """Returns the layouts that are known, for messages: "authors (...), ..."."""
    return ", ".join(f"{name} ({EXAMPLES[name]})" for name in NAMINGS)
