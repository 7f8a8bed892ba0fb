"""Finding things by name, with one kind of error where there is no such thing."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")


def unknown(what: str, name: str, choices: Iterable[str]) -> ValueError:
    """Returns an error that names the value, the nearest choice and all choices.

    Args:
      what: The kind of thing, such as "model".
      name: The name that was given.
      choices: The names there are; only the nearest is shown when they are many.
    """
    choices = list(choices)
    close = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    known = ", ".join(choices) if len(choices) <= 20 else f"{len(choices)} names"
    return ValueError(f"unknown {what} {name!r}; {hint}choices: {known}")


def lookup(table: Mapping[str, Value], name: str, what: str) -> Value:
    """Returns `table[name]`, or raises `unknown(what, name, table)`."""
    if name not in table:
        raise unknown(what, name, table)
    return table[name]
