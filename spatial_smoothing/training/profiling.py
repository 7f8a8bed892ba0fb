"""Traces of training steps, for TensorBoard (with xprof) and https://ui.perfetto.dev."""

import itertools
import pathlib
import tempfile

import jax
from etils import epath

from spatial_smoothing.runtime import processes
from spatial_smoothing.training.steps import Advance, steps_made


def traced(
    advance: Advance,
    steps_per_epoch: int,
    *,
    directory: epath.PathLike,
    num_steps: int,
) -> Advance:
    """Returns `advance`, whose second call is traced; the first may have to warm up.

    Args:
      advance: Of `steps.compile_steps`.
      steps_per_epoch: Batches of an epoch, at whose end a trace ends early.
      directory: Where the trace is written, local or remote.
      num_steps: To trace; the second call makes as many, whatever it is asked for. Of
        several processes, each does so, and the first writes its trace.
    """
    calls = itertools.count()

    def advance_traced(state, stop, *rest):
        if next(calls) != 1:
            return advance(state, stop, *rest)
        start = steps_made(state)
        end = (start // steps_per_epoch + 1) * steps_per_epoch
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder, create_perfetto_trace=True):
                state = advance(state, min(start + num_steps, end), *rest)
                last = steps_made(state) - 1  # waits
            if processes.is_first():
                _copy(pathlib.Path(folder), epath.Path(directory))
                print(f"traced steps {start} to {last}, in {directory}")
        return state

    return advance_traced


def _copy(folder: pathlib.Path, target: epath.Path) -> None:
    """Copies all files below a local folder; the profiler knows no object stores."""
    for file in folder.rglob("*"):
        if file.is_file():
            place = target / file.relative_to(folder).as_posix()
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
