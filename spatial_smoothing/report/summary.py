"""The findings of a report in words: rows -> one paragraph.

Every sentence is computed from the rows and names the models, the sizes and the values
that it compares, so that it holds whichever way a comparison goes. Only rows of equally
many runs and images are compared. A difference is told as one only where the rows bear
it out: where a paired difference or both bands are known, these decide; where there is
none, the values must differ as they are written.
"""

import math
from collections.abc import Mapping, Sequence

from spatial_smoothing.report.comparisons import (
    are_alike,
    difference,
    excludes_zero,
    smoothing_pairs,
)
from spatial_smoothing.report.rows import (
    Row,
    band,
    likeness,
    listed,
    number,
    series,
    shared,
    text,
)

_NAMES = {"nll": "NLL", "accuracy": "accuracy", "ece": "ECE"}
Groups = Mapping[str, Sequence[Row]]


def paragraph(rows: Sequence[Row], *, differences: Sequence[Row] = ()) -> str:
    """The lowest NLL, what smoothing or the size changes, and the precision.

    Args:
      rows: Report rows, averaged over runs.
      differences: Paired differences, checked; see `comparisons`.
    """
    groups = {
        name: [row for row in group if number(row, "nll") is not None]
        for name, group in series(rows).items()
    }
    groups = {name: group for name, group in groups.items() if group}
    if not groups:
        return "No row has a finite NLL."
    sentences = _leaders(groups)
    pairs = smoothing_pairs(groups)
    for smoothed, baseline in pairs:
        if are_alike(groups[smoothed], groups[baseline]):
            sentences.append(_sizes_needed(groups, smoothed, baseline, differences))
            sentences.append(_same_size(groups, smoothed, baseline, differences))
        else:
            sentences.append(_not_compared(groups, smoothed, baseline))
    if not pairs:
        sentences += [_trend(name, group) for name, group in groups.items()]
    sentences.append(_precision([row for group in groups.values() for row in group]))
    return " ".join(sentence for sentence in sentences if sentence)


def samples(count: int) -> str:
    """The number of samples in words: "1 sample", "5 samples"."""
    return "1 sample" if count == 1 else f"{count:,} samples"


def _lowest(group: Sequence[Row]) -> Row:
    return min(group, key=lambda row: row["nll"])


def _leaders(groups: Groups) -> list[str]:
    """The model with the lowest NLL among each set of models that are alike."""
    sets: dict[tuple, dict[str, list[Row]]] = {}
    for name, group in groups.items():
        for row in group:
            sets.setdefault(likeness(row), {}).setdefault(name, []).append(row)
    several = len(sets) > 1
    return [_leader(own, says_which=several) for own in sets.values()]


def _leader(groups: Groups, *, says_which: bool) -> str:
    """The lowest NLL of models that are alike, and which others come close.

    Args:
      groups: Series -> its rows.
      says_which: Whether there are other models, which are not compared with these.
    """
    if len(groups) == 1:
        # The sizes of one model are told by its trend, which knows what is clear.
        lowest = {name: group[-1] for name, group in groups.items()}
    else:
        lowest = {name: _lowest(group) for name, group in groups.items()}
    name = min(lowest, key=lambda name: lowest[name]["nll"])
    row = lowest[name]
    rest = [
        f"{_NAMES[key]} {text(row, key)} %"
        for key in ("accuracy", "ece")
        if number(row, key) is not None
    ]
    also = f" ({', '.join(rest)})" if rest else ""
    rows = [row for group in groups.values() for row in group]
    images, dataset = row.get("num_examples"), shared(rows, "dataset")
    where = f" on {images:,.0f} images" if images else ""
    where += f" of {dataset}" if where and dataset else ""
    runs = f", as the mean of {row['num_runs']} runs" if "num_runs" in row else ""
    which = f"Of the models with {_runs(row)}, " if says_which else ""
    claim = "has the lowest NLL," if len(groups) > 1 else "has an NLL of"
    sentence = (
        f"{which}{name} with {samples(row['num_samples'])} {claim} {text(row, 'nll')} "
        f"nats{also}{where}{runs}."
    )
    close = [
        f"{other} ({text(lowest[other], 'nll')})"
        for other in lowest
        if other != name and _is_clear(row, lowest[other], "nll") is False
    ]
    if not close:
        return sentence
    return f"{sentence} It is not clearly lower than that of {listed(close)}."


def _runs(row: Row) -> str:
    count = row.get("num_runs", 1)
    return "1 run" if count == 1 else f"{count} runs"


def _is_clear(row: Row, other: Row, key: str) -> bool | None:
    """Whether the bands of a score do not overlap; None where one has no band.

    Where neither has one, values that are written alike are no difference.
    """
    bands = band(row, key), band(other, key)
    if None in bands:
        return False if text(row, key) == text(other, key) else None
    (low, high), (other_low, other_high) = bands
    return high < other_low or other_high < low


def _not_compared(groups: Groups, smoothed: str, baseline: str) -> str:
    """Why two models that differ in smoothing are not compared."""
    parts = []
    for name in (smoothed, baseline):
        row = groups[name][-1]
        images = row.get("num_examples")
        of = f" of {images:,.0f} images" if images else ""
        parts.append(f"{name} has {_runs(row)}{of}")
    return f"{parts[0]} and {parts[1]}: they are not compared."


