"""Traces of training steps, for TensorBoard (with xprof) and https://ui.perfetto.dev."""

import itertools
import pathlib
import tempfile

import jax
from etils import epath

from spatial_smoothing.runtime import processes
from spatial_smoothing.training.state import steps_made
from spatial_smoothing.training.steps import Advance


def traced(
    advance: Advance,
    steps_per_epoch: int,
    *,
    directory: epath.PathLike,
    num_steps: int,
) -> Advance:
    """Returns an `advance` whose second call is traced.

    The first call is not, because it may have to warm up. Of several processes, each
    traces the same steps, and the first writes its trace.

    Args:
      advance: Makes steps; see `steps.compile_steps`.
      steps_per_epoch: Steps of an epoch.
      directory: Where the trace is written, local or remote.
      num_steps: Number of steps to trace, at least 1. The second call makes so many
        steps, whatever it is asked for, or fewer if the epoch ends before.
    """
    calls = itertools.count()

    def advance_traced(state, stop, *rest):
        if next(calls) != 1:  # the second call has the number 1
            return advance(state, stop, *rest)
        start = steps_made(state)
        end = (start // steps_per_epoch + 1) * steps_per_epoch
        # Later calls count from the state, so that no step is made twice or left out.
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder, create_perfetto_trace=True):
                state = advance(state, min(start + num_steps, end), *rest)
                # This waits for the devices, so that the trace has all of the steps.
                last = steps_made(state) - 1
            if processes.is_first():
                _copy(pathlib.Path(folder), epath.Path(directory))
                print(f"traced steps {start} to {last}, in {directory}")
        return state

    return advance_traced


def _copy(folder: pathlib.Path, target: epath.Path) -> None:
    """Copies all files below a local folder to another one, local or remote.

    The profiler of JAX writes to local folders only.
    """
    for file in folder.rglob("*"):
        if file.is_file():
            place = target / file.relative_to(folder).as_posix()
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
