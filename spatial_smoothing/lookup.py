"""Finding things by name, with one kind of error for names that do not exist."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")


def unknown(what: str, name: str, choices: Iterable[str]) -> ValueError:
    """Returns an error that names the value, the nearest choice and all choices.

    Args:
      what: The kind of thing that is looked for, such as "model".
      name: The name that was given.
      choices: All names that exist; of more than 20 only the nearest is shown.

    Returns:
      The error, to be raised by the caller.
    """
    choices = list(choices)
    close = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    known = ", ".join(choices) if len(choices) <= 20 else f"{len(choices)} names"
    return ValueError(f"unknown {what} {name!r}; {hint}choices: {known}")


def lookup(table: Mapping[str, Value], name: str, what: str) -> Value:
    """Returns `table[name]`.

    Args:
      table: Name -> value.
      name: The name to look for.
      what: The kind of thing that is looked for, such as "model".

    Raises:
      ValueError: for a name that is not in the table; see `unknown`.
    """
    if name not in table:
        raise unknown(what, name, table)
    return table[name]
