"""Times the library, PyTorch and the limits of the machine.

    python -m benchmarks.run [--suite=training,mc_dropout] [--output=FILE.json]

Rivals take turns in one process. The command prints a table and writes JSON with
provenance. The input pipeline, the analyses and the scores have other commands:
`python -m benchmarks.pipeline`, `benchmarks.analyses`, `benchmarks.scoring`.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import pathlib
from typing import Any

import jax

from benchmarks import suites, timing
from benchmarks.scales import SCALES
from spatial_smoothing.lookup import lookup
from spatial_smoothing.runs.provenance import device_name, provenance
from spatial_smoothing.runtime import cpu, messages


def table(rows: list[dict[str, Any]]) -> str:
    """Returns rows as text of at most 80 columns."""
    lines = [f"{'':36}{'ms':>9} {'peer ms':>9}  {'ratio (range)':<17}{'limit':>6}"]
    heading = ""
    for row in rows:
        if (row["suite"], row["name"]) != heading:
            heading = (row["suite"], row["name"])
            lines.append(f"{row['suite']}: {row['name']}")
        peer, ratio = row.get("peer_seconds"), row.get("ratio")
        share = row.get("share_of_limit")
        cells = [
            f"  {'beside ' + row['peer'] if peer else 'alone':34}",
            f"{1000 * row['seconds']['median']:9.4g}",
            f" {1000 * peer['median']:9.4g}" if peer else f" {'':9}",
            f"  {_range(ratio) if ratio else '':<17}",
            f"{share:6.0%}" if share else "",
        ]
        lines.append("".join(cells).rstrip())
        if "peak_bytes" in row:
            peaks = [row["peak_bytes"], row.get("peer_peak_bytes")]
            texts = [f"{p['median'] / 2**20:.0f}" for p in peaks if p]
            lines.append(f"  peak memory, MiB: {' beside '.join(texts)}")
    return "\n".join(lines)


def _range(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.3g} ({ratio['least']:.3g}-{ratio['largest']:.3g})"


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Runs the suites that the arguments name; returns the rows."""
    cpu.keep_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--suite",
        default=",".join(suites.SUITES),
        help="suites to run, separated by commas",
    )
    parser.add_argument(
        "--scale",
        choices=SCALES,
        help="size of the work; by default the device decides",
    )
    parser.add_argument("--output", type=pathlib.Path, help="path of the JSON file")
    for field in ("width", "rounds", "eval_batch"):
        parser.add_argument(f"--{field}", type=int)
    parser.add_argument(
        "--batch_size", type=int, help="number of examples in a training step"
    )
    parser.add_argument("--clock", choices=timing.CLOCKS)
    parser.add_argument("--cores", type=int, help="number of CPU cores to use")
    parser.add_argument("--torch_compile", action="store_true", default=None)
    given = parser.parse_args(argv)
    try:
        wanted = {
            name: lookup(suites.SUITES, name, "suite")
            for name in given.suite.split(",")
        }
    except ValueError as error:
        parser.error(str(error))
    messages.quiet()
    if given.cores:  # must come before JAX and PyTorch start threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])
    device = "cpu" if jax.default_backend() == "cpu" else "gpu"
    scale = SCALES[given.scale or device]
    changes = {
        name: value
        for name in ("width", "rounds", "eval_batch", "clock", "torch_compile")
        if (value := getattr(given, name)) is not None
    }
    if given.batch_size:
        changes["batch_sizes"] = (given.batch_size,)
    scale = dataclasses.replace(scale, **changes)
    limits = timing.limits(copied=scale.copied, side=scale.side, clock=scale.clock)
    scale = dataclasses.replace(scale, limits=limits)
    about = {**provenance(), "cores": len(os.sched_getaffinity(0))}
    if scale.peers:
        about["libraries"]["torch"] = importlib.metadata.version("torch")
    else:
        print("PyTorch is not installed: no peers of it")
    print(
        f"{device_name(about)}, {scale.clock} time:\n"
        f"copies {limits['copy'] / 1e9:.3g} GB/s, multiplies "
        f"{limits['float32'] / 1e12:.3g} TFLOP/s "
        f"(bfloat16: {limits['bfloat16'] / 1e12:.3g})"
    )
    rows = []
    for suite in wanted.values():
        found = suite(scale)
        rows += found
        print(table(found), flush=True)
        if given.output:  # after every suite, so that an interruption loses one at most
            result = {"provenance": about, "scale": dataclasses.asdict(scale)}
            text = json.dumps({**result, "rows": rows}, indent=2)
            given.output.parent.mkdir(parents=True, exist_ok=True)
            given.output.write_text(text + "\n")
    return rows


if __name__ == "__main__":
    main()
