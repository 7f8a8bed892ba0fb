"""Compiles our programs for TPU v5e and H200, and counts what they would move.

    python -m benchmarks.compiled [--platform=tpu,h200] [--rows=REGEX]

Neither device is needed: the compilers run on any x86-64 machine. Figures are theirs,
and no times of a device. Beside most programs stands the same work, written plainly
with Flax. Each row is written to the JSON file as soon as it is compiled, and rows that
are there are not compiled again: the same command continues where it was interrupted.
A whole network takes the compiler of TPUs minutes, and that of GPUs about 15 s. Rows
that have a target come first.
"""

import contextlib
import datetime
import fcntl
import functools
import importlib.metadata
import json
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
from absl import flags

from benchmarks import compiled_tables, compiled_targets
from benchmarks.compiled_rows import GPU, PLATFORMS, TPU, Row
from spatial_smoothing.cli import start
from spatial_smoothing.lookup import lookup
from spatial_smoothing.runs.provenance import provenance
from spatial_smoothing.runtime import compilation, interrupts, progress, topologies

FLAGS = start.new_flags()
_PLATFORM = flags.DEFINE_list(
    "platform",
    list(PLATFORMS),
    f"What to compile for, separated by commas: {', '.join(PLATFORMS)}.",
    flag_values=FLAGS,
)
_ROWS = flags.DEFINE_string(
    "rows",
    "",
    "Regular expression that is searched for in the keys of rows, such as 'step "
    "resnet_dnn_18 128'. Without it, all rows.",
    flag_values=FLAGS,
)
_FORCE = flags.DEFINE_bool(
    "force", False, "Compile rows again that are in the file.", flag_values=FLAGS
)
_LIST = flags.DEFINE_bool(
    "list", False, "Print the keys of the rows, and compile nothing.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string(
    "output",
    "results/benchmarks/compiled.json",
    "Path of the JSON file.",
    flag_values=FLAGS,
)
_PAGE = flags.DEFINE_string(
    "page",
    None,
    "Markdown file in which to replace the tables by those of the JSON file, such as "
    "docs/performance.md.",
    flag_values=FLAGS,
)

# Platform -> the libraries whose versions decide its figures.
_JAX = ("jax", "jaxlib", "flax", "optax")
_LIBRARIES = {TPU: (*_JAX, "libtpu"), GPU: (*_JAX, "jax-cuda13-plugin")}
Record = dict[str, Any]


def chosen(platforms: Iterable[str], pattern: str) -> list[Row]:
    """Returns the rows of some platforms whose keys match, in their order.

    Args:
      platforms: Names of platforms, keys of `PLATFORMS`.
      pattern: Regular expression that is searched for in the keys.

    Raises:
      ValueError: for a platform that is unknown, an expression that is none, or one
        that no key matches.
    """
    for platform in platforms:
        lookup(PLATFORMS, platform, "platform")
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"--rows={pattern} is no regular expression: {error}"
        ) from None
    found = [
        row
        for row in compiled_targets.in_order()
        if row.platform in platforms and expression.search(row.key)
    ]
    if not found:
        raise ValueError(f"--rows={pattern} matches no row; --list prints them")
    return found


def versions(platform: str) -> dict[str, str]:
    """Returns the versions of the libraries that decide the figures of a platform.

    Args:
      platform: A key of `PLATFORMS`.
    """
    return {name: importlib.metadata.version(name) for name in _LIBRARIES[platform]}


def read(path: pathlib.Path) -> list[Record]:
    """Returns the records of a JSON file; none where there is no file.

    Args:
      path: Path of the file.

    Raises:
      ValueError: if it is no file of this command.
    """
    if not path.exists():
        return []
    try:
        return json.loads(path.read_text())["rows"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is no result of this command; choose another --output"
        ) from None


def missing(
    rows: Iterable[Row],
    records: Iterable[Mapping[str, Any]],
    versions_of: Callable[[str], Mapping[str, str]],
) -> list[Row]:
    """Returns the rows that no record has for the same versions of the libraries.

    Args:
      rows: Rows.
      records: Records of the JSON file.
      versions_of: Function of a platform to the versions of its libraries.
    """
    libraries = {record["key"]: record["libraries"] for record in records}
    return [row for row in rows if libraries.get(row.key) != versions_of(row.platform)]


