"""The options of suites as flags: defined from their signatures, read back by suite."""

import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any

from absl import flags

from spatial_smoothing.evaluation.suites import Suite, check_list

# An option that means another thing in each suite. It has a flag for each of them, such
# as --landscape_images, and stands for all of these where one suite alone has it.
_IMAGES = "num_images"
_IMAGES_FLAG = "_images"


def define(suites: Mapping[str, Suite], flag_values: flags.FlagValues) -> list[str]:
    """Defines a flag for every option of a suite.

    Suites share the flag of an option that means the same in all of them. A flag that
    is not given leaves the default of each suite's function.

    Args:
      suites: Name of a suite -> the suite.
      flag_values: The flags of the command.

    Returns:
      The names of the flags.
    """
    texts: dict[str, dict[str, list[str]]] = {}
    defaults = {}
    for suite, about in suites.items():
        for option, text in about.options.items():
            flag = _flag(suite, option)
            default = defaults[flag] = _default(suites[suite], option)
            shown = ", ".join(map(str, default)) if _is_list(default) else default
            text = f"{text} Default: {shown}."
            texts.setdefault(flag, {}).setdefault(text, []).append(suite)
    for flag, default in defaults.items():
        text = " ".join(
            f"For {', '.join(owners)}: {text}" for text, owners in texts[flag].items()
        )
        _define_one(flag, default, text, flag_values)
    names = list(defaults)
    if any(_IMAGES in suite.options for suite in suites.values()):
        flags.DEFINE_integer(
            _IMAGES,
            None,
            "The flag --SUITE_images of the suite, where only one suite that has it is "
            "evaluated.",
            lower_bound=0,
            flag_values=flag_values,
        )
        names.append(_IMAGES)
    return names


def given(
    suites: Mapping[str, Suite],
    chosen: Mapping[str, Suite],
    flag_values: flags.FlagValues,
) -> dict[str, dict[str, Any]]:
    """Returns the options that were given: name of a suite chosen -> its options.

    Args:
      suites: Name of a suite -> the suite; all there are.
      chosen: The suites that are evaluated.
      flag_values: The flags of the command, which are parsed.

    Raises:
      ValueError: for an option of none of the suites chosen, or of several where it
        means another thing in each; for a number that is not finite; or for a list of
        another type, without a value or with one twice.
    """
    owners: dict[str, list[str]] = {}
    for suite, about in suites.items():
        for option in about.options:
            owners.setdefault(_flag(suite, option), []).append(suite)
            if option == _IMAGES:
                owners.setdefault(_IMAGES, []).append(suite)
    for flag in sorted(owners):
        if flag_values[flag].value is None:
            continue
        used = [suite for suite in owners[flag] if suite in chosen]
        if not used:
            raise ValueError(
                f"--{flag} is for --suite={' or '.join(owners[flag])}, which is not "
                "evaluated"
            )
        if flag == _IMAGES and len(used) > 1:
            instead = " and ".join(f"--{_flag(suite, _IMAGES)}" for suite in used)
            raise ValueError(
                f"--{_IMAGES} is not the same in {', '.join(used)}; give {instead}"
            )
    found: dict[str, dict[str, Any]] = {name: {} for name in chosen}
    for name, suite in chosen.items():
        for option in sorted(suite.options):
            flag = _flag(name, option)
            value = flag_values[flag].value
            if value is None and option == _IMAGES:
                flag, value = _IMAGES, flag_values[_IMAGES].value
            if value is not None:
                found[name][option] = _value(flag, value, _default(suite, option))
    return found


def _flag(suite: str, option: str) -> str:
    """Returns the name of the flag for an option of a suite."""
    return f"{suite}{_IMAGES_FLAG}" if option == _IMAGES else option


def _default(suite: Suite, option: str) -> Any:
    return inspect.signature(suite.function).parameters[option].default


def _define_one(
    name: str, default: Any, text: str, flag_values: flags.FlagValues
) -> None:
    """Defines a flag of the type of a default, with the value None."""
    define = flags.DEFINE_string
    if name.endswith(_IMAGES_FLAG):
        define = functools.partial(flags.DEFINE_integer, lower_bound=0)
    elif _is_list(default):
        define = flags.DEFINE_list
    elif isinstance(default, bool):  # before int: a bool is an int in Python
        define = flags.DEFINE_bool
    elif isinstance(default, int):
        define = flags.DEFINE_integer
    elif isinstance(default, float):
        define = flags.DEFINE_float
    define(name, None, text, flag_values=flag_values)


def _is_list(default: Any) -> bool:
    return isinstance(default, tuple)


def _value(flag: str, value: Any, default: Any) -> Any:
    """Returns a flag's value; items of a list get the type of the default's first."""
    if not _is_list(default):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{flag} must be a finite number, got {value}")
        return value
    kind = type(default[0]) if default else str
    try:
        found = tuple(kind(item) for item in value)
    except ValueError:
        raise ValueError(
            f"--{flag} takes {kind.__name__}s separated by commas, "
            f"got {','.join(value)}"
        ) from None
    if kind is float and not all(map(math.isfinite, found)):
        raise ValueError(f"--{flag} must be finite numbers, got {','.join(value)}")
    check_list(f"--{flag}", found)
    return found
