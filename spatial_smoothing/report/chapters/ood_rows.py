"""What tables and figures of out-of-distribution detection share: rows, and names.

A row is one confidence of one ensemble, on one set (`ood`) or as the mean over near or
over far sets (without `ood`).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from spatial_smoothing.report.chapters.robustness import prepared
from spatial_smoothing.report.rows import Row, plain_but_arrays

# Confidence -> its heading and what it is.
CONFIDENCES = {
    "msp": ("MSP", "largest probability"),
    "temperature": (
        "TempScale",
        "largest probability after temperature scaling on held-out images",
    ),
    "entropy": ("Entropy", "minus the entropy of the mean prediction"),
    "mutual_information": (
        "Mutual information",
        "minus the disagreement between samples; a single one has none",
    ),
    "gen": ("GEN", "minus the generalised entropy, sum p^γ (1 − p)^γ"),
    "mls": ("MLS", "largest logit"),
    "energy": ("Energy", "log-sum-exp of the logits"),
    "odin": (
        "ODIN",
        "largest probability at the temperature 1000, without the input gradient",
    ),
    "knn": ("KNN", "minus the distance to the k-th nearest training feature"),
    "mahalanobis": ("MDS", "minus the Mahalanobis distance to the nearest class"),
    "relative_mahalanobis": (
        "RMDS",
        "the same, minus the distance to the mean of all classes",
    ),
    "ddu": ("DDU", "log-density of the features, a normal distribution a class"),
    "react": ("ReAct", "log-sum-exp of the logits of features that are cut off above"),
    "vim": ("ViM", "log-sum-exp of the logits, minus a logit made of the residual"),
}
_OF_LOGITS = ("mls", "energy", "odin")  # and of nothing else
DISTANCES = {"near": "Near", "far": "Far"}
KINDS = ("confidence", "average", "ood", "distance")


class Scored(NamedTuple):
    """One confidence of one ensemble.

    Attributes:
      label: Name of the model.
      num_samples: Number of samples N.
      confidence: Heading of the confidence.
      means: "near" and "far" -> row of means, as far as there are any.
      sets: Name of a set -> row.
    """

    label: str
    num_samples: int
    confidence: str
    means: dict[str, Row]
    sets: dict[str, Row]


def scored(rows: Sequence[Row]) -> list[Scored]:
    """Joins the rows of each confidence of each ensemble, in order of appearance.

    Args:
      rows: Rows of the chapter; those of several runs are averaged.
    """
    found: dict[tuple, Scored] = {}
    # Numbers that are not finite become None, also before a report is written.
    for row in prepared(plain_but_arrays(rows), KINDS):
        kind = (row["label"], row["num_samples"], confidence(row))
        each = found.setdefault(kind, Scored(*kind, {}, {}))
        if row.get("ood"):
            each.sets[row["ood"]] = row
        else:
            each.means[row["distance"]] = row
    return list(found.values())


def confidence(row: Row) -> str:
    """The heading of the confidence of a row, with what is averaged if it matters."""
    name = row["confidence"]
    heading, _ = CONFIDENCES.get(name, (name, name))
    of_logits = row.get("average") == "logits" and name not in _OF_LOGITS
    return f"{heading} (logits)" if of_logits else heading


def largest(found: Sequence[Scored]) -> list[Scored]:
    """Each confidence of each model at its largest number of samples."""
    best: dict[tuple[str, str], Scored] = {}
    for each in found:
        kind = (each.label, each.confidence)
        if kind not in best or each.num_samples > best[kind].num_samples:
            best[kind] = each
    return list(best.values())


def set_names(rows: Sequence[Row]) -> dict[str, str]:
    """Name of each set -> what reports call it, in order of appearance.

    A path is shortened to its last part, unless two sets would then be called alike.
    """
    names = dict.fromkeys(row["ood"] for row in rows if row.get("ood"))
    short = {name: _short(name) for name in names}
    counts = list(short.values())
    return {
        name: name if counts.count(text) > 1 else text for name, text in short.items()
    }


def _short(name: str) -> str:
    """The last part of a path, without the kind of the data set in front."""
    text, bracket, subset = name.partition("[")
    last = re.split(r"[:/]", text.rstrip("/"))[-1]
    return f"{last.removesuffix('.txt') or text}{bracket}{subset}"
