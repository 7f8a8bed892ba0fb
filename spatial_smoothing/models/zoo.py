"""The table of networks: 92 names, each a row of arguments, and groups of more names.

A name is `FAMILY_METHOD[_smoothing]_DEPTH`, with METHOD `dnn` (deterministic) or `mcdo`
(Monte Carlo dropout); AlexNet has no depth. The depth of a WRN is followed by its
widening factor: `wrn_mcdo_smoothing_28_10`. Its method may be left out: `wrn_28_10` is
`wrn_dnn_28_10`. Networks for segmentation are another group of names; see
`segmentation_rows.py`.
"""

import dataclasses
import functools
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import ops
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


_WIDTH = 64  # channels of the first stage, where a row says nothing else


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
    if family in ("preresnet", _WRN):
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


_WRN = "wrn"
_WRN_STEM = 16  # channels of the stem, however wide the stages are
# Depth and widening factor of those that are listed; there are more.
_WRN_SIZES = ((16, 4), (16, 8), (28, 2), (28, 10), (40, 2), (40, 4))
_WRN_NAME = re.compile(r"wrn(?:_(dnn|mcdo))?(_smoothing)?_([1-9]\d*)_([1-9]\d*)")


class _WideResNets(Mapping[str, Spec]):
    """The rows of Zagoruyko & Komodakis' WRN-d-k, for every depth d and factor k.

    Source: Zagoruyko & Komodakis, "Wide Residual Networks", BMVC 2016, table 1.
    """

    def __getitem__(self, name: str) -> Spec:
        match = _WRN_NAME.fullmatch(name)
        if match is None:
            raise KeyError(name)
        method, smoothing = match[1] or "dnn", match[2] or ""
        depth, factor = int(match[3]), int(match[4])
        # Three stages of n blocks with two convolutions each; four layers are outside.
        blocks, rest = divmod(depth - 4, 6)
        if blocks < 1 or rest:
            raise ValueError(
                f"{name} has depth {depth}, and a WRN has 6 n + 4 layers; take 10, 16, "
                "22, 28, 34 or 40"
            )
        stages = (blocks,) * 3
        rate, *_ = _METHODS[method]
        row = {
            **_PRE_BASIC,
            "stages": stages,
            "width": _WRN_STEM * factor,
            "stem_width": _WRN_STEM,
            "rate": rate,
            "smoothing": _smoothing(_WRN, stages, bool(smoothing)),
            "shortcut_norm": False,
        }
        full_name = f"{_WRN}_{method}{smoothing}_{depth}_{factor}"
        return Spec(full_name, _WRN, depth, ResNet, MappingProxyType(row))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _WRN_NAME.fullmatch(name) is not None

    def __iter__(self) -> Iterator[str]:
        for depth, factor in _WRN_SIZES:
            for method in _METHODS:
                for smoothing in ("", "_smoothing"):
                    yield f"{_WRN}_{method}{smoothing}_{depth}_{factor}"

    def __len__(self) -> int:
        return 2 * len(_METHODS) * len(_WRN_SIZES)


# Group of names -> function that returns its rows by name. All groups are searched for
# a name. A group may have rows of more names than it lists. The first one is fixed: it
# is what the paper compares.
_GROUPS: dict[str, Callable[[], Mapping[str, Spec]]] = {
    "paper": _table,
    "wrn": _WideResNets,
    "segmentation": _segmentation_table,
}


def names(*, group: str = "paper") -> list[str]:
    """Returns the names of a group of networks.

    Args:
      group: "paper" for the 92 names of the reference; "wrn" for the usual sizes of
        WRN, of which every `wrn_METHOD[_smoothing]_DEPTH_FACTOR` with a depth of
        6 n + 4 can be built; "segmentation" for networks that classify pixels; or
        "all".

    Raises:
      ValueError: if there is no such group.
    """
    if group == "all":
        return list(_all_rows())
    lookup({**_GROUPS, "all": None}, group, "group of networks")
    return list(_GROUPS[group]())