def put(path: pathlib.Path, record: Record) -> None:
    """Writes a record to the JSON file, in place of an older one of the same row.

    Several processes may write to one file.

    Args:
      path: Path of the file, which is made where it is not there.
      record: The record.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        records = {each["key"]: each for each in read(path)}
        records[record["key"]] = record
        # In the order of rows. What is no row of today is kept, at the end.
        order = [row.key for row in compiled_targets.in_order()]
        order += [key for key in records if key not in order]
        result = {
            "provenance": provenance(),
            "rows": [records[key] for key in order if key in records],
        }
        new = path.with_name(f"{path.name}.new")
        new.write_text(json.dumps(result, indent=1) + "\n")
        new.replace(path)


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Waits until no other process of this command changes a file of the folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def measured(row: Row) -> Record:
    """Compiles a row; returns its record.

    Args:
      row: The row.
    """
    # Imported late, because listing rows needs neither networks nor compilers.
    from benchmarks import compiled_figures, compiled_programs

    topology = topologies.topology(row.topology)
    program = compiled_programs.build(row, topology)
    figures = compiled_figures.compile_and_read(
        program, chip_memory=topology.chip.memory
    )
    return {
        "key": row.key,
        "commit": provenance()["commit"],
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "libraries": versions(row.platform),
        "figures": figures,
    }


def _available(platforms: Sequence[str]) -> list[str]:
    """Returns the platforms whose compilers are installed; names the others."""
    there = []
    for platform in platforms:
        name, extra = PLATFORMS[platform]
        if topologies.is_available(name):
            there.append(platform)
        else:
            print(
                f"no rows for {platform}: its compiler is not installed; "
                f"pip install 'spatial-smoothing[{extra}]'"
            )
    return there


def main() -> int:
    """Compiles the rows that are missing, and prints the tables; returns the code."""
    path = pathlib.Path(_OUTPUT.value)
    rows = chosen(_PLATFORM.value, _ROWS.value)
    if _LIST.value:
        print("\n".join(row.key for row in rows))
        return 0
    if _PAGE.value:  # a mistake is told now, and not after hours
        compiled_tables.filled(pathlib.Path(_PAGE.value).read_text(), "")
    # Nothing here runs, and a device that this machine has stays free for others.
    jax.config.update("jax_platforms", "cpu")
    compilation.forget_programs()  # one that is kept would take no time to compile
    available = _available(_PLATFORM.value)
    rows = [row for row in rows if row.platform in available]
    left = rows if _FORCE.value else missing(rows, read(path), versions)
    failed = _compile_all(left, path)
    figures = {record["key"]: record["figures"] for record in read(path)}
    found = compiled_tables.all_verdicts(figures)
    print(compiled_tables.rows(rows, figures))
    print(compiled_tables.verdicts(found))
    if _PAGE.value:
        page = pathlib.Path(_PAGE.value)
        order = compiled_targets.in_order()
        tables = compiled_tables.markdown(order, figures, found)
        page.write_text(compiled_tables.filled(page.read_text(), tables))
    return 1 if failed else 0


def _compile_all(rows: Sequence[Row], path: pathlib.Path) -> int:
    """Compiles rows and writes them to the file; returns how many did not compile."""
    failed = 0
    with progress.task("Rows", total=len(rows)) as under_way:
        under_way.update(0)
        for done, row in enumerate(rows, 1):
            under_way.name = row.key
            try:
                put(path, interrupts.in_thread(functools.partial(measured, row)))
            except jax.errors.JaxRuntimeError as error:
                failed += 1
                print(f"{row.key}: {str(error).splitlines()[0]}")
            except KeyboardInterrupt:
                left = len(rows) - done + 1
                sys.stderr.write(
                    f"interrupted: {left} rows are left, the same command continues\n"
                )
                sys.stderr.flush()
                # The thread that compiles would have to end first otherwise.
                os._exit(130)
            under_way.update(done)
    return failed


COMMAND = start.Command(main, FLAGS, about=__doc__)

if __name__ == "__main__":
    start.run(COMMAND)
