"""The text that `--help` prints, at most 80 columns wide."""

import functools
import textwrap
from collections.abc import Iterable

from absl import flags

_WIDTH = 80
# Longer lists are no part of a heading; the text of their flag tells of the default.
_SHORT = 3
# What absl adds to the text of a flag that can be repeated.
_REPEAT = ";\n    repeat this option to specify a list of values"
# absl's name of a type -> what stands for a value of it.
_VALUES = {
    "int": "N",
    "float": "X",
    "comma separated list of strings": "A,B",
    "multi string": "TEXT",
    "config object": "NAME",
}


def command(about: str, flag_values: flags.FlagValues) -> str:
    """Returns the help of a command.

    Args:
      about: What the command does.
      flag_values: The flags of the command.
    """
    entries = (_flag(flag_values[name]) for name in flag_values)
    paragraphs = [textwrap.fill(text, _WIDTH) for text in about.strip().split("\n\n")]
    return "\n\n".join([*paragraphs, "Flags:", listing(entries)])


def listing(entries: Iterable[tuple[str, str]]) -> str:
    """Returns a list of entries.

    Args:
      entries: What is described, and its text, which is wrapped and indented.
    """
    indent = " " * 6
    wrap = functools.partial(
        textwrap.fill, width=_WIDTH, initial_indent=indent, subsequent_indent=indent
    )
    return "\n".join(f"  {name}\n{wrap(text)}" for name, text in entries)


def _flag(flag: flags.Flag) -> tuple[str, str]:
    if flag.boolean:
        name = f"--{flag.name}, --no{flag.name}"
    else:
        name = f"--{flag.name}={_VALUES.get(flag.flag_type(), 'TEXT')}"
    default = flag.default
    if isinstance(default, list):
        default = ",".join(map(str, default)) if len(default) <= _SHORT else None
    shown = "" if default in (None, "") else f" (default: {default})"
    return name + shown, flag.help.removesuffix(_REPEAT)
