"""Rows: the one input of every report, and how their values are read and written.

A row is a dict with the scores of one model at one number of samples. It has a
"label" (text) and "num_samples" (int >= 1). Everything else is optional: the metrics of
`COLUMNS` (rates as fractions, NLL in nats), "reference" (the same metrics by the
reference's definition), "reliability" (statistics per confidence bin), "model",
"dataset", "split", "num_examples", and any other key, which is carried along. A value
that is missing or not finite is None.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

Row = dict[str, Any]


class Column(NamedTuple):
    """How a key is headed and written: the number is multiplied by `scale`."""

    heading: str
    unit: str = ""
    scale: float = 1
    digits: int = 3
    better: str = ""  # "lower", "higher", or neither


def _percent(heading: str, better: str = "") -> Column:
    return Column(heading, "%", 100, 2, better)


COLUMNS = {
    "label": Column("Model"),
    "num_samples": Column("N", digits=0),
    "num_examples": Column("Images", digits=0),
    "nll": Column("NLL", "nats", better="lower"),
    "accuracy": _percent("Accuracy", "higher"),
    "top5": _percent("Top-5", "higher"),
    "ece": _percent("ECE", "lower"),
    "signed_ece": _percent("Signed ECE"),
    "brier": Column("Brier", better="lower"),
    "iou": _percent("IoU", "higher"),
    "accuracy_90": _percent("Acc-90", "higher"),
    "iou_90": _percent("IoU-90", "higher"),
    "unconfidence_90": _percent("Unc-90", "higher"),
    "frequency_90": _percent("Freq-90"),
}
_DESCRIPTION = (
    "label",
    "model",
    "dataset",
    "split",
    "num_members",
    "num_samples",
    "num_examples",
)


def plain(value: Any) -> Any:
    """`value` in JSON's types: arrays become lists; numbers not finite, None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def checked(rows: Sequence[Row]) -> list[Row]:
    """A plain copy of `rows`.

    Raises:
      ValueError: there is no row, one has no label or no positive number of samples,
        or two of one series have the same number of samples.
    """
    rows = plain(list(rows))
    if not rows:
        raise ValueError("a report needs at least one row, got none")
    for index, row in enumerate(rows):
        if not isinstance(row.get("label"), str) or not row["label"].strip():
            raise ValueError(
                f"row {index} has label {row.get('label')!r}; give it the model's name"
            )
        size = row.get("num_samples")
        if not isinstance(size, int) or size < 1:
            raise ValueError(
                f"row {index} ({row['label']!r}) has num_samples {size!r}; "
                "expected an integer of at least 1"
            )
    for name, group in series(rows).items():
        sizes = [row["num_samples"] for row in group]
        for size, following in itertools.pairwise(sizes):
            if size == following:
                raise ValueError(
                    f"two rows for {name!r} have num_samples {size}; "
                    "give them different labels"
                )
    return rows


def series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each label, in order of first appearance, by number of samples.

    Where rows are of several data sets or splits, these are part of the name.
    """
    varying = [key for key in ("dataset", "split") if shared(rows, key) is None]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        details = ", ".join(str(row[key]) for key in varying if row.get(key))
        name = f"{row['label']} ({details})" if details else row["label"]
        groups.setdefault(name, []).append(row)
    return {
        name: sorted(group, key=lambda row: row["num_samples"])
        for name, group in groups.items()
    }


def shared(rows: Sequence[Row], key: str) -> Any:
    """The value that all rows have under `key`, None where there is no such value."""
    first = rows[0].get(key)
    return first if all(row.get(key) == first for row in rows) else None


def number(row: Row, key: str) -> float | None:
    """The number under `key`, None where there is none."""
    value = row.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None


def column(key: str) -> Column:
    """How `key` is headed and written; a key that is not known heads itself."""
    return COLUMNS.get(key, Column(key))


def metrics(rows: Sequence[Row]) -> list[str]:
    """The keys with a number in some row, known metrics first, descriptions not."""
    keys = [*COLUMNS, *dict.fromkeys(key for row in rows for key in row)]
    return [
        key
        for key in dict.fromkeys(keys)
        if key not in _DESCRIPTION and any(number(row, key) is not None for row in rows)
    ]


def text(row: Row, key: str, *, digits: int | None = None) -> str:
    """The value under `key` as it is shown, without its unit; "-" for None."""
    value = number(row, key)
    if value is None:
        return "-" if row.get(key) is None else str(row[key])
    if key not in COLUMNS:
        return str(value) if isinstance(value, int) else f"{value:.4g}"
    known = COLUMNS[key]
    digits = known.digits if digits is None else digits
    return f"{known.scale * value:z.{digits}f}"


def best(rows: Sequence[Row], key: str) -> str | None:
    """The best value as it is shown; None where all are alike or no side is better."""
    better = column(key).better
    found = {number(row, key): text(row, key) for row in rows}
    found.pop(None, None)
    if not better or len(set(found.values())) < 2:
        return None
    return found[min(found) if better == "lower" else max(found)]
