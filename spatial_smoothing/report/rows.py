"""Rows: the one input of every report, and how their values are read and written.

A row is a dict with the scores of one model at one number of samples. It has a
"label" (text) and "num_samples" (int >= 1). Everything else is optional: the scores of
`columns.COLUMNS` (rates as fractions, NLL and entropies in nats, times in milliseconds,
operations of a prediction in 10^9)
and

- "intervals": score -> [low, high], 95 % bootstrap intervals over the test images;
- "reference": the first scores again, by the reference's definition;
- "reliability": statistics per confidence bin;
- "risk_coverage": {"coverage": [...], "risk": [...]}, coverage increasing in (0, 1];
- "detection": {"dataset", "split", "num_examples", "scores"}, the last of these
  score -> {"auroc", "aupr", "fpr95"}, with out-of-distribution images as positives;
- "run": the workdir's name; rows that differ in it alone are averaged (see `runs`);
- "recipe", a text that networks share which differ in smoothing and seed at most, and
  "smoothed", whether there is smoothing; where absent, "model" tells;
- "device", a text that names the device on which "milliseconds" were measured;
- "model", "dataset", "split", "num_examples", and any other key, which is carried
  along.

A value that is missing or not finite is None.
"""

import math
from collections.abc import Sequence
from typing import Any

from spatial_smoothing.report.columns import COLUMNS, DETECTORS, column

