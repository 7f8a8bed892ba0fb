"""Rows that are kept one by one, so that an interrupted benchmark continues."""

import json
import pathlib
from typing import Any

from benchmarks.scales import Row
from spatial_smoothing.runs.provenance import provenance


class RowFile:
    """A JSON file of rows, which have a `name`, and of where they come from.

    The rows may be of several days, devices or versions: `provenances` is a list, and
    each row has the number of its entry as `provenance`.

    Args:
      path: Path of the file. It is written, whole, with each row that is added.

    Raises:
      ValueError: if there is a file that holds something else.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self.rows: list[Row] = []
        self._provenances: list[dict[str, Any]] = []
        if path.exists():
            try:
                content = json.loads(path.read_text())
                self.rows, self._provenances = content["rows"], content["provenances"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{path} holds no rows; move it away or choose another --output"
                ) from None

    @property
    def provenances(self) -> list[dict[str, Any]]:
        """Where the rows come from; a row has the number of its entry."""
        return list(self._provenances)

    def has(self, name: str) -> bool:
        """Returns whether there is a row of this name."""
        return any(row["name"] == name for row in self.rows)

    def add(self, row: Row) -> None:
        """Adds a row, made by this process, and writes the file."""
        here, without_time = provenance(), []
        for each in [*self._provenances, here]:
            without_time.append({k: v for k, v in each.items() if k != "time"})
        if without_time[-1] not in without_time[:-1]:
            self._provenances.append(here)
        number = without_time.index(without_time[-1])
        self.rows.append({**row, "provenance": number})
        content = {"provenances": self._provenances, "rows": self.rows}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # A process that is killed while it writes leaves the file of before.
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(content, indent=1) + "\n")
        new.replace(self._path)
