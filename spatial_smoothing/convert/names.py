"""What PyTorch calls the variables of a network.

Contract of this file: a path leads from the collection to the leaf, as in `("params",
"stage1_block0", "conv1", "kernel")`; its PyTorch key is a module and a leaf, as in
`layer1.0.conv1.weight`. There are two namings, that of the paper's authors and that of
torchvision's ResNet, ResNeXt, WideResNet, AlexNet and VGG with batch normalisation.
"""

import re
from collections.abc import Iterable

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
      naming: A key of `NAMINGS`.

    Raises:
      ValueError: if the naming has no name for it.
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
    residual = isinstance(model, ResNet)
    # Index of the classifier behind its pools: of plain networks, and of the MLP.
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
    if getattr(model, "preactivation", False):
        return
    if isinstance(model, ResNet):
        yield r"stem_conv", r"conv1"
        yield r"stem_norm", r"bn1"
        yield r"head/dense", r"fc"
        yield from _residual_blocks("downsample")
        return
    vgg = isinstance(model, VGG)
    # Dense layers are numbered among ReLU and dropout, which comes first in AlexNet.
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
    block = r"stage(\d+)_block(\d+)"
    yield rf"{block}/conv(\d)", r"layer\1.\2.conv\3"
    yield rf"{block}/norm(\d)", r"layer\1.\2.bn\3"
    yield rf"{block}/shortcut_conv", rf"layer\1.\2.{shortcut}.0"
    yield rf"{block}/shortcut_norm", rf"layer\1.\2.{shortcut}.1"


# The bias of the last layer, in any naming: as long as there are classes.
LAST_BIAS = r"(module\.)?(fc|classifier\.6|classifier\.\d\.dense3?)\.bias"

# Name -> function from a network to its rules, of which the first that matches holds.
NAMINGS = {"authors": _authors, "torchvision": _torchvision}