Row = dict[str, Any]
UNDEFINED = "–"  # in place of a value
# Scores of some of the images only: the confident ones, or the wrong ones.
CONDITIONAL = ("accuracy_90", "iou_90", "unconfidence_90")
_ROUNDING = 1e-5  # nats
DESCRIPTION = (
    "label",
    "model",
    "dataset",
    "split",
    "num_members",
    "num_samples",
    "num_examples",
    "num_runs",
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


def plain_but_arrays(rows: Sequence[Row]) -> list[Row]:
    """A plain copy of rows; their "arrays" stay as they are."""
    return [
        {
            **plain({key: value for key, value in row.items() if key != "arrays"}),
            **({"arrays": row["arrays"]} if row.get("arrays") else {}),
        }
        for row in rows
    ]


def checked(rows: Sequence[Row]) -> list[Row]:
    """A plain copy of `rows`.

    Raises:
      ValueError: there is no row, one has no label or no positive number of samples,
        or two of one series and run have the same number of samples.
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
        found = set()
        for row in group:
            if (row["num_samples"], row.get("run")) in found:
                raise ValueError(
                    f"two rows for {name!r} have num_samples {row['num_samples']}; "
                    "give them different labels, or different runs to average them"
                )
            found.add((row["num_samples"], row.get("run")))
    return [_without_undefined(row) for row in rows]


def series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each label, in order of first appearance, by number of samples.

    Where rows are of several data sets or splits, these are part of the name.
    """
    groups: dict[str, list[Row]] = {}
    for name, row in zip(series_names(rows), rows, strict=True):
        groups.setdefault(name, []).append(row)
    return {
        name: sorted(group, key=lambda row: row["num_samples"])
        for name, group in groups.items()
    }


def series_names(rows: Sequence[Row]) -> list[str]:
    """The name of the series of each row; see `series`."""
    varying = [key for key in ("dataset", "split") if shared(rows, key) is None]
    names = []
    for row in rows:
        details = ", ".join(str(row[key]) for key in varying if row.get(key))
        names.append(f"{row['label']} ({details})" if details else row["label"])
    return names


def listed(words: Sequence[str]) -> str:
    """Words in a sentence: "A", "A and B", "A, B and C"."""
    *first, last = words or [""]
    return f"{', '.join(first)} and {last}" if first else last


def shared(rows: Sequence[Row], key: str) -> Any:
    """The value that all rows have under `key`, None where there is no such value."""
    first = rows[0].get(key) if rows else None
    return first if all(row.get(key) == first for row in rows) else None


def likeness(row: Row) -> tuple:
    """What rows must have in common for their scores to be ranked."""
    about = (row.get(key) for key in ("dataset", "split", "num_examples"))
    return row.get("num_runs", 1), *about


def are_rankable(rows: Sequence[Row]) -> bool:
    """Whether rows are of equally many runs, and of the same images.

    A mean over two runs is not ranked with a single run: of many single runs, the best
    one is better than their mean by chance alone.
    """
    return len({likeness(row) for row in rows}) < 2


def conditional_count(row: Row, key: str) -> float | None:
    """The number of images that a conditional score is of.

    Args:
      row: A row; the mean of several runs has the mean number.
      key: A score.

    Returns:
      At least 0; None if the score is of all images, or if the row does not tell.
    """
    share, images = _share(row, key), number(row, "num_examples")
    return None if None in (share, images) else share * images


def _share(row: Row, key: str) -> float | None:
    """The share of the images that a conditional score is of, None if unknown."""
    if key not in CONDITIONAL:
        return None
    if key == "unconfidence_90":
        accuracy = number(row, "accuracy")
        return None if accuracy is None else 1 - accuracy
    return number(row, "frequency_90")


def _without_undefined(row: Row) -> Row:
    """A row whose conditional scores of no image are None, with their intervals.

    Evaluations by earlier versions have zeros there.
    """
    undefined = [key for key in CONDITIONAL if key in row and _share(row, key) == 0]
    if not undefined:
        return row
    cleared = dict.fromkeys(undefined)
    if isinstance(row.get("intervals"), dict):
        kept = {k: v for k, v in row["intervals"].items() if k not in cleared}
        cleared["intervals"] = kept
    return {**row, **cleared}


def number(row: Row, key: str) -> float | None:
    """The number under `key`, None where there is none."""
    value = row.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None


def metrics(rows: Sequence[Row], *, group: str = "results") -> list[str]:
    """The keys of a group with a number in some row, descriptions left out.

    Known scores come first; keys that are not known are results.
    """
    keys = [*COLUMNS, *dict.fromkeys(key for row in rows for key in row)]
    return [
        key
        for key in dict.fromkeys(keys)
        if column(key).group == group
        and key not in DESCRIPTION
        and any(number(row, key) is not None for row in rows)
    ]


def band(row: Row, key: str) -> tuple[float, float] | None:
    """(low, high) of a score: over runs where there are several, else its interval."""
    bands = row.get("spread" if "num_runs" in row else "intervals") or {}
    low, high = bands.get(key) or (None, None)
    return None if None in (low, high) or number(row, key) is None else (low, high)


def band_meanings(rows: Sequence[Row], keys: Sequence[str]) -> tuple[str, str]:
    """What the bands of some scores are, in words.

    Args:
      rows: Report rows.
      keys: The scores.

    Returns:
      (ranges over runs, bootstrap intervals); "" for what there is none of.
    """
    banded = [row for row in rows if any(band(row, key) for key in keys)]
    means = [row for row in banded if "num_runs" in row]
    spread = interval = ""
    if means:
        spread = f"the range over {shared(means, 'num_runs') or 'the'} runs"
    if len(means) < len(banded):
        interval = "the 95 % bootstrap interval over the test images"
    return spread, interval


def written(key: str, value: float, *, digits: int | None = None) -> str:
    """A value of `key` as it is shown, without its unit."""
    if key not in COLUMNS:
        return str(value) if isinstance(value, int) else f"{value:.4g}"
    known = COLUMNS[key]
    digits = known.digits if digits is None else digits
    return f"{known.scale * value:z.{digits}f}"


def text(row: Row, key: str, *, digits: int | None = None) -> str:
    """The value under `key` as it is shown, without its unit; "–" for None."""
    value = number(row, key)
    if value is None:
        return UNDEFINED if row.get(key) is None else str(row[key])
    return written(key, value, digits=digits)


def best(rows: Sequence[Row], key: str) -> str | None:
    """The best value of a score as it is shown, None for no best value.

    There is none where all are alike, where no side is better, where rows are of
    different numbers of runs or images, and for a conditional score, which is of other
    images in each row.
    """
    rows = [row for row in rows if number(row, key) is not None]
    better = "" if key in CONDITIONAL else column(key).better
    found = {number(row, key): text(row, key) for row in rows}
    found.pop(None, None)
    if not better or len(set(found.values())) < 2 or not are_rankable(rows):
        return None
    return found[min(found) if better == "lower" else max(found)]


def detectors(rows: Sequence[Row]) -> list[str]:
    """The scores that some row has an AUROC for, known ones first."""
    found = dict.fromkeys(
        name
        for row in rows
        for name, values in ((row.get("detection") or {}).get("scores") or {}).items()
        if values and number(values, "auroc") is not None
    )
    return [*(n for n in DETECTORS if n in found), *(found.keys() - DETECTORS.keys())]


def detected(row: Row, name: str) -> Row:
    """The detection by one score as a row; without values if there is none.

    The mutual information of a single prediction is zero for every image, so that its
    AUROC would say nothing: it is left out.

    Args:
      row: A report row.
      name: The score, a key of "scores" in "detection".

    Returns:
      A row with "auroc", "aupr" and "fpr95".
    """
    scores = (row.get("detection") or {}).get("scores") or {}
    values = scores.get(name) or {}
    if name == "mutual_information" and (number(row, name) or 0) < _ROUNDING:
        values = {}
    about = {key: row[key] for key in DESCRIPTION if key in row and key != "num_runs"}
    return {**values, **about}
