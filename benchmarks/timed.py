"""Times the programs of `benchmarks.compiled` on the device that is here.

    python -m benchmarks.timed --output=FILE.json [--rows=REGEX] [--minutes=M]

The arguments are arrays of random numbers. Rows that are in the file are not timed
again. Those that tell most come first: training steps and the op in bfloat16.
"""

import argparse
import importlib.util
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
      RuntimeError: if a loop over steps ended early, because a loss was not finite.
    """
    from benchmarks import compiled_programs

    program = compiled_programs.build(row, types.SimpleNamespace(devices=(device,)))
    begin = time.perf_counter()
    compiled = program.traced.lower().compile()
    compile_seconds = time.perf_counter() - begin
    calls = Calls(compiled, program.traced.args_info, loops=program.loops)
    taken = timing.in_turns({"": calls}, rounds=rounds, turn=0.1)[""]
    if program.loops and int(calls.arguments[0].step) != calls.steps:
        raise RuntimeError("a loss was not finite")
    spread = timing.spread([t / (_STEPS if program.loops else 1) for t in taken])
    found = {"name": row.key, "seconds": spread, "compile_seconds": compile_seconds}
    if program.ideal:
        return {**found, "bytes_per_second": program.ideal / spread["median"]}
    return {**found, "images_per_second": row.size / spread["median"]}


class Calls:
    """Calls of a compiled program, each with what the one before has returned.

    A program that is given the memory of its arguments may use it for its results: each
    call needs new arguments, which are the results of the call before.

    Attributes:
      arguments: The arguments of the next call.
      steps: For a loop over steps, the number of the step at which the last call has
        stopped.

    Args:
      compiled: The program.
      args_info: Its arguments, as `jax.stages.Traced.args_info` describes them.
      loops: Whether it is a loop `(state, stop, ...) -> state` over steps.
    """

    def __init__(self, compiled: jax.stages.Compiled, args_info: Any, *, loops: bool):
        infos, _ = args_info
        shardings, _ = compiled.input_shardings
        self.arguments = list(filled(infos, shardings))
        self.steps = 0
        self._compiled, self._loops = compiled, loops
        self._given_away = [
            position
            for position, info in enumerate(infos)
            if any(leaf.donated for leaf in jax.tree.leaves(info))
        ]

    def __call__(self) -> None:
        """Calls the program, and waits for it."""
        if self._loops:
            self.steps += _STEPS
            self.arguments[1] = np.int32(self.steps)
        results = jax.block_until_ready(self._compiled(*self.arguments))
        for number, position in enumerate(self._given_away):
            before = jax.tree.structure(self.arguments[position])
            is_all = jax.tree.structure(results) == before
            self.arguments[position] = results if is_all else results[number]


def filled(infos: Any, shardings: Any) -> Any:
    """Returns arrays of given shapes and shardings.

    Floats are small, positive and random, because variances are among them. Integers
    are zeros, which are valid labels and numbers of steps; those of images are random.

    Args:
      infos: Pytree of what has a shape and a dtype.
      shardings: Pytree of their shardings.
    """
    rng = np.random.default_rng(0)

    def fill(info: Any, sharding: Any) -> jax.Array:
        if jax.dtypes.issubdtype(info.dtype, jax.dtypes.prng_key):
            key = jax.random.key(0)
            array = jax.random.split(key, info.shape) if info.shape else key
        elif info.dtype == jnp.uint8:
            array = rng.integers(0, 256, info.shape, np.uint8)
        elif jnp.issubdtype(info.dtype, jnp.floating):
            array = rng.uniform(0.01, 0.1, info.shape).astype(info.dtype)
        else:  # labels and counters; a mask is of True, as is whether all is finite
            array = np.full(info.shape, info.dtype == bool, info.dtype)
        return jax.device_put(array, sharding)

    return jax.tree.map(fill, infos, shardings)


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
