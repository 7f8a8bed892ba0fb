"""The options of suites as flags: defined from their signatures, read back by suite."""

import inspect
from collections.abc import Mapping
from typing import Any

from absl import flags

from spatial_smoothing.evaluation.suites import Suite, check_list


def define(suites: Mapping[str, Suite], flag_values: flags.FlagValues) -> list[str]:
    """Defines a flag for every option of a suite; suites may share one.

    A flag that is not given leaves the default of each suite's function.

    Returns:
      The names of the flags.
    """
    texts: dict[str, list[str]] = {}
    kinds = {}
    for suite, (function, options) in suites.items():
        for name, text in options.items():
            default = inspect.signature(function).parameters[name].default
            shown = ",".join(map(str, default)) if _is_list(default) else default
            texts.setdefault(name, []).append(f"{suite}: {text} Default: {shown}.")
            kinds[name] = default
    for name, default in kinds.items():
        text = " ".join(texts[name])
        if _is_list(default):
            flags.DEFINE_list(name, None, text, flag_values=flag_values)
        elif isinstance(default, bool):
            flags.DEFINE_bool(name, None, text, flag_values=flag_values)
        elif isinstance(default, int):
            flags.DEFINE_integer(name, None, text, flag_values=flag_values)
        elif isinstance(default, float):
            flags.DEFINE_float(name, None, text, flag_values=flag_values)
        else:
            flags.DEFINE_string(name, None, text, flag_values=flag_values)
    return list(kinds)


def given(
    suites: Mapping[str, Suite],
    chosen: Mapping[str, Suite],
    flag_values: flags.FlagValues,
) -> dict[str, dict[str, Any]]:
    """Returns the options that were given: name of a suite chosen -> its own.

    Raises:
      ValueError: for an option of none of the suites chosen, or a list of another
        type, without a value or with one twice.
    """
    names = {name for suite in suites.values() for name in suite.options}
    used = {name for name in names if flag_values[name].value is not None}
    for name in sorted(used):
        owners = [suite for suite in suites if name in suites[suite].options]
        if not set(owners) & set(chosen):
            raise ValueError(
                f"--{name} is for --suite={' or '.join(owners)}, which is not evaluated"
            )
    return {
        suite: {
            name: _value(
                name,
                flag_values[name].value,
                inspect.signature(function).parameters[name].default,
            )
            for name in sorted(used & options.keys())
        }
        for suite, (function, options) in chosen.items()
    }


def _is_list(default: Any) -> bool:
    return isinstance(default, tuple)


def _value(name: str, value: Any, default: Any) -> Any:
    """The value of a flag; items of a list have the type of the default's first."""
    if not _is_list(default):
        return value
    kind = type(default[0]) if default else str
    try:
        found = tuple(kind(item) for item in value)
    except ValueError:
        raise ValueError(
            f"--{name} takes {kind.__name__}s separated by commas, "
            f"got {','.join(value)}"
        ) from None
    check_list(f"--{name}", found)
    return found
