"""The findings of a report in words: rows -> one paragraph.

Every sentence is computed from the rows and names the models, the sizes and the values
that it compares, so that it holds whichever way a comparison goes.
"""

import difflib
import math
from collections.abc import Sequence

from spatial_smoothing.report.rows import Row, number, series, shared, text


def paragraph(rows: Sequence[Row]) -> str:
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
    pairs = _smoothing_pairs(groups)
    for smoothed, baseline in pairs:
        sentences.append(_sizes_needed(groups, smoothed, baseline))
        sentences.append(_same_size(groups, smoothed, baseline))
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
        f"{heading} {text(row, key)} %"
        for key, heading in (("accuracy", "accuracy"), ("ece", "ECE"))
        if number(row, key) is not None
    ]
    also = f" ({', '.join(rest)})" if rest else ""
    size = samples(row["num_samples"])
    return f"{name} with {size} {claim} {text(row, 'nll')} nats{also}{where}."


def _smoothing_pairs(groups: dict[str, list[Row]]) -> list[tuple[str, str]]:
    """(smoothed, baseline) for every series whose model differs only in smoothing.

    Where a model has several series (deterministic and deep ensemble, say), that with
    the most similar name is the baseline.
    """
    models = {
        name: (str(row.get("model")), row.get("dataset"), row.get("split"))
        for name, (row, *_) in groups.items()
    }
    pairs = []
    for smoothed, (model, *setting) in models.items():
        wanted = (model.replace("_smoothing", ""), *setting)
        baselines = [name for name in groups if models[name] == wanted]
        if "_smoothing" in model and baselines:
            alike = difflib.get_close_matches(smoothed, baselines, n=1, cutoff=0)
            pairs.append((smoothed, alike[0]))
    return pairs


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
    after, before = (
        {row["num_samples"]: row for row in groups[name]}
        for name in (smoothed, baseline)
    )
    size = max(after.keys() & before.keys(), default=None)
    if size is None:
        return ""
    changes = [
        f"{heading} from {text(before[size], key)} % to {text(after[size], key)} %"
        for key, heading in (("accuracy", "accuracy"), ("ece", "ECE"))
        if None not in (number(before[size], key), number(after[size], key))
    ]
    if not changes:
        return ""
    return f"With {samples(size)} each, smoothing takes {' and '.join(changes)}."


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
