"""The table of networks: 92 names, each a row of arguments.

A name is `FAMILY_METHOD[_smoothing]_DEPTH`, with METHOD `dnn` (deterministic) or `mcdo`
(Monte Carlo dropout); AlexNet has no depth. Networks for segmentation are another group
of names; see `segmentation_rows.py`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from spatial_smoothing.lookup import lookup, unknown
from spatial_smoothing.models import segmentation_rows
from spatial_smoothing.models.alexnet import AlexNet
from spatial_smoothing.models.network import STEMS, Network
from spatial_smoothing.models.resnet import ResNet
from spatial_smoothing.models.vgg import VGG


@dataclasses.dataclass(frozen=True)
class Spec:
    """A row of the table.

    Attributes:
      name: The full name.
      family: Name of the family, such as "preresnet".
      depth: Number of layers as the family counts them; None for AlexNet.
      network: Class of the network.
      arguments: Fields of the class, by name, that make this row.
    """

    name: str
    family: str
    depth: int | None
    network: type[Network]
    arguments: Mapping[str, Any]


_MLP = {"head": "mlp"}
_PRE_MLP = {"preactivation": True, "head": "mlp"}
_BASIC = {"bottleneck": False}
_BOTTLENECK = {"bottleneck": True}
_PRE_BASIC = {"preactivation": True, "head": "bn_gap", "bottleneck": False}
_PRE_BOTTLENECK = {"preactivation": True, "head": "bn_gap", "bottleneck": True}

# Family, depth, network, stages, arguments. Each row gives four names.
_TOPOLOGIES = [
    ("alexnet", None, AlexNet, (1, 1, 3), _MLP),
    ("vgg", 11, VGG, (1, 1, 2, 2, 2), _MLP),
    ("vgg", 13, VGG, (2, 2, 2, 2, 2), _MLP),
    ("vgg", 16, VGG, (2, 2, 3, 3, 3), _MLP),
    ("vgg", 19, VGG, (2, 2, 4, 4, 4), _MLP),
    ("prevgg", 11, VGG, (1, 1, 2, 2, 2), _PRE_MLP),
    ("prevgg", 13, VGG, (2, 2, 2, 2, 2), _PRE_MLP),
    ("prevgg", 16, VGG, (2, 2, 3, 3, 3), _PRE_MLP),
    ("prevgg", 19, VGG, (2, 2, 4, 4, 4), _PRE_MLP),
    ("resnet", 18, ResNet, (2, 2, 2, 2), _BASIC),
    ("resnet", 34, ResNet, (3, 4, 6, 3), _BASIC),
    ("resnet", 50, ResNet, (3, 4, 6, 3), _BOTTLENECK),
    ("resnet", 101, ResNet, (3, 4, 23, 3), _BOTTLENECK),
    ("resnet", 152, ResNet, (3, 8, 36, 3), _BOTTLENECK),
    ("preresnet", 18, ResNet, (2, 2, 2, 2), _PRE_BASIC),
    ("preresnet", 34, ResNet, (3, 4, 6, 3), _PRE_BASIC),
    ("preresnet", 50, ResNet, (3, 4, 6, 3), _PRE_BOTTLENECK),
    ("preresnet", 101, ResNet, (3, 4, 23, 3), _PRE_BOTTLENECK),
    ("preresnet", 152, ResNet, (3, 8, 36, 3), _PRE_BOTTLENECK),
    ("resnext", 50, ResNet, (3, 4, 6, 3), _BOTTLENECK | {"widening": 2, "groups": 32}),
    (
        "resnext",
        101,
        ResNet,
        (3, 4, 23, 3),
        _BOTTLENECK | {"widening": 4, "groups": 32},
    ),
    ("wideresnet", 50, ResNet, (3, 4, 6, 3), _BOTTLENECK | {"widening": 2}),
    ("wideresnet", 101, ResNet, (3, 4, 23, 3), _BOTTLENECK | {"widening": 2}),
]

# Method -> (rate of block dropout, rate for AlexNet, whether the projected shortcut of
# a pre-activation bottleneck has a norm). The last is a drift in the reference between
# two copies of one block: there MC dropout also changes the architecture.
_METHODS = {"dnn": (0.0, 0.0, False), "mcdo": (0.3, 0.1, True)}


@functools.cache
def _table() -> dict[str, Spec]:
    rows = {}
    for family, depth, network, stages, arguments in _TOPOLOGIES:
        for method, (rate, alexnet_rate, drift) in _METHODS.items():
            for smoothing in ("", "smoothing"):
                words = (family, method, smoothing, str(depth or ""))
                name = "_".join(word for word in words if word)
                row = {
                    "stages": stages,
                    "rate": alexnet_rate if family == "alexnet" else rate,
                    "smoothing": _smoothing(family, stages, bool(smoothing)),
                    **arguments,
                }
                if family == "preresnet":
                    row["shortcut_norm"] = drift and arguments["bottleneck"]
                rows[name] = Spec(name, family, depth, network, MappingProxyType(row))
    return rows


def _smoothing(family: str, stages: Sequence[int], present: bool) -> tuple[int, ...]:
    """One smoothing layer a stage; none after a pre-activation ResNet's last."""
    if family in segmentation_rows.FAMILIES:
        return segmentation_rows.smoothing(len(stages), present=present)
    places = [int(present)] * len(stages)
    if family == "preresnet":
        places[-1] = 0
    return tuple(places)


