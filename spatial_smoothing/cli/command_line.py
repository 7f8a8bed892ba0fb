"""The command line of a command: its flags read, and mistakes in them told in one line.

absl and ml_collections find the mistakes. Their texts are written for programmers, so
that this file says the same in words for whoever typed the command.
"""

import difflib
import re
import types
from collections.abc import Mapping, Sequence

from absl import flags

from spatial_smoothing.cli.config_fields import FIELDS, OPTIONAL

_HELP = {"--help", "-h", "-help", "--helpshort", "--helpfull"}
_KINDS = {"int": "a whole number", "float": "a number", "bool": "True or False"}
# What absl says of a value that is wrong or missing, and ml_collections of a field that
# comes before the config.
_ILLEGAL = re.compile(r"flag --(?P<name>[\w.]+)=(?P<value>.*?): (?P<reason>.*)", re.S)
_NO_VALUE = re.compile(r"Missing value for flag (\S+)")
_BEFORE_CONFIG = re.compile(r"Found (\S+) in argv before a value for --config")


def asks_for_help(argv: Sequence[str]) -> bool:
    """Returns whether one of the arguments asks for help, in one of its spellings."""
    return not _HELP.isdisjoint(argv)


def check_flag_files(argv: Sequence[str]) -> None:
    """Raises ValueError if a file that `--flagfile` names cannot be read."""
    try:
        flags.FlagValues().read_flags_from_files(list(argv), force_gnu=False)
    except flags.CantOpenFlagFileError as error:
        raise ValueError(str(error).removeprefix("ERROR:: ")) from None


def parse(
    argv: Sequence[str],
    flag_values: flags.FlagValues,
    *,
    positional: bool = False,
    required: Sequence[str] = (),
    instead: Mapping[str, str] = types.MappingProxyType({}),
) -> list[str]:
    """Reads flags from the arguments of a process.

    Args:
      argv: The name of the command, and its arguments.
      flag_values: The flags of the command, which get their values.
      positional: Whether arguments that are no flags are allowed.
      required: Names of the flags that must be given.
      instead: Name of a required flag -> name of a flag with which it is not required.

    Returns:
      The arguments that are no flags.

    Raises:
      ValueError: for a mistake, in one line.
    """
    try:
        rest = flag_values(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        raise ValueError(_unknown_flag(error.flagname, flag_values)) from None
    except flags.Error as error:
        raise ValueError(_in_our_words(str(error), flag_values)) from None
    except (AttributeError, KeyError):
        if text := _unknown_field(argv):
            raise ValueError(text) from None
        raise
    is_missing = lambda name: flag_values[name].value in (None, "")
    missing = [
        name
        for name in required
        if is_missing(name) and (not instead.get(name) or is_missing(instead[name]))
    ]
    if missing:
        names = " and ".join(f"--{name}" for name in missing)
        raise ValueError(f"{names} must be given; --help lists the flags")
    if rest and not positional:
        raise ValueError(
            f"unexpected arguments {' '.join(rest)}; flags are written --NAME=VALUE"
        )
    return rest


def in_flags_of(flag_values: flags.FlagValues, text: str) -> str:
    """Returns a text that advises fields of a config, as advice for this command.

    Args:
      flag_values: The flags of the command. Where it has no `--config` but a flag with
        the name of the field, `--config.NAME` becomes `--NAME`.
      text: What an error says.
    """

    def replaced(match: re.Match[str]) -> str:
        return f"--{match[1]}" if match[1] in flag_values else match[0]

    if "config" in flag_values:
        return text
    return re.sub(r"--config\.(\w+)", replaced, text)


def _unknown_flag(name: str, flag_values: flags.FlagValues) -> str:
    """Says that there is no such flag, and which one is closest to it."""
    field = name.removeprefix("no").removeprefix("config.")
    if "config." in name and "config" in flag_values:
        # Fields become flags when the config is read.
        return f"--config=NAME must be given before --{name}"
    if "config." in name and field not in flag_values and field in FIELDS:
        return (
            f"unknown flag --{name}: a run keeps the config that it was trained with; "
            "--help lists the flags"
        )
    close = difflib.get_close_matches(field, list(flag_values), n=1, cutoff=0.5)
    hint = f"did you mean --{close[0]}? " if close else ""
    return f"unknown flag --{name}; {hint}--help lists the flags"


def _unknown_field(argv: Sequence[str]) -> str:
    """Says which field of a config there is not; "" if all are there."""
    matches = [re.match(r"--?(?:no)?config\.([^=]*)", argument) for argument in argv]
    names = [match[1] for match in matches if match]
    for name in names:
        if name not in FIELDS:
            close = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}? " if close else ""
            return f"unknown config field {name!r}; {hint}--help lists them"
    for name in names:
        if name in OPTIONAL:
            return f"the config has no field {name!r}; add it to a config file"
    return ""


def _in_our_words(text: str, flag_values: flags.FlagValues) -> str:
    """Returns what an error of absl says."""
    if match := _BEFORE_CONFIG.match(text):
        return f"--config=NAME must be given before {match[1]}"
    if match := _NO_VALUE.fullmatch(text):
        return f"{match[1]} needs a value, as in {match[1]}=VALUE"
    if not (match := _ILLEGAL.fullmatch(text)):
        return text
    name, value, reason = match["name"], match["value"], match["reason"]
    if name == "config":
        return reason
    field = name.removeprefix("config.")
    if field != name and field in FIELDS:
        return f"{field} must be {FIELDS[field].describe()}, got {value}"
    parser = flag_values[name].parser
    kind = _KINDS.get(flag_values[name].flag_type())
    if kind is None:
        return f"--{name} cannot be {value}: {reason}"
    limits = [
        f"{words} {limit}"
        for words, limit in (
            ("at least", getattr(parser, "lower_bound", None)),
            ("at most", getattr(parser, "upper_bound", None)),
        )
        if limit is not None
    ]
    of = f" of {' and '.join(limits)}" if limits else ""
    return f"--{name} must be {kind}{of}, got {value}"
