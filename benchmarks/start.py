"""Measures the start: time until the end of the first step, and peak memory."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks.scales import Row, Scale
from benchmarks.timing import spread

_ROOT = pathlib.Path(__file__).parents[1]
_REPEATS = 3


def start(scale: Scale) -> list[Row]:
    """Times processes that make one training step and end, on the clock."""
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for name, environment in (
            ("first step, no cache", {}),
            ("first step, compilation cache", {"JAX_COMPILATION_CACHE_DIR": cache}),
        ):
            if environment:
                _first_step(scale, "suites", environment)  # fills the cache
            turns = [
                [_first_step(scale, who, environment) for who in _who(scale)]
                for _ in range(_REPEATS)
            ]
            ours, *peer = zip(*turns, strict=True)
            row = {"suite": "start", "name": name, "rounds": _REPEATS}
            row["seconds"], row["peak_bytes"] = map(spread, zip(*ours, strict=True))
            for others in peer:
                seconds, peaks = zip(*others, strict=True)
                row |= {"peer": "PyTorch", "peer_seconds": spread(seconds)}
                row["peer_peak_bytes"] = spread(peaks)
                pairs = zip(seconds, ours, strict=True)
                row["ratio"] = spread([theirs / own for theirs, (own, _) in pairs])
            rows.append(row)
    return rows


def _who(scale: Scale) -> list[str]:
    """Returns the modules that have a function `first_step`."""
    return ["suites", "peers"] if scale.peers else ["suites"]


def _first_step(scale: Scale, who: str, extra: dict[str, str]) -> tuple[float, int]:
    """Runs a process that makes one step; returns its seconds and peak bytes."""
    name, size = scale.models[-1], scale.batch_sizes[0]
    stages = scale.model(name).stages
    arguments = f"{name!r}, width={scale.width}, stages={stages}, size={size}"
    code = (
        f"from benchmarks import memory, {who}\n"
        f"{who}.first_step({arguments}); print(memory.peak_bytes())"
    )
    environment = {k: v for k, v in os.environ.items() if "CACHE_DIR" not in k}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=_ROOT,
        env={**environment, **extra},
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise ValueError(f"failed: {code}")
    return seconds, int(done.stdout)