@functools.cache
def _segmentation_table() -> dict[str, Spec]:
    rows = {}
    for family, network in segmentation_rows.FAMILIES.items():
        for method in ("", *segmentation_rows.RATES):
            for smoothing in ("", "smoothing") if method else ("",):
                name = "_".join(word for word in (family, method, smoothing) if word)
                row = segmentation_rows.arguments(
                    method or "dnn", smooth=bool(smoothing)
                )
                rows[name] = Spec(name, family, None, network, MappingProxyType(row))
    return rows


# Group of names -> function that returns its rows by name. All groups are searched for
# a name. The first one is fixed: it is what the paper compares.
_GROUPS: dict[str, Callable[[], Mapping[str, Spec]]] = {
    "paper": _table,
    "segmentation": _segmentation_table,
}


def names(*, group: str = "paper") -> list[str]:
    """Returns the names of a group of networks.

    Args:
      group: "paper" for the 92 names of the reference, "segmentation" for networks
        that classify pixels, or "all".

    Raises:
      ValueError: if there is no such group.
    """
    if group == "all":
        return list(_all_rows())
    lookup({**_GROUPS, "all": None}, group, "group of networks")
    return list(_GROUPS[group]())


def spec(name: str) -> Spec:
    """Returns the row called `name`; ValueError with a suggestion if there is none."""
    return lookup(_all_rows(), name, "model")


def _all_rows() -> dict[str, Spec]:
    return {name: row for rows in _GROUPS.values() for name, row in rows().items()}


def build(
    name: str, *, num_classes: int, stem: str = "cifar", width: int = 64, **overrides
) -> Network:
    """Builds the network called `name`.

    Args:
      name: One of `names(group="all")`.
      num_classes: Number of classes K, at least 1.
      stem: "cifar" (3x3, stride 1) or "imagenet" (7x7, stride 2, max pool).
      width: Channels of the first stage; the others are multiples of it.
      **overrides: Other fields of the network, such as `stages`, `rate`, `dtype`,
        `temperature`, `taps`, `head`. With `stages` alone, smoothing follows the row's
        rule.

    Returns:
      A Flax module: `init(key, images)`, `apply(variables, images, train=False)`.

    Raises:
      ValueError: for an unknown name, stem or field, or unusable sizes.

    Example:
      >>> build("resnet_mcdo_smoothing_18", num_classes=10, width=16).rate
      0.3
    """
    row = spec(name)
    lookup(STEMS, stem, "stem")
    fields = [f.name for f in dataclasses.fields(row.network)]
    fields = [f for f in fields if f not in ("parent", "name")]
    for field in overrides:
        if field not in fields:
            raise unknown(f"field of {name}", field, fields)
    given = {"num_classes": num_classes, "stem": stem, "width": width, **overrides}
    arguments = {**row.arguments, **given}
    _check_sizes(arguments)
    if "stages" in overrides and "smoothing" not in overrides:
        present = any(row.arguments["smoothing"])
        arguments["smoothing"] = _smoothing(row.family, overrides["stages"], present)
    if len(arguments["smoothing"]) != len(arguments["stages"]):
        raise ValueError(
            f"smoothing {arguments['smoothing']} must have one entry for each of the "
            f"stages {arguments['stages']}"
        )
    return row.network(**arguments)


def _check_sizes(arguments: Mapping[str, Any]) -> None:
    """Raises ValueError for sizes that make no network, or one that returns NaN."""
    for field in ("num_classes", "width"):
        if arguments[field] < 1:
            raise ValueError(f"{field} must be at least 1, got {arguments[field]}")
    for field, least in (("stages", 1), ("smoothing", 0)):
        counts = tuple(arguments[field])
        if min(counts, default=least) < least:
            raise ValueError(
                f"{field} must be numbers of at least {least}, got {counts}"
            )
    if not 0 <= arguments["rate"] < 1:
        raise ValueError(f"rate must be in [0, 1), got {arguments['rate']}")
    if not arguments.get("head_temperature", 1) > 0:
        t = arguments["head_temperature"]
        raise ValueError(f"head_temperature must be positive, got {t}")
    groups, inner = arguments.get("groups", 1), arguments.get("widening", 1)
    if arguments["width"] * inner % groups:
        raise ValueError(
            f"width {arguments['width']} makes convolutions of "
            f"{arguments['width'] * inner} channels, which {groups} groups do not "
            f"divide; take a multiple of {groups // math.gcd(groups, inner)}"
        )
