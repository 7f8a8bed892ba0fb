"""Where the numbers of a report come from, as the page shows it.

The provenance of an evaluation is a nested dict. That of a comparison has one for each
run; of these, the page shows what differs apart from what all share.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

_ABSENT = "–"


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The provenance as texts.

    Attributes:
      runs: Names of the runs that are compared; none for one evaluation.
      differing: Name of a value -> the value of each run, for those that differ.
      common: Name of a value -> the value, for those that all runs share.
    """

    runs: Sequence[str]
    differing: Mapping[str, Sequence[str]]
    common: Mapping[str, str]


def provenance(values: Mapping[str, Any]) -> Provenance:
    """The provenance of a report as texts.

    Args:
      values: A nested dict of JSON's types: the provenance of an evaluation, or run ->
        that of its evaluation. A value of "config" that is None is shown as what
        "network" says of it, where there is that.
    """
    if not _is_comparison(values):
        return Provenance((), {}, _flat(_resolved(values)))
    flat = {run: _flat(_resolved(where)) for run, where in values.items()}
    names = dict.fromkeys(name for one in flat.values() for name in one)
    differing, common = {}, {}
    for name in names:
        found = [one.get(name, _ABSENT) for one in flat.values()]
        if len(set(found)) > 1:
            differing[name] = found
        else:
            common[name] = found[0]
    return Provenance(list(flat), differing, common)


def _is_comparison(values: Mapping[str, Any]) -> bool:
    """Whether each value is itself the provenance of an evaluation."""
    return len(values) > 1 and all(
        isinstance(where, Mapping) and "config" in where for where in values.values()
    )


def _resolved(where: Mapping[str, Any]) -> dict[str, Any]:
    """A provenance whose config has the values that were used in place of None."""
    network, config = (where.get(name) for name in ("network", "config"))
    if not isinstance(network, Mapping) or not isinstance(config, Mapping):
        return dict(where)
    resolved = {
        name: f"{_written(network[name])} (the model's own)"
        if value is None and network.get(name) is not None
        else value
        for name, value in config.items()
    }
    left = {name: value for name, value in where.items() if name != "network"}
    return {**left, "config": resolved}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested dict as one: "config.model" -> text."""
    found: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            value = {str(index): one for index, one in enumerate(value)}
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        else:
            found[name] = _written(value)
    return found


def _written(value: Any) -> str:
    if value is None:
        return _ABSENT
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
