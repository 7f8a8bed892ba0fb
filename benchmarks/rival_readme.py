"""The page of a comparison of rivals: what was run, a table, and what it shows."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.rival_methods import SCALES
from spatial_smoothing.report.costs import pareto_front
from spatial_smoothing.runs.labels import SMOOTHED

_IMAGES = {
    "small": "The embedded set is small and drawn by a program, and the networks are "
    "narrow and trained for four epochs.",
    "full": "The networks are those of the paper.",
}
_LIMITS = {
    "small": "It does not show how the methods compare on CIFAR-100 or in networks of "
    "the usual width, where members have room to differ.",
    "full": "It does not show how the methods compare on other data sets.",
}
_SCORES = ("nll", "accuracy", "ece")


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row for each label and number of predictions, the mean over runs.

    Args:
      rows: Rows of all runs.

    Returns:
      Rows with `label`, `num_samples`, `runs`, `gflops`, the scores, and `low` and
      `high`, the smallest and the largest NLL, in the order of `rows`.
    """
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["label"], row["num_samples"]), []).append(row)
    return [
        {
            "label": label,
            "num_samples": size,
            "runs": len(group),
            "gflops": group[0].get("gflops"),
            **{key: statistics.fmean(row[key] for row in group) for key in _SCORES},
            "low": min(row["nll"] for row in group),
            "high": max(row["nll"] for row in group),
        }
        for (label, size), group in groups.items()
    ]


def text(
    rows: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any], *, scale: str
) -> str:
    """Returns the page.

    Args:
      rows: Rows of all runs.
      provenance: Where they come from; see `runs.provenance`.
      scale: A key of `SCALES`.
    """
    found, chosen = means(rows), SCALES[scale]
    fields = ", ".join(f"{key} {value}" for key, value in chosen.fields.items())
    lines = [
        f"# Rivals of spatial smoothing, {scale} scale: {chosen.config}",
        "",
        f"{_IMAGES[scale]} Every method has the config `{chosen.config}` with "
        f"{fields}. All {rows[0]['num_examples']} test images are scored. Scores are "
        "means over seeds; NLL has the range over seeds.",
        "",
        f"`python -m benchmarks.rivals --scale={scale}` at commit "
        f"{provenance['commit']}, {provenance['time'][:10]}, on "
        f"{provenance['num_devices']} {provenance['device']} "
        f"({provenance['machine']}), JAX {provenance['libraries']['jax']}.",
        "",
        "| method | predictions | seeds | GFLOPs, one image | NLL | accuracy | ECE |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        operations = row["gflops"]
        lines.append(
            f"| {row['label']} | {row['num_samples']} | {row['runs']} | "
            f"{'' if operations is None else f'{operations:.3g}'} | "
            f"{row['nll']:.3f} ({row['low']:.3f} to {row['high']:.3f}) | "
            f"{row['accuracy']:.1%} | {row['ece']:.1%} |"
        )
    return "\n".join([*lines, "", f"{shows(found)} {_LIMITS[scale]}", ""])


def shows(found: Sequence[Mapping[str, Any]]) -> str:
    """Returns in words what the rows show.

    Args:
      found: Rows of `means`.
    """
    by_name = {(row["label"], row["num_samples"]): row for row in found}
    largest = {row["label"]: row for row in found}  # sizes increase
    pairs = [
        (row, by_name[label + SMOOTHED, row["num_samples"]])
        for label, row in largest.items()
        if (label + SMOOTHED, row["num_samples"]) in by_name
    ]
    better = [plain["label"] for plain, smooth in pairs if smooth["nll"] < plain["nll"]]
    costed = [row for row in found if row["gflops"] is not None]
    on_front = pareto_front(
        [row["gflops"] for row in costed],
        [row["nll"] for row in costed],
        better="lower",
    )
    front = dict.fromkeys(
        row["label"] for row, is_on in zip(costed, on_front, strict=True) if is_on
    )
    return (
        f"It shows that smoothing lowers the mean NLL of {len(better)} of "
        f"{len(pairs)} methods here ({', '.join(better) or 'none'}), and that on the "
        f"Pareto front of NLL and operations are: {', '.join(front)}."
    )
