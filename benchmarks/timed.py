"""Times the programs of `benchmarks.compiled` on the device that is here.

    python -m benchmarks.timed --output=FILE.json [--rows=REGEX] [--minutes=M]

The arguments are arrays of random numbers. Rows that are in the file are not timed
again. Those that tell most come first: training steps and the op in bfloat16.
"""

import argparse
import importlib.util
import inspect
import pathlib
import re
import sys
import time
import types
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.row_files import RowFile
from benchmarks.scales import Row
from spatial_smoothing.runtime import messages

_STEPS = 10
"""Number of steps in a call of a program that is a loop over steps."""


def is_there() -> bool:
    """Returns whether this checkout has the programs."""
    return importlib.util.find_spec("benchmarks.compiled_programs") is not None


def chosen(pattern: str = "") -> list[Any]:
    """Returns the rows for GPUs whose keys match a regular expression, by their worth.

    Args:
      pattern: The expression; "" for all rows.
    """
    from benchmarks import compiled_rows

    found = [
        row
        for row in compiled_rows.every_row()
        if row.topology == compiled_rows.GPU and re.search(pattern, row.key)
    ]

    def worth(row) -> tuple:
        programs = ("step", "smooth", "smooth_gradient", "mc_dropout_10")
        place = programs.index(row.program) if row.program in programs else 9
        # A row and its peer follow each other.
        return row.dtype != "bfloat16", place, -row.size, row.case, row.rival

    return sorted(found, key=worth)


def measure(row: Any, device: jax.Device, *, rounds: int) -> Row:
    """Compiles and times a program.

    Args:
      row: A row of `compiled_rows`.
      device: The device to run it on.
      rounds: Number of timed turns.

    Returns:
      A row: `seconds` of one step, pass or call, median, least and largest;
      `images_per_second`, or of the op its `bytes_per_second`, if it moved no more than
      it has to; `compile_seconds`.

    Raises:
      RuntimeError: if a loop over steps made none, because a loss was not finite.
    """
    from benchmarks import compiled_programs

    program = compiled_programs.build(row, types.SimpleNamespace(devices=(device,)))
    arguments = list(_filled(program.arguments))
    if program.loops:  # (state, number of the step to stop at, ...)
        arguments[1] = jnp.int32(_STEPS)
    # Without donation, so that each call has the same arguments.
    function = jax.jit(inspect.unwrap(program.function))
    begin = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    compile_seconds = time.perf_counter() - begin
    if program.loops and int(compiled(*arguments).step) != _STEPS:
        raise RuntimeError(f"{row.key}: a step was not finite")
    rivals = {"": lambda: jax.block_until_ready(compiled(*arguments))}
    taken = timing.in_turns(rivals, rounds=rounds, turn=0.1)[""]
    spread = timing.spread([t / (_STEPS if program.loops else 1) for t in taken])
    found = {"name": row.key, "seconds": spread, "compile_seconds": compile_seconds}
    if program.ideal:
        return {**found, "bytes_per_second": program.ideal / spread["median"]}
    return {**found, "images_per_second": row.size / spread["median"]}


def _filled(tree: Any) -> Any:
    """Returns arrays of the shapes and shardings of a tree.

    Floats are small, positive and random, because variances are among them. Integers
    are zeros, which are valid labels and numbers of steps; those of images are random.
    """
    rng = np.random.default_rng(0)

    def fill(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            key = jax.random.key(0)
            array = jax.random.split(key, leaf.shape) if leaf.shape else key
        elif leaf.dtype == jnp.uint8:
            array = rng.integers(0, 256, leaf.shape, np.uint8)
        elif jnp.issubdtype(leaf.dtype, jnp.floating):
            array = rng.uniform(0.01, 0.1, leaf.shape).astype(leaf.dtype)
        else:  # labels and counters; a mask is of True, as is whether all is finite
            array = np.full(leaf.shape, leaf.dtype == bool, leaf.dtype)
        return jax.device_put(array, leaf.sharding)

    return jax.tree.map(fill, tree)


def line(row: Row) -> str:
    """Returns a row as a line of text."""
    milliseconds = 1000 * row["seconds"]["median"]
    if "bytes_per_second" in row:
        speed = f"{row['bytes_per_second'] / 1e9:8.0f} GB/s at least"
    else:
        speed = f"{row['images_per_second']:8.0f} images/s"
    return f"{row['name']:58} {milliseconds:9.3f} ms {speed}"


def main(argv: Sequence[str] | None = None) -> int:
    """Times the rows that are missing, until the time is over; returns 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--rows", default="", help="regular expression for keys")
    parser.add_argument("--minutes", type=float, help="no row begins after these")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args(argv)
    messages.quiet()
    if not is_there():
        print("benchmarks.compiled is not part of this checkout: nothing to time")
        return 0
    begin, file = time.monotonic(), RowFile(given.output)
    missing = [row for row in chosen(given.rows) if not file.has(row.key)]
    for number, row in enumerate(missing):
        minutes = (time.monotonic() - begin) / 60
        if given.minutes is not None and minutes >= given.minutes:
            print(f"the time is over; {len(missing) - number} rows are missing")
            return 0
        try:
            file.add(measure(row, jax.devices()[0], rounds=given.rounds))
            print(line(file.rows[-1]), flush=True)
        except (RuntimeError, TypeError, ValueError) as error:
            # The other rows are worth having, and the device may be gone tomorrow.
            print(f"{row.key}: {' '.join(str(error).split())[:200]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
