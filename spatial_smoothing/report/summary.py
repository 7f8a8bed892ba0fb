"""The findings of a report in words: rows -> one paragraph.

Every sentence is computed from the rows and names the models, the sizes and the values
that it compares, so that it holds whichever way a comparison goes.
"""

import math
from collections.abc import Sequence

from spatial_smoothing.report.comparisons import (
    difference,
    excludes_zero,
    smoothing_pairs,
)
from spatial_smoothing.report.rows import Row, listed, number, series, shared, text

_NAMES = {"nll": "NLL", "accuracy": "accuracy", "ece": "ECE"}


def paragraph(rows: Sequence[Row], *, differences: Sequence[Row] = ()) -> str:
    """The lowest NLL, what smoothing or the size changes, and the precision."""
    groups = {
        name: [row for row in group if number(row, "nll") is not None]
        for name, group in series(rows).items()
    }
    groups = {name: group for name, group in groups.items() if group}
    if not groups:
        return "No row has a finite NLL."
    best = min(groups, key=lambda name: _lowest(groups[name])["nll"])
    sentences = [_leader(rows, best, _lowest(groups[best]))]
    pairs = smoothing_pairs(groups)
    for smoothed, baseline in pairs:
        sentences.append(_sizes_needed(groups, smoothed, baseline))
        sentences.append(_same_size(groups, smoothed, baseline))
        sentences.append(_certainty(groups, smoothed, baseline, differences))
    if not pairs:
        sentences += [_trend(name, group) for name, group in groups.items()]
    sentences.append(_precision(_lowest(groups[best])))
    return " ".join(sentence for sentence in sentences if sentence)


def samples(count: int) -> str:
    """The number of samples in words: "1 sample", "5 samples"."""
    return "1 sample" if count == 1 else f"{count:,} samples"


def _lowest(group: list[Row]) -> Row:
    return min(group, key=lambda row: row["nll"])


def _leader(rows: Sequence[Row], name: str, row: Row) -> str:
    images, dataset = shared(rows, "num_examples"), shared(rows, "dataset")
    where = f" on {images:,.0f} images" if images else ""
    where += f" of {dataset}" if where and dataset else ""
    claim = "has the lowest NLL," if len(rows) > 1 else "has an NLL of"
    rest = [
        f"{_NAMES[key]} {text(row, key)} %"
        for key in ("accuracy", "ece")
        if number(row, key) is not None
    ]
    also = f" ({', '.join(rest)})" if rest else ""
    size = samples(row["num_samples"])
    runs = f", as the mean of {row['num_runs']} runs" if "num_runs" in row else ""
    return f"{name} with {size} {claim} {text(row, 'nll')} nats{also}{where}{runs}."


def _sizes_needed(groups: dict[str, list[Row]], smoothed: str, baseline: str) -> str:
    """How many samples give the NLL that the baseline has with its most."""
    rows, target = groups[smoothed], groups[baseline][-1]
    reached = [row for row in rows if row["nll"] <= target["nll"]]
    row = reached[0] if reached else _lowest(rows)
    ours = f"{smoothed} with {samples(row['num_samples'])}"
    theirs = f"{baseline} with {samples(target['num_samples'])}"
    value, other = _distinct(row, target)
    if row["nll"] == target["nll"]:
        return f"{ours} has the same NLL as {theirs}, {value}."
    if reached:
        return f"{ours} has NLL {value}, below that of {theirs}, {other}."
    if len(rows) == 1:
        return f"{ours} has NLL {value}, above that of {theirs}, {other}."
    return (
        f"{smoothed} does not reach the NLL of {theirs}, {other}, at any evaluated "
        f"size: its lowest is {value}, with {samples(row['num_samples'])}."
    )


def _same_size(groups: dict[str, list[Row]], smoothed: str, baseline: str) -> str:
    """Accuracy and ECE without and with smoothing, at the largest size of both."""
    size, before, after = _largest_shared(groups, smoothed, baseline)
    changes = [
        f"{_NAMES[key]} from {text(before, key)} % to {text(after, key)} %"
        for key in ("accuracy", "ece")
        if None not in (number(before, key), number(after, key))
    ]
    if not changes:
        return ""
    return f"With {samples(size)} each, smoothing takes {' and '.join(changes)}."


def _certainty(
    groups: dict[str, list[Row]],
    smoothed: str,
    baseline: str,
    differences: Sequence[Row],
) -> str:
    """Which of the changes the paired differences at that size bear out."""
    size, *_ = _largest_shared(groups, smoothed, baseline)
    found = difference(differences, smoothed, baseline, size)
    values = (found or {"values": {}})["values"]
    known = [key for key in _NAMES if key in values]
    clear = listed([_NAMES[key] for key in known if excludes_zero(values[key])])
    unclear = listed([_NAMES[key] for key in known if not excludes_zero(values[key])])
    if not known:
        return ""
    if not unclear:
        return f"The 95 % intervals of the paired differences in {clear} exclude zero."
    words = (
        f"The 95 % interval of the paired difference in {unclear} includes zero: these "
        "images do not show which of the two is better there"
    )
    return f"{words}; in {clear} it excludes zero." if clear else f"{words}."


def _largest_shared(
    groups: dict[str, list[Row]], smoothed: str, baseline: str
) -> tuple[int, Row, Row]:
    """The largest size of both with the rows there; (0, {}, {}) without one."""
    after, before = (
        {row["num_samples"]: row for row in groups[name]}
        for name in (smoothed, baseline)
    )
    size = max(after.keys() & before.keys(), default=0)
    return size, before.get(size, {}), after.get(size, {})


def _trend(name: str, group: list[Row]) -> str:
    """How the NLL changes from the smallest number of samples to the largest."""
    first, last = group[0], group[-1]
    if first is last:
        return ""
    before, after = _distinct(first, last)
    sizes = f"From {first['num_samples']:,} to {samples(last['num_samples'])}"
    if first["nll"] == last["nll"]:
        return f"{sizes}, the NLL of {name} stays at {before}."
    verb = "falls" if last["nll"] < first["nll"] else "rises"
    return f"{sizes}, the NLL of {name} {verb} from {before} to {after}."


def _precision(row: Row) -> str:
    rate, images = number(row, "accuracy"), number(row, "num_examples")
    if rate is None or not images or not 0 <= rate <= 1:
        return ""
    error = 100 * math.sqrt(rate * (1 - rate) / images)
    return (
        f"With {images:,.0f} images, the standard error of an accuracy of "
        f"{text(row, 'accuracy')} % is {error:.2f} percentage points."
    )


def _distinct(row: Row, other: Row) -> tuple[str, str]:
    """Both NLLs, with more than three digits where these do not tell them apart."""
    pairs = [
        (text(row, "nll", digits=digits), text(other, "nll", digits=digits))
        for digits in range(3, 9)
    ]
    return next((pair for pair in pairs if pair[0] != pair[1]), pairs[0])
