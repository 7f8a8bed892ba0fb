"""Rows of a long evaluation, written as they come, so that a killed one continues.

Contract of this file: `<output>/<suite>.partial.jsonl` has a first line that says what
is evaluated, and one line for each row. An evaluation continues only from rows whose
first line is the same as its own would be; rows of another one are dropped. `finish`
deletes the file when the report has all rows.
"""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.runtime import processes


class Partial:
    """The rows of one suite so far.

    Args:
      output: Directory of the evaluation.
      suite: Name of the suite.
      about: All that determines the rows, as values that JSON can hold: runs, steps,
        numbers, options.

    Attributes:
      rows: The rows so far, in the order in which they were added.
    """

    def __init__(self, output: epath.PathLike, suite: str, about: Mapping[str, Any]):
        self._path = _path(output, suite)
        # As it is read back: JSON makes tuples lists.
        self._about = json.loads(json.dumps(dict(about)))
        self.rows = self._read()
        processes.barrier()  # all have read it
        if not processes.is_first():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # The file is written again, without a last line that was cut short, or rows of
        # another evaluation; and renamed, so that it is whole at every time.
        lines = [json.dumps(line) for line in (self._about, *self.rows)]
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        temporary.write_text("\n".join(lines) + "\n")
        temporary.replace(self._path)

    def append(self, row: Row) -> None:
        """Adds a row, which is on disk at the return."""
        if processes.is_first():
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        self.rows.append(row)

    def _read(self) -> list[Row]:
        if not self._path.exists():
            return []
        found = []
        for line in self._path.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break  # a line that was cut short is the last one
        return found[1:] if found[:1] == [self._about] else []


def finish(output: epath.PathLike, suite: str) -> None:
    """Deletes the partial rows of a suite, once the report has them."""
    _path(output, suite).unlink(missing_ok=True)


def _path(output: epath.PathLike, suite: str) -> epath.Path:
    return epath.Path(output) / f"{suite}.partial.jsonl"