def _sizes_needed(
    groups: Groups, smoothed: str, baseline: str, differences: Sequence[Row]
) -> str:
    """How many samples give the NLL that the baseline has with its most."""
    rows, target = groups[smoothed], groups[baseline][-1]
    reached = [row for row in rows if row["nll"] <= target["nll"]]
    row = reached[0] if reached else _lowest(rows)
    size, target_size = row["num_samples"], target["num_samples"]
    ours = f"{smoothed} with {samples(size)}"
    theirs = f"{baseline} with {samples(target_size)}"
    value, other = text(row, "nll"), text(target, "nll")
    if value == other:
        return f"{ours} has the same NLL as {theirs}, {value}."
    if size == target_size:
        found = difference(differences, smoothed, baseline, size)
    else:
        names = f"{smoothed}, N = {size},", f"{baseline}, N = {target_size}"
        found = difference(differences, *names, size)
    clear = _is_clear(row, target, "nll")
    if found and "nll" in found["values"]:
        clear = excludes_zero(found["values"]["nll"])
    if clear is False:
        return (
            f"The NLL of {ours}, {value}, is not clearly different from that of "
            f"{theirs}, {other}."
        )
    if reached:
        return f"{ours} has NLL {value}, below that of {theirs}, {other}."
    if len(rows) == 1:
        return f"{ours} has NLL {value}, above that of {theirs}, {other}."
    return (
        f"{smoothed} does not reach the NLL of {theirs}, {other}, at any evaluated "
        f"size: its lowest is {value}, with {samples(size)}."
    )


def _same_size(
    groups: Groups, smoothed: str, baseline: str, differences: Sequence[Row]
) -> str:
    """What smoothing changes at the largest size of both, and what not clearly."""
    size, before, after = _largest_shared(groups, smoothed, baseline)
    found = difference(differences, smoothed, baseline, size) or {"values": {}}
    changes: list[str] = []
    paired: list[str] = []  # whose paired difference excludes zero
    unclear: dict[str, list[str]] = {}  # why a change is not clear -> scores
    for key, name in _NAMES.items():
        if key in found["values"]:
            clear = excludes_zero(found["values"][key])
            reason = "the 95 % interval of the paired difference includes zero"
            if clear:
                paired.append(name)
        else:
            clear = _is_clear(before, after, key)
            has_bands = band(before, key) and band(after, key)
            reason = "the bands overlap" if has_bands else "the values are the same"
        if None in (number(before, key), number(after, key)):
            continue
        if clear is False:
            unclear.setdefault(reason, []).append(name)
        elif key != "nll":  # `_sizes_needed` tells that
            values = f"{text(before, key)} % to {text(after, key)} %"
            changes.append(f"{name} from {values}")
    sentences = []
    if changes:
        each = f"With {samples(size)} each"
        sentences.append(f"{each}, smoothing takes {listed(changes)}.")
    if paired:
        several = len(paired) > 1
        intervals = "intervals" if several else "interval"
        sentences.append(
            f"With {samples(size)} each, the 95 % {intervals} of the paired "
            f"difference{'s' * several} in {listed(paired)} "
            f"exclude{'' if several else 's'} zero."
        )
    for reason, names in unclear.items():
        sentences.append(
            f"With {samples(size)} each, smoothing does not clearly change "
            f"{listed(names)}: {reason}."
        )
    return " ".join(sentences)


def _largest_shared(
    groups: Groups, smoothed: str, baseline: str
) -> tuple[int, Row, Row]:
    """The largest size of both with the rows there; (0, {}, {}) without one."""
    after, before = (
        {row["num_samples"]: row for row in groups[name]}
        for name in (smoothed, baseline)
    )
    size = max(after.keys() & before.keys(), default=0)
    return size, before.get(size, {}), after.get(size, {})


def _trend(name: str, group: Sequence[Row]) -> str:
    """How the NLL changes from the smallest number of samples to the largest."""
    first, last = group[0], group[-1]
    if first is last or not are_alike([first], [last]):
        return ""
    before, after = text(first, "nll"), text(last, "nll")
    sizes = f"From {first['num_samples']:,} to {samples(last['num_samples'])}"
    if before == after:
        return f"{sizes}, the NLL of {name} stays at {before}."
    if _is_clear(first, last, "nll") is False:
        return (
            f"{sizes}, the NLL of {name} does not clearly change ({before} and "
            f"{after}): the bands overlap."
        )
    verb = "falls" if last["nll"] < first["nll"] else "rises"
    return f"{sizes}, the NLL of {name} {verb} from {before} to {after}."


def _precision(rows: Sequence[Row]) -> str:
    """The standard error of the accuracy of the model with the lowest NLL."""
    row = _lowest(rows)
    rate, images = number(row, "accuracy"), number(row, "num_examples")
    if rate is None or not images or not 0 <= rate <= 1:
        return ""
    error = 100 * math.sqrt(rate * (1 - rate) / images)
    return (
        f"With {images:,.0f} images, the standard error of an accuracy of "
        f"{text(row, 'accuracy')} % is {error:.2f} percentage points."
    )