def spec(name: str) -> Spec:
    """Returns the row called `name`; ValueError with a suggestion if there is none."""
    for rows in _GROUPS.values():
        if name in rows():
            return rows()[name]
    return lookup(_all_rows(), name, "model")


def _all_rows() -> dict[str, Spec]:
    return {name: row for rows in _GROUPS.values() for name, row in rows().items()}


def default_width(name: str) -> int:
    """Returns the channels of the first stage of a network that has its usual width.

    Args:
      name: Name of the network, such as one of `names(group="all")`.
    """
    return spec(name).arguments.get("width", _WIDTH)


def build(
    name: str,
    *,
    num_classes: int,
    stem: str = "cifar",
    width: int | None = None,
    **overrides,
) -> Network:
    """Builds the network called `name`.

    Args:
      name: One of `names(group="all")`, or another WRN.
      num_classes: Number of classes K, at least 1.
      stem: "cifar" (3x3, stride 1) or "imagenet" (7x7, stride 2, max pool).
      width: Channels of the first stage; the others are multiples of it. None for 64,
        or 16 times the widening factor of a WRN.
      **overrides: Other fields of the network, such as `stages`, `rate`, `dtype`,
        `temperature`, `taps`, `head`. With `stages` alone, smoothing follows the row's
        rule.

    Returns:
      A Flax module: `init(key, images)`, `apply(variables, images, train=False)`.

    Raises:
      ValueError: for an unknown name, stem or field, or unusable values of fields.

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
    given = {"num_classes": num_classes, "stem": stem, **overrides}
    given["width"] = default_width(name) if width is None else width
    arguments = {**row.arguments, **given}
    _check_kinds(arguments)
    _check_sizes(arguments)
    if "stages" in overrides and "smoothing" not in overrides:
        present = any(row.arguments["smoothing"])
        arguments["smoothing"] = _smoothing(row.family, overrides["stages"], present)
    if len(arguments["smoothing"]) != len(arguments["stages"]):
        raise ValueError(
            f"smoothing {arguments['smoothing']} must have one entry for each of the "
            f"stages {arguments['stages']}"
        )
    network = row.network(**arguments)
    # Now, and whether or not the network has smoothing: it refuses unusable options.
    jax.eval_shape(
        functools.partial(
            ops.smooth,
            temperature=network.temperature,
            squash=network.squash,
            taps=network.taps,
            padding=network.padding,
        ),
        jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32),
    )
    return network


def _check_kinds(arguments: Mapping[str, Any]) -> None:
    """Raises ValueError for fields whose values are of another kind than they take."""
    for field in ("num_classes", "width", "widening", "groups"):
        if field in arguments and not _is_whole(arguments[field]):
            raise ValueError(
                f"{field} must be a whole number, got {arguments[field]!r}"
            )
    for field in ("stages", "smoothing"):
        if not _is_list(arguments[field]) or not all(map(_is_whole, arguments[field])):
            raise ValueError(
                f"{field} must be a list of whole numbers, got {arguments[field]!r}"
            )
    for field in ("mc_stages", "stage_rates"):
        value = arguments.get(field)
        if value is not None and not _is_list(value):
            raise ValueError(f"{field} must be a list, such as [{value!r}], or None")
    for field in ("rate", "head_temperature"):
        if not _is_number(arguments.get(field, 1)):
            raise ValueError(f"{field} must be a number, got {arguments[field]!r}")


def _is_whole(value: Any) -> bool:
    """Whether a value is a whole number of any type."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def _is_number(value: Any) -> bool:
    """Whether a value is a number of any type, and no text."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str)


def _is_list(value: Any) -> bool:
    """Whether a value has elements, and is no text."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _check_sizes(arguments: Mapping[str, Any]) -> None:
    """Raises ValueError for sizes that make no network, or one that returns NaN."""
    for field in ("num_classes", "width", "widening", "groups"):
        if arguments.get(field, 1) < 1:
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
