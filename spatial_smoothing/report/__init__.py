"""Reports: rows -> JSON, CSV, figures, one self-contained HTML page, a terminal table.

A row is one model at one number of samples (see `rows`): {"label": ...,
"num_samples": ..., "nll": ..., "accuracy": ..., ...}, rates as fractions, NLL in nats;
or one of another suite (see `chapters`). Options are keyword-only. Matplotlib and Rich
are imported when they are needed.
"""

import contextlib
import csv
import io
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from etils import epath

from spatial_smoothing.report import chapters, page
from spatial_smoothing.report.comparisons import checked_differences, smoothing_pairs
from spatial_smoothing.report.figures.curves import (
    accuracy_nll_figure,
    detection_figure,
    ensemble_size_figure,
    risk_coverage_figure,
    time_figure,
)
from spatial_smoothing.report.figures.pictures import FILES, pictures
from spatial_smoothing.report.figures.reliability import (
    confidence_figure,
    reliability_figure,
)
from spatial_smoothing.report.published import published
from spatial_smoothing.report.rows import Row, checked, plain, plain_but_arrays, series
from spatial_smoothing.report.runs import averaged
from spatial_smoothing.report.terminal import print_lines, print_table, table

__all__ = [
    "accuracy_nll_figure",
    "check",
    "confidence_figure",
    "detection_figure",
    "ensemble_size_figure",
    "plain",
    "print_rows",
    "print_table",
    "published",
    "read",
    "reliability_figure",
    "risk_coverage_figure",
    "series",
    "smoothing_pairs",
    "table",
    "time_figure",
    "write",
]


def write(
    output: epath.PathLike,
    rows: Sequence[Row],
    *,
    provenance: Mapping[str, Any],
    title: str,
    differences: Sequence[Mapping[str, Any]] = (),
    beside: Sequence[Row] = (),
    files: Mapping[str, bytes] | None = None,
) -> epath.Path:
    """Writes metrics.json, metrics.csv, the figures and report.html.

    Every file is complete or not there; those of an earlier report are replaced. A
    figure or table that the rows have no values for is left out. Rows that differ in
    "run" only are single in the files and averaged on the page and in the figures.
    Numbers that are not finite are null in JSON and empty in CSV. Rows of a chapter
    have a CSV file and, for their arrays, an NPZ file of their own, called as it.

    Args:
      output: the directory, made if need be.
      rows: report rows.
      provenance: where the numbers come from; a nested dict of JSON's types.
      title: heading of the page.
      differences: paired differences between models, see `comparisons`.
      beside: rows to draw for comparison, such as those of `published`.
      files: name -> content of further files, replaced with the report or not at all.

    Returns:
      The path of report.html.

    Raises:
      ValueError: the rows are not report rows, or the differences not differences.
      TypeError: a value is of a type that JSON does not have.
      OSError: `output` cannot be written.
    """
    output, provenance = epath.Path(output), plain(dict(provenance))
    ensembles, others = chapters.split(rows)
    rows = checked(ensembles) if ensembles or not others else []
    differences = checked_differences(differences)
    shown = averaged(rows) if rows else []
    shown_others = {suite: plain_but_arrays(group) for suite, group in others.items()}
    drawn = pictures(shown, published=beside) if shown else {}
    drawn_others = {
        suite: dict(chapters.CHAPTERS[suite].pictures(group))
        for suite, group in shown_others.items()
    }
    stored = [*rows, *(_stored(r) for group in shown_others.values() for r in group)]
    record = {"provenance": provenance, "rows": stored}
    if differences:
        record["differences"] = differences
    document = page.html(
        shown,
        differences=differences,
        provenance=provenance,
        title=title,
        pictures=list(drawn.values()),
        chapters={
            suite: (group, list(drawn_others[suite].values()))
            for suite, group in shown_others.items()
        },
        generated=datetime.now(UTC),
    )
    files = dict(files or {})
    files["metrics.json"] = json.dumps(record, indent=1, allow_nan=False).encode()
    if rows:
        files["metrics.csv"] = _csv(rows).encode()
    for suite, group in shown_others.items():
        files[f"{suite}.csv"] = _csv([_stored(row) for row in group]).encode()
        if any(row.get("arrays") for row in group):
            files[f"{suite}.npz"] = _npz(group)
        drawn |= drawn_others[suite]
    files |= {name: picture.png for name, picture in drawn.items()}
    files["report.html"] = document.encode()
    with _explained(output):
        _replace(output, files)
    return output / "report.html"


