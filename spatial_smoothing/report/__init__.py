"""Reports: rows -> JSON, CSV, figures, one self-contained HTML page, a terminal table.

A row is one model at one number of samples (see `rows`): {"label": ...,
"num_samples": ..., "nll": ..., "accuracy": ..., ...}, rates as fractions, NLL in nats.
Options are keyword-only. Matplotlib and Rich are imported when they are needed.
"""

import csv
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spatial_smoothing.report import page
from spatial_smoothing.report.bins import confidence_figure, reliability_figure
from spatial_smoothing.report.comparisons import checked_differences
from spatial_smoothing.report.curves import (
    accuracy_nll_figure,
    detection_figure,
    ensemble_size_figure,
    risk_coverage_figure,
    time_figure,
)
from spatial_smoothing.report.pictures import FILES, pictures
from spatial_smoothing.report.rows import Row, checked, plain
from spatial_smoothing.report.runs import averaged
from spatial_smoothing.report.terminal import print_table, table

__all__ = [
    "accuracy_nll_figure",
    "confidence_figure",
    "detection_figure",
    "ensemble_size_figure",
    "print_table",
    "read",
    "reliability_figure",
    "risk_coverage_figure",
    "table",
    "time_figure",
    "write",
]


def write(
    output: str | os.PathLike[str],
    rows: Sequence[Row],
    *,
    provenance: Mapping[str, Any],
    title: str,
    differences: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Writes metrics.json, metrics.csv, the figures and report.html.

    Every file is complete or not there; those of an earlier report are replaced. A
    figure or table that the rows have no values for is left out. Rows that differ in
    "run" only are single in the files and averaged on the page and in the figures.
    Numbers that are not finite are null in JSON and empty in CSV.

    Args:
      output: the directory, made if need be.
      rows: report rows.
      provenance: where the numbers come from; a nested dict of JSON's types.
      title: heading of the page.
      differences: paired differences between models, see `comparisons`.

    Returns:
      The path of report.html.

    Raises:
      ValueError: the rows are not report rows, or the differences not differences.
      TypeError: a value is of a type that JSON does not have.
      OSError: `output` cannot be written.
    """
    output, rows, provenance = Path(output), checked(rows), plain(dict(provenance))
    differences = checked_differences(differences)
    record = {"provenance": provenance, "rows": rows}
    if differences:
        record["differences"] = differences
    shown = averaged(rows)
    drawn = pictures(shown)
    document = page.html(
        shown,
        differences=differences,
        provenance=provenance,
        title=title,
        pictures=list(drawn.values()),
        generated=datetime.now(UTC),
    )
    files = {
        "metrics.json": json.dumps(record, indent=1, allow_nan=False).encode(),
        "metrics.csv": _csv(rows).encode(),
        **{name: picture.png for name, picture in drawn.items()},
        "report.html": document.encode(),
    }
    try:
        _replace(output, files)
    except OSError as error:
        raise OSError(
            f"cannot write the report to '{output}': {error.strerror}; "
            "choose a directory that can be written"
        ) from error
    return output / "report.html"


def read(path: str | os.PathLike[str]) -> tuple[list[Row], dict[str, Any]]:
    """The rows and the provenance of a metrics.json.

    Args:
      path: the file.

    Returns:
      (rows, provenance).

    Raises:
      OSError: there is no such file.
      ValueError: the file is not one that `write` made.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        return record["rows"], record["provenance"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"'{path}' is not the metrics.json of a report; write it anew"
        ) from error


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


def _replace(output: Path, files: Mapping[str, bytes]) -> None:
    """Writes all files beside their places, then moves them there."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".") as staging:
        for name, content in files.items():
            (Path(staging) / name).write_bytes(content)
        for name in files:
            os.replace(Path(staging) / name, output / name)
    for name in FILES:
        if name not in files:
            (output / name).unlink(missing_ok=True)
