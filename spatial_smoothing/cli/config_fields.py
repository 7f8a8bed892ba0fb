"""The fields of a config: which values each of them takes, and what it says.

Contract of this file: `read` is the one place where values that come from the command
line or from a config file are checked, before anything is read or computed. What
depends on several fields, on the data set or on the devices is checked where it is
used.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from spatial_smoothing import ops
from spatial_smoothing.configs import common
from spatial_smoothing.lookup import lookup, unknown
from spatial_smoothing.models import zoo
from spatial_smoothing.models.heads import HEADS
from spatial_smoothing.models.network import HEAD, MASKS, PLACEMENTS, STEMS
from spatial_smoothing.models.rivals import ENSEMBLES
from spatial_smoothing.runs import recipes
from spatial_smoothing.training import optim
from spatial_smoothing.training.objectives import SAMPLES_LOSSES

# JAX makes keys of 32 bits: a larger seed would be another, smaller one.
MAX_SEED = 2**32 - 1
MEDIAN_FREQUENCY = "median_frequency"  # as `class_weights`
# Steps, sizes and counts are int32 on devices.
MAX_INT = 2**31 - 1
_MOST = float(np.finfo(np.float32).max)
_KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
_LISTS = {int: "whole numbers", float: "numbers"}


@dataclasses.dataclass(frozen=True)
class Field:
    """The values that a field takes.

    Attributes:
      kind: Type of the value, or of the items of a list: int, float, bool or str.
      is_list: Whether the value is a list, as in `--config.stages=2,2,2,2`.
      can_be_empty: Whether a list may have no items.
      least: Smallest number; None for no limit.
      most: Largest number; None for no limit.
      above: Number that the value must be larger than; None for no limit.
      below: Number that the value must be smaller than; None for no limit.
      words: Texts that are allowed: all there are for text, and others than numbers for
        a list of numbers. None where any text is.
    """

    kind: type
    is_list: bool = False
    can_be_empty: bool = False
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    words: tuple[str, ...] | None = None

    def describe(self) -> str:
        """Returns what a value must be, such as "a whole number of at least 1"."""
        if self.kind is str and self.words:
            return f"one of {', '.join(self.words)}"
        text = _LISTS[self.kind] if self.is_list else _KINDS[self.kind]
        limits = [
            f"{name} {limit}"
            for name, limit in (
                ("of at least", self.least),
                ("of at most", self.most),
                ("above", self.above),
                ("below", self.below),
            )
            if limit is not None and limit != MAX_INT
        ]
        text = " ".join([text, " and ".join(limits)]).strip()
        if self.is_list:
            text = f"a list of {text}"
            if self.words:
                text += f", or {' or '.join(self.words)} among them"
        return text

    def accepts(self, value: Any) -> bool:
        """Returns whether a value is as the field's description says."""
        if not self.is_list:
            return self._accepts_item(value)
        if not isinstance(value, (tuple, list)):
            return False
        has_items = len(value) > 0 or self.can_be_empty
        return has_items and all(map(self._accepts_item, value))

    def _accepts_item(self, item: Any) -> bool:
        if isinstance(item, str):
            if self.words is None:
                return self.kind is str
            return item in self.words
        # A bool is an int in Python, and a whole number serves where a number does.
        if isinstance(item, bool) or self.kind is bool:
            return isinstance(item, bool) and self.kind is bool
        kinds = (int, float) if self.kind is float else self.kind
        return isinstance(item, kinds) and self._is_in_range(item)

    def _is_in_range(self, number: float) -> bool:
        # Networks and optimisers compute in float32, where larger numbers are infinite.
        return (
            abs(number) <= _MOST  # not so of NaN
            and (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )


def _whole(least: int, **options) -> Field:
    return Field(int, **{"least": least, "most": MAX_INT, **options})


# In the order of `configs/common.py`. `conv_bias` is for configs that one writes.
FIELDS = {
    "model": Field(str),
    "stem": Field(str, words=tuple(STEMS)),
    "width": _whole(1),
    "dtype": Field(str, words=tuple(recipes.DTYPES)),
    "stages": _whole(1, is_list=True),
    "rate": Field(float, least=0, below=1),
    "stage_rates": Field(float, is_list=True, least=0, below=1),
    "mask": Field(str, words=MASKS),
    "dropout_placement": Field(str, words=PLACEMENTS),
    "mc_stages": _whole(1, is_list=True, words=(HEAD,)),
    "smoothing": _whole(0, is_list=True),
    "temperature": Field(float, above=0),
    "squash": Field(str, words=tuple(ops.SQUASHES)),
    "taps": Field(float, is_list=True),
    "padding": Field(str, words=ops.PADDINGS),
    "smoothing_norm": Field(bool),
    "head": Field(str, words=tuple(HEADS)),
    "head_temperature": Field(float, above=0),
    "ensemble": Field(str, words=tuple(ENSEMBLES)),
    "ensemble_size": _whole(2),
    "alpha": Field(float, above=0),
    "gamma": _whole(1),
    "scale": Field(float, least=1, most=6),
    "repetition": Field(float, least=0, most=1),
    "batch_repetitions": _whole(1),
    "spectral_bound": Field(float, above=0),
    "conv_bias": Field(bool),
    "dataset": Field(str),
    "data_dir": Field(str),
    "download": Field(bool),
    "augment": Field(bool),
    "image_size": _whole(1),
    "train_split": Field(str),
    "mean": Field(float, is_list=True, least=0, most=1),
    "std": Field(float, is_list=True, above=0),
    "val_fraction": Field(float, least=0, below=1),
    "init_from": Field(str),
    "freeze": Field(str, is_list=True),
    "backbone_factor": Field(float, least=0),
    "seed": Field(int, least=0, most=MAX_SEED),
    "members": _whole(1),
    "epochs": _whole(1),
    "warmup_epochs": _whole(0),
    "batch_size": _whole(1),
    "learning_rate": Field(float, least=0),
    "learning_rate_batch": _whole(1),
    "schedule": Field(str, words=tuple(optim.SCHEDULES)),
    "milestones": _whole(0, is_list=True, can_be_empty=True),
    "factor": Field(float, least=0),
    "optimizer": Field(str, words=tuple(optim.OPTIMIZERS)),
    "momentum": Field(float, least=0, below=1),
    "nesterov": Field(bool),
    "weight_decay": Field(float, least=0),
    "class_weights": Field(float, is_list=True, least=0, words=(MEDIAN_FREQUENCY,)),
    "label_smoothing": Field(float, least=0, below=1),
    "mixup": Field(float, least=0),
    "ema": Field(float, least=0, below=1),
    "train_samples": _whole(1),
    "train_samples_loss": Field(str, words=SAMPLES_LOSSES),
    "num_workers": _whole(0),
    "eval_every": _whole(1),
    "eval_batch_size": _whole(1),
    "checkpoint_every": _whole(1),
    "checkpoint_minutes": Field(float, least=0),
    "max_to_keep": _whole(1),
    "shard_state": Field(bool),
}
# Fields that a config has only where its file defines them.
OPTIONAL = frozenset({"conv_bias"})
# What helps after the description of a field that was refused.
_REMEDIES = {
    "epochs": "without a step there is nothing to save, and evaluate.py scores a run "
    "that is there",
    "seed": "larger ones would repeat the random bits of smaller ones",
}


def read(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a config, after each of them is checked.

    Args:
      config: A flat dict, as `get_config()` and the command line make it.

    Raises:
      ValueError: naming the field, what it takes, and its value; or a field that is
        unknown or missing.
    """
    for name in config:
        if name not in FIELDS:
            raise unknown("config field", name, FIELDS)
    if missing := [name for name in FIELDS.keys() - OPTIONAL if name not in config]:
        raise ValueError(
            f"the config lacks {', '.join(sorted(missing))}; get_config() should begin "
            "with that of spatial_smoothing.configs.common"
        )
    defaults = common.get_config()
    config = {name: _items(value) for name, value in config.items()}
    for name, value in config.items():
        field = FIELDS[name]
        # None leaves a choice to the network or the library, where the default does so.
        if value is None and defaults.get(name) is None:
            continue
        if isinstance(value, str) and field.kind is str and field.words:
            lookup(dict.fromkeys(field.words), value, name)
        if not field.accepts(value):
            remedy = f"; {_REMEDIES[name]}" if name in _REMEDIES else ""
            raise ValueError(
                f"{name} must be {field.describe()}, got {_shown(value)}{remedy}"
            )
    # Workdirs keep the number, which was the default before there were other widths.
    if config["width"] is None:
        config["width"] = zoo.default_width(config["model"])
    for name in ("mean", "std"):
        if config[name] is not None and len(config[name]) != 3:
            raise ValueError(
                f"{name} must have three numbers, of red, green and blue, got "
                f"{_shown(config[name])}"
            )
    last = config["seed"] + config["members"] - 1
    if last > MAX_SEED:
        raise ValueError(
            f"seed {config['seed']} and members {config['members']} make the seed "
            f"{last} of the last member, and seeds are at most {MAX_SEED}"
        )
    return config


def _items(value: Any) -> Any:
    """Returns a list with one text for several items, such as "4,head", as items."""
    if not (isinstance(value, (tuple, list)) and len(value) == 1):
        return value
    (text,) = value
    if not isinstance(text, str):
        return value
    return tuple(int(part) if part.isdigit() else part for part in text.split(","))


def describe() -> list[tuple[str, str, str]]:
    """Returns the name, the default and the text of every field, for `--help`."""
    defaults = common.get_config().to_dict()
    return [
        (name, _shown(defaults[name]), _text(comment, FIELDS[name]))
        for name, comment in _comments().items()
    ]


def _text(comment: str, field: Field) -> str:
    """Returns the comment of a field and, where that is not just text, its values."""
    if field.kind is str and field.words is None:
        return comment
    return f"{comment} Takes {field.describe()}."


def _comments() -> dict[str, str]:
    """Returns field -> the comment above it in `configs/common.py`."""
    found, comment = {}, []
    with open(common.__file__, encoding="utf-8") as file:
        for line in map(str.strip, file):
            if line.startswith("# "):
                comment.append(line.removeprefix("# "))
                continue
            if match := re.match(r"config\.(\w+) = ", line):
                found[match[1]] = " ".join(comment)
            comment = []
    return found


def _shown(value: Any) -> str:
    """Returns a value as one writes it on the command line."""
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value)) or "()"
    return repr(value) if value == "" else str(value)
