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
from spatial_smoothing.report.figures import (
    confidence_figure,
    ensemble_size_figure,
    reliability_figure,
)
from spatial_smoothing.report.pictures import FILES, pictures
from spatial_smoothing.report.rows import Row, checked, plain
from spatial_smoothing.report.terminal import print_table, table

__all__ = [
    "confidence_figure",
    "ensemble_size_figure",
    "print_table",
    "read",
    "reliability_figure",
    "table",
    "write",
]


def write(
    output: str | os.PathLike[str],
    rows: Sequence[Row],
    *,
    provenance: Mapping[str, Any],
    title: str,
) -> Path:
    """Writes metrics.json, metrics.csv, the figures and report.html.

    Every file is complete or not there; those of an earlier report are replaced. A
    figure that the rows have no values for is left out. Numbers that are not finite
    are null in JSON and empty in CSV.

    Args:
      output: the directory, made if need be.
      rows: report rows.
      provenance: where the numbers come from; a nested dict of JSON's types.
      title: heading of the page.

    Returns:
      The path of report.html.

    Raises:
      ValueError: the rows are not report rows.
      TypeError: a value is of a type that JSON does not have.
      OSError: `output` cannot be written.
    """
    output, rows, provenance = Path(output), checked(rows), plain(dict(provenance))
    record = {"provenance": provenance, "rows": rows}
    drawn = pictures(rows)
    document = page.html(
        rows,
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
    """The keys with single values as columns, one line per row."""
    nested = {
        key
        for row in rows
        for key, value in row.items()
        if isinstance(value, dict | list)
    }
    keys = dict.fromkeys(key for row in rows for key in row)
    buffer = io.StringIO()
    writer = csv.DictWriter(
        buffer,
        [key for key in keys if key not in nested],
        extrasaction="ignore",
        lineterminator="\n",
    )
    writer.writeheader()
    writer.writerows(rows)
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
