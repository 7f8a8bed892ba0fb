import functools
import gzip
import json

import numpy as np

from spatial_smoothing.training import profiling
from spatial_smoothing.training.steps import Sums, TrainState


def advance(calls, state, stop, *rest):
    """Makes steps of nothing, and notes up to which."""
    calls.append(stop)
    return state.replace(step=np.int32(stop))


def test_second_call_is_traced_and_makes_as_many_steps_as_asked_for(tmp_path, capsys):
    state, calls = TrainState(np.int32(0), {}, (), Sums(0, 0, 0), np.bool_(True)), []
    traced = profiling.traced(
        functools.partial(advance, calls),
        10,
        directory=tmp_path / "profile",
        num_steps=4,
    )
    for stop in (2, 3, 7, 8):
        state = traced(state, stop)
    assert calls == [2, 6, 7, 8]
    assert capsys.readouterr().out.startswith("traced steps 2 to 5, in ")
    names = [path.name for path in tmp_path.rglob("*")]
    assert any(name.endswith(".xplane.pb") for name in names)  # for TensorBoard
    (path,) = tmp_path.rglob("perfetto_trace.json.gz")
    assert json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]


def test_a_trace_ends_with_the_epoch(tmp_path):
    state, calls = TrainState(np.int32(6), {}, (), Sums(0, 0, 0), np.bool_(True)), []
    traced = profiling.traced(
        functools.partial(advance, calls), 8, directory=tmp_path, num_steps=4
    )
    for stop in (7, 8):
        state = traced(state, stop)
    assert calls == [7, 8]