def check(output: epath.PathLike) -> None:
    """Makes the directory of a report; an OSError says if it cannot be written."""
    output = epath.Path(output)
    with _explained(output):
        output.mkdir(parents=True, exist_ok=True)
        trial = output / ".check.tmp"
        trial.write_text("")
        trial.unlink(missing_ok=True)  # by several processes


def read(path: epath.PathLike) -> tuple[list[Row], dict[str, Any]]:
    """The rows, with their arrays, and the provenance of a metrics.json.

    Args:
      path: the file.

    Returns:
      (rows, provenance).

    Raises:
      OSError: there is no such file.
      ValueError: the file is not one that `write` made.
    """
    try:
        record = json.loads(epath.Path(path).read_text())
        rows, provenance = record["rows"], record["provenance"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"'{path}' is not the metrics.json of a report; write it anew"
        ) from error
    _, others = chapters.split(rows)
    for suite, group in others.items():
        _attach_arrays(group, epath.Path(path).with_name(f"{suite}.npz"))
    return rows, provenance


def print_rows(rows: Sequence[Row]) -> None:
    """Prints the tables of the ensembles and of each chapter."""
    ensembles, others = chapters.split(rows)
    if ensembles:
        print_table(ensembles)
    for suite, group in others.items():
        print_lines(chapters.CHAPTERS[suite].lines(group), title=suite)


@contextlib.contextmanager
def _explained(output: epath.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"cannot write the report to '{output}': {error.strerror or error}; "
            "choose a directory that can be written"
        ) from error


def _stored(row: Row) -> Row:
    """What the JSON has of a row of a chapter."""
    return {key: value for key, value in row.items() if key != "arrays"}


def _npz(rows: Sequence[Row]) -> bytes:
    """The arrays of all rows, as NUMBER OF THE ROW/NAME."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        **{
            f"{index}/{name}": np.asarray(value)
            for index, row in enumerate(rows)
            for name, value in row.get("arrays", {}).items()
        },
    )
    return buffer.getvalue()


def _attach_arrays(rows: Sequence[Row], path: epath.Path) -> None:
    if not path.exists():
        return
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        for key in arrays.files:
            index, _, name = key.partition("/")
            rows[int(index)].setdefault("arrays", {})[name] = arrays[key]


def _csv(rows: Sequence[Row]) -> str:
    """The keys with single values as columns, each followed by its interval's ends."""
    keys = dict.fromkeys(key for row in rows for key in row)
    nested = {k for k in keys for row in rows if isinstance(row.get(k), dict | list)}
    bounds = {k for row in rows for k in row.get("intervals") or {}}
    columns = []
    for key in keys:
        if key not in nested:
            columns += [key, f"{key}_low", f"{key}_high"] if key in bounds else [key]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        ends = {
            f"{key}_{end}": value
            for key, interval in (row.get("intervals") or {}).items()
            for end, value in zip(("low", "high"), interval, strict=True)
        }
        writer.writerow({**row, **ends})
    return buffer.getvalue()


def _replace(output: epath.Path, files: Mapping[str, bytes]) -> None:
    """Writes all files beside their places, then moves them there."""
    output.mkdir(parents=True, exist_ok=True)
    staged = {output / f".{name}.{os.getpid()}.tmp": name for name in files}
    try:
        for path, name in staged.items():
            path.write_bytes(files[name])
        for path, name in staged.items():
            path.replace(output / name)
    finally:
        for path in staged:
            path.unlink(missing_ok=True)
    listed = [chapters.CHAPTERS[suite].files for suite in chapters.CHAPTERS]
    own = [f"{suite}.{end}" for suite in chapters.CHAPTERS for end in ("csv", "npz")]
    for name in (*FILES, "metrics.csv", *own, *itertools.chain(*listed)):
        if name not in files:
            (output / name).unlink(missing_ok=True)
