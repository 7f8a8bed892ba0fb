"""The page of a comparison of rivals: what was run, tables, and what they show."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import markdown, rival_findings
from benchmarks.rival_findings import SCORES
from benchmarks.rival_methods import METHODS, SCALES
from spatial_smoothing.cli import config_files
from spatial_smoothing.report import costs
from spatial_smoothing.report.columns import column
from spatial_smoothing.report.rows import Row, band, listed
from spatial_smoothing.report.runs import averaged
from spatial_smoothing.runs.labels import SMOOTHED
from spatial_smoothing.runs.provenance import device_name

_ABOUT = {
    "small": "This is the small scale: narrow networks, small images that a program "
    "draws, and few epochs. It says nothing of CIFAR-100, nor of networks of the usual "
    "width, where members have room to differ.",
    "full": "This is the full scale: the networks and the recipe of the paper. It says "
    "nothing of other data sets.",
}


_HEADS = ("NLL (nats)", "accuracy (%)", "ECE (%)")


def text(
    rows: Sequence[Row],
    provenances: Sequence[tuple[Mapping[str, Any], int]],
    *,
    scale: str,
) -> str:
    """Returns the page.

    Args:
      rows: Rows of all runs.
      provenances: Where runs come from, as `runs.provenance` returns it, and how many
        runs come from there.
      scale: A key of `SCALES`.
    """
    found = averaged(rows)
    sections = [
        f"# Rivals of spatial smoothing, {scale} scale: {rows[0]['dataset']}",
        "Methods that average several predictions, each with spatial smoothing and "
        "without it, by their scores and by what a prediction costs. " + _ABOUT[scale],
        "![NLL, accuracy and ECE against GFLOPs](cost.png)",
        "## What was run",
        _setting(rows, scale=scale),
        _methods(rows, scale=scale),
        _origin(rows, provenances, scale=scale),
        "## What it shows",
        "\n".join(f"- {each}" for each in rival_findings.sentences(rows, found)),
        "A program makes these sentences from the rows of the tables below.",
        "## Each method at its best N",
        "The N of a method is the one with the lowest mean NLL. It is chosen by the "
        "test images that are scored, which favours methods that have several N.",
        _best_table(found),
        "## What smoothing changes",
        "Scores with smoothing minus those without it, of runs with the same seed and "
        "the same N, the largest one of the method. The interval is the 95 % one of "
        "Student's t for the mean over seeds. It covers what varies between trainings, "
        "and not what would vary between sets of test images.",
        _changes_table(rows),
        "## All values",
        _table(found, {}),
    ]
    return "\n\n".join(each for each in sections if each) + "\n"


def _setting(rows: Sequence[Row], *, scale: str) -> str:
    """Returns what networks and training have in common, and what the values are."""
    config = config_files.load(SCALES[scale].config)
    config.update(SCALES[scale].fields)
    blocks = "" if config.stages is None else f"{sum(config.stages)} blocks and "
    width = 64 if config.width is None else config.width
    seeds = sorted({rival_findings.seed(row) for row in rows})
    return (
        f"All networks are residual networks with {blocks}{width} channels in the "
        f"first stage. They are trained on `{rows[0]['dataset']}` for "
        f"{config.warmup_epochs + config.epochs} epochs by the same recipe, that of "
        f"`--config={SCALES[scale].config}`, and scored on "
        f"{rows[0]['num_examples']:,} test images. A value is the mean over the runs "
        f"of a method, which differ in their seeds ({listed(list(map(str, seeds)))}); "
        "in brackets are the lowest and the highest one. N is the number of "
        f"predictions that are averaged. GFLOPs are {column('gflops').note}. "
        "Only predictions are counted: the trainings of the methods do not cost the "
        "same."
    )


def _methods(rows: Sequence[Row], *, scale: str) -> str:
    """Returns a list of the methods that the rows are of."""
    labels: dict[str, dict[str, None]] = {}
    for row in rows:
        names = labels.setdefault(rival_findings.method(row), {})
        names[row["label"].replace(SMOOTHED, "")] = None
    lines = []
    for name, method in METHODS.items():
        if name in labels:
            chosen = SCALES[scale]
            fields = {"rate": chosen.rate} if method.dropout else {}
            fields |= {**method.fields, **chosen.changes.get(name, {})}
            told = ", ".join(f"`{key}={value}`" for key, value in fields.items())
            told = f" ({told})" if told else ""
            lines.append(f"- {listed(list(labels[name]))}{told}: {method.about}")
    return "\n".join(lines)


def _origin(
    rows: Sequence[Row],
    provenances: Sequence[tuple[Mapping[str, Any], int]],
    *,
    scale: str,
) -> str:
    """Returns the command that makes the rows, and where they were made."""
    seeds = len({rival_findings.seed(row) for row in rows})
    names = [name for name in METHODS if name in map(rival_findings.method, rows)]
    some = f" --methods={','.join(names)}" if len(names) < len(METHODS) else ""
    lines = [
        "```bash",
        f"python -m benchmarks.rivals --output=FOLDER --scale={scale} --seeds={seeds}"
        f"{some}",
        "```",
        "",
    ]
    for about, count in provenances:
        lines.append(
            f"- {count} {'run' if count == 1 else 'runs'} at commit {about['commit']} "
            f"since {about['time'][:10]}, on {device_name(about)} "
            f"({about['machine']}), JAX {about['libraries']['jax']}"
        )
    lines += [
        "",
        "`runs.json` has the rows of each run. `--report_only` makes this page and "
        "`report.html` of them again.",
    ]
    return "\n".join(lines)


def _best_table(found: Sequence[Row]) -> str:
    """Returns the table of the best rows, with the fronts that they are on."""
    fronts = costs.fronts(costs.compared(found, "gflops"), "gflops")
    on: dict[tuple[str, int], list[str]] = collections.defaultdict(list)
    for key, front in fronts.items():
        for row in front:
            on[row["label"], row["num_samples"]].append(column(key).heading)
    return _table(rival_findings.best(found), on if fronts else {})


def _table(
    found: Sequence[Row], fronts: Mapping[tuple[str, int], Sequence[str]]
) -> str:
    """Returns a table of means and ranges.

    Args:
      found: Rows averaged over runs.
      fronts: Label and number of predictions -> scores on whose Pareto front the row
        is; empty for no such column.
    """
    heads = ["method", "N", "runs", "GFLOPs", *_HEADS]
    heads += ["on the front of"] if fronts else []
    lines = []
    for row in found:
        operations = row.get("gflops")
        cells = [
            row["label"],
            str(row["num_samples"]),
            str(row.get("num_runs", 1)),
            "–" if operations is None else f"{operations:.3g}",
            *(_score(row, key) for key in SCORES),
        ]
        if fronts:
            on = fronts.get((row["label"], row["num_samples"]), ())
            cells.append(", ".join(on) or "–")
        lines.append(cells)
    return markdown.table(heads, lines)


def _changes_table(rows: Sequence[Row]) -> str:
    """Returns the table of the differences that smoothing makes."""
    heads = ["method", "N", "seeds", "GFLOPs", *_HEADS]
    lines = []
    for change in rival_findings.changes(rows):
        cells = [change.label, str(change.size), str(change.seeds)]
        cells.append("–" if change.cost is None else f"× {change.cost:.2f}")
        for key in SCORES:
            mean, low, high = (column(key).scale * each for each in change.scores[key])
            digits = 3 if key == "nll" else 1
            ends = (
                "no interval"
                if math.isnan(low)
                else f"{low:+z.{digits}f} to {high:+z.{digits}f}"
            )
            cells.append(f"{mean:+z.{digits}f} ({ends})")
        lines.append(cells)
    return markdown.table(heads, lines) if lines else "No seed has a run of both yet."


def _score(row: Row, key: str) -> str:
    """Returns the mean of a score and its range over runs, in the unit of tables."""
    digits, ends = 3 if key == "nll" else 1, band(row, key)
    mean = f"{column(key).scale * row[key]:.{digits}f}"
    if ends is None:
        return mean
    low, high = (f"{column(key).scale * end:.{digits}f}" for end in ends)
    return f"{mean} ({low} to {high})"
