"""The files of a report: CSV and NPZ of rows, and writing all of them or none."""

import contextlib
import csv
import io
import os
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from etils import epath

from spatial_smoothing.report.rows import Row


def without_arrays(row: Row) -> Row:
    """What the JSON and the CSV file have of a row."""
    return {key: value for key, value in row.items() if key != "arrays"}


def csv_text(rows: Sequence[Row]) -> str:
    """The single values of rows, each followed by the ends of its interval.

    Args:
      rows: Plain rows. Keys whose values are dicts or lists have no column.

    Returns:
      A CSV file with one line for each row; a value that is None is empty.
    """
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
            for end, value in zip(("low", "high"), interval or (), strict=False)
        }
        writer.writerow({**row, **ends})
    return buffer.getvalue()


def npz_bytes(rows: Sequence[Row]) -> bytes:
    """The arrays of rows.

    Args:
      rows: Rows, of which some have "arrays": name -> array.

    Returns:
      An NPZ file in which each array is called NUMBER OF THE ROW/NAME.
    """
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


def attach_arrays(rows: Sequence[Row], path: epath.Path) -> None:
    """Gives rows the arrays that `npz_bytes` made a file of, if there is such a file.

    Args:
      rows: The rows, in the order in which `npz_bytes` had them.
      path: The file.

    Raises:
      ValueError: The file is damaged, or has arrays of more rows.
    """
    if not path.exists():
        return
    damages = EOFError, IndexError, ValueError, zipfile.BadZipFile, zlib.error
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for key in arrays.files:
                index, _, name = key.partition("/")
                rows[int(index)].setdefault("arrays", {})[name] = arrays[key]
    except damages as error:
        raise ValueError(
            f"'{path}' is damaged, or not of the metrics.json beside it; evaluate anew"
        ) from error


def check_writable(output: epath.Path) -> None:
    """Makes the directory of a report; an OSError says if it cannot be written."""
    with _explained(output):
        output.mkdir(parents=True, exist_ok=True)
        trial = output / ".check.tmp"
        trial.write_text("")
        # Several processes may try at once, so that another one may have deleted it.
        trial.unlink(missing_ok=True)


def replace(
    output: epath.Path, files: Mapping[str, bytes], *, known: Collection[str]
) -> None:
    """Writes all files of a report; a failure leaves the earlier report as it was.

    Args:
      output: The directory, made if need be.
      files: Name -> content.
      known: Names of files that a report may have; those not among `files` are deleted,
        because they are of an earlier report.

    Raises:
      OSError: A file cannot be written.
    """
    # The process number keeps two processes from writing the same temporary file.
    staged = {output / f".{name}.{os.getpid()}.tmp": name for name in files}
    with _explained(output):
        output.mkdir(parents=True, exist_ok=True)
        try:
            for path, name in staged.items():
                path.write_bytes(files[name])
            for path, name in staged.items():
                path.replace(output / name)
        finally:
            for path in staged:
                path.unlink(missing_ok=True)
        for name in known:
            if name not in files:
                (output / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(output: epath.Path) -> Iterator[None]:
    """Says which report could not be written, and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"cannot write the report to '{output}': {error.strerror or error}; "
            "choose a directory that can be written"
        ) from error
