"""`--compile_for=v5e:16x16`: what a program costs accelerators that are not here.

Contract of this file: nothing is trained or evaluated, and no image is read. The
compiler of the accelerators compiles the very function that the command would run
there. Numbers are of one device and one step, by the compiler's arithmetic: its times
are bounds from below.
"""

import dataclasses
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
from absl import flags
from jax.sharding import Mesh

from spatial_smoothing.runs.provenance import provenance
from spatial_smoothing.runtime import (
    compilation,
    interrupts,
    paths,
    progress,
    topologies,
)
from spatial_smoothing.runtime.costs import Costs, costs, matrix_flops
from spatial_smoothing.runtime.topologies import Topology

Value = TypeVar("Value")
FLAG = "compile_for"
OUTPUT_HELP = "With --compile_for: a file FILE.json, to which the costs are written."
# What XLA says of a program that does not fit, and how it writes sizes.
_NO_MEMORY = re.compile(
    r"(?:Used|total memory required.*?\()\s*(?P<used>[\d.]+)(?P<used_unit>[KMGT]?).*?"
    r"(?:of|available HBM \()\s*(?P<had>[\d.]+)(?P<had_unit>[KMGT]?)",
    re.S,
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# JAX takes this share of the memory of a GPU, unless it is told to take another.
_SHARE_OF_GPU = 0.75


class Bounds(NamedTuple):
    """How long a step takes at least; None where the chip's figure is not known.

    Attributes:
      by_flops: Seconds at the chip's peak.
      by_bandwidth: Seconds at the bandwidth of its memory.
    """

    by_flops: float | None
    by_bandwidth: float


@dataclasses.dataclass(frozen=True)
class Work:
    """What is to be compiled.

    Attributes:
      what: The title of the table: the network, the data set, and what is done.
      traced: The function, traced for the devices of the mesh.
      mesh: The devices.
      config: The config of the run, whose `dtype` decides the chip's peak.
      images: Images of a step, over all devices.
      parameters: Number of parameters of all networks.
      in_loop: Whether the function is a loop over steps. What it moves outside of the
        loop is no part of a step then.
      remedies: What to change where the program does not fit, the best first.
    """

    what: str
    traced: jax.stages.Traced
    mesh: Mesh
    config: Mapping[str, Any]
    images: int
    parameters: int
    in_loop: bool
    remedies: Sequence[str]


def define(flag_values: flags.FlagValues, *, what: str) -> None:
    """Defines `--compile_for`.

    Args:
      flag_values: The flags of the command.
      what: What is compiled, for the help.
    """
    flags.DEFINE_string(
        FLAG,
        None,
        f"Accelerators for which {what} is compiled, to tell what it costs: memory, "
        "FLOPs, bytes, bounds of the time, collectives. A TPU slice such as v5e:16x16, "
        "a GPU such as h200 or h200:8, or the path of XLA's spec of another GPU. They "
        "need not be here; the extras [tpu] and [gpu] install the compilers.",
        flag_values=flag_values,
    )


def is_asked(flag_values: flags.FlagValues) -> bool:
    """Returns whether `--compile_for` is given; ValueError for another `--output`."""
    if flag_values[FLAG].value:
        output = flag_values["output"].value
        if output and not output.endswith(".json"):
            raise ValueError(
                f"with --{FLAG}, --output must be a file FILE.json, got {output}"
            )
        return True
    return False


def check_useless(flag_values: flags.FlagValues, names: Collection[str]) -> None:
    """Raises ValueError if a flag is given for which `--compile_for` has no use."""
    if given := sorted(name for name in names if flag_values[name].present):
        raise ValueError(f"--{given[0]} changes nothing of what --{FLAG} compiles")


def target(flag_values: flags.FlagValues) -> Topology:
    """Returns the accelerators in `--compile_for`.

    Accelerators that are here are left alone from then on.

    Raises:
      ValueError: for unknown ones, or where their compiler is not installed.
    """
    jax.config.update("jax_platforms", "cpu")
    # Programs for devices that are not here cannot be read back.
    compilation.forget_programs()
    return topologies.topology(flag_values[FLAG].value)


def count(params: Any) -> int:
    """Returns the number of parameters in a pytree of arrays or their shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def training_remedies(config: Mapping[str, Any], mesh: Mesh) -> list[str]:
    """Returns what makes a training step smaller, in the words of its config.

    Args:
      config: Config of the run.
      mesh: Devices.
    """
    found = ["a smaller batch_size", "a topology with more devices"]
    if config["dtype"] != "bfloat16":
        found.insert(0, "--config.dtype=bfloat16")
    if not config["shard_state"] and mesh.shape["data"] > 1:
        found.append("--config.shard_state=True")
    return found


def report(flag_values: flags.FlagValues, work: Work, where: Topology) -> None:
    """Compiles, prints the table, and writes the file in `--output`.

    Args:
      flag_values: The flags of the command.
      work: What is compiled.
      where: The accelerators that it is compiled for.

    Raises:
      ValueError: if it does not fit into their memory.
      OSError: if the file cannot be written.
    """
    chip = where.chip
    begin = time.monotonic()
    name = f"compiling for {where.name}, which takes minutes for a large network"
    try:
        with progress.status(name):
            compiled = _interruptible(lambda: work.traced.lower().compile())
    except jax.errors.JaxRuntimeError as error:
        if (found := memory_in(str(error))) is None:
            raise
        raise ValueError(does_not_fit(chip.name, *found, work.remedies)) from None
    found = costs(
        compiled,
        flops=matrix_flops(work.traced.jaxpr) / work.mesh.size,
        compile_seconds=time.monotonic() - begin,
    )
    print("\n".join(lines(work, where, found)))
    if output := flag_values["output"].value:
        path = paths.absolute(output)
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.write_text(path, json.dumps(record(work, where, found), indent=2) + "\n")
        print(f"written: {path}")
    if found.memory > chip.memory:
        raise ValueError(
            does_not_fit(chip.name, found.memory, chip.memory, work.remedies)
        )


def moved(work: Work, found: Costs) -> float:
    """Returns the bytes that a device reads and writes in a step."""
    return found.bytes_accessed - (found.once if work.in_loop else 0)


def bounds(work: Work, where: Topology, found: Costs) -> Bounds:
    """Returns how long a step takes at least."""
    is_half = work.config["dtype"] == "bfloat16"
    peak = where.chip.peak_bf16 if is_half else where.chip.peak_f32
    return Bounds(
        by_flops=None if peak is None else found.flops / peak,
        by_bandwidth=moved(work, found) / where.chip.bandwidth,
    )


def record(work: Work, where: Topology, found: Costs) -> dict[str, Any]:
    """Returns what `--output` writes: values that JSON can hold, of one device."""
    limits = bounds(work, where, found)
    per_second = lambda seconds: work.images / seconds if seconds else None
    return {
        "what": work.what,
        "topology": where.name,
        "chip": where.chip._asdict(),
        "num_devices": work.mesh.size,
        "mesh": dict(work.mesh.shape),
        "parameters": work.parameters,
        "images": work.images,
        "memory": {
            "arguments": found.arguments,
            "outputs": found.outputs,
            "aliased": found.aliased,
            "temporaries": found.temporaries,
            "code": found.code,
            "total": found.memory,
            "fits": found.memory <= where.chip.memory,
        },
        "flops": found.flops,
        "bytes": moved(work, found),
        "kernels": found.kernels,
        "seconds_by_flops": limits.by_flops,
        "seconds_by_bandwidth": limits.by_bandwidth,
        "images_per_second_by_flops": per_second(limits.by_flops),
        "images_per_second_by_bandwidth": per_second(limits.by_bandwidth),
        "collectives": [one._asdict() for one in found.collectives],
        "compile_seconds": found.compile_seconds,
        "config": dict(work.config),
        "provenance": provenance(),
    }


def lines(work: Work, where: Topology, found: Costs) -> list[str]:
    """Returns the table, at most 80 columns wide."""
    chip, limits = where.chip, bounds(work, where, found)
    mesh = " x ".join(f"{size} {axis}" for axis, size in work.mesh.shape.items())
    share = found.memory / chip.memory
    results = found.outputs - found.aliased
    rows = [
        ("devices", f"{work.mesh.size} x {chip.name}, mesh {mesh}"),
        ("parameters", f"{work.parameters:,}"),
        ("computes in", work.config["dtype"]),
        ("", ""),
        (
            "memory of a device",
            f"{size(found.memory)} of {size(chip.memory)}, {share:.0%}",
        ),
        ("  arguments", size(found.arguments)),
        ("  results", f"{size(results)} beside the arguments"),
        ("  temporaries", size(found.temporaries)),
        ("  code", size(found.code)),
        ("", ""),
        (
            "a step, one device",
            f"{number(found.flops)}FLOP, "
            f"{size(moved(work, found))} moved, {found.kernels:,.0f} kernels",
        ),
        ("  intensity", _intensity(work, where, found)),
        ("  time by FLOPs", _bound(limits.by_flops, work.images)),
        ("  time by bandwidth", _bound(limits.by_bandwidth, work.images)),
        ("  collectives", "none" if not found.collectives else ""),
        *(
            (f"    {one.kind}", f"{one.count:,.0f}, {size(one.bytes)} together")
            for one in found.collectives
        ),
        ("", ""),
        ("compiled in", f"{found.compile_seconds:,.0f} s"),
    ]
    table = [f"  {name:<20} {value}".rstrip() for name, value in rows]
    if work.mesh.devices.flat[0].platform == "gpu" and _SHARE_OF_GPU < share <= 1:
        table += [
            "",
            f"JAX takes {_SHARE_OF_GPU:.0%} of the memory of a GPU; set "
            "XLA_PYTHON_CLIENT_MEM_FRACTION=0.95",
        ]
    return [work.what, "", *table]


def _intensity(work: Work, where: Topology, found: Costs) -> str:
    """Returns FLOPs for each byte, and how many keep the chip busy."""
    own = found.flops / moved(work, found)
    is_half = work.config["dtype"] == "bfloat16"
    peak = where.chip.peak_bf16 if is_half else where.chip.peak_f32
    if peak is None:
        return f"{own:.3g} FLOP a byte"
    return f"{own:.3g} FLOP a byte; {peak / where.chip.bandwidth:.0f} keep it busy"


def _bound(seconds: float | None, images: int) -> str:
    """Returns a time in words, and the images per second that it leaves."""
    if seconds is None:
        return "not known: the spec of the GPU has no peak"
    unit, scale = "us", 1e6
    if seconds >= 1e-3:
        unit, scale = ("s", 1) if seconds >= 1 else ("ms", 1e3)
    speed = f", {number(images / seconds)}images/s at most" if seconds else ""
    return f"{seconds * scale:.3g} {unit} at least{speed}"


def memory_in(text: str) -> tuple[float, float] | None:
    """Returns the bytes that a program needs and that there are, as XLA says it.

    Args:
      text: What XLA raises. None is returned where it is about something else.
    """
    if "RESOURCE_EXHAUSTED" not in text or not (match := _NO_MEMORY.search(text)):
        return None
    return (
        float(match["used"]) * _UNITS[match["used_unit"]],
        float(match["had"]) * _UNITS[match["had_unit"]],
    )


def does_not_fit(
    chip: str, needed: float, available: float, remedies: Sequence[str]
) -> str:
    """Returns the line for a program that needs more memory than there is.

    Args:
      chip: Name of the chip.
      needed: Bytes that the program needs.
      available: Bytes that the chip has.
      remedies: What to change.
    """
    return (
        f"it does not fit: it needs {size(needed)}, {size(needed - available)} more "
        f"than the {size(available)} of a {chip}; use {' or '.join(remedies)}"
    )


def size(bytes_: float) -> str:
    """Returns a number of bytes in words, such as "1.23 GB"."""
    return f"{number(bytes_)}B"


def number(value: float) -> str:
    """Returns a number with three digits and a prefix, such as "1.23 G"."""
    for prefix, unit in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= unit:
            digits = max(0, 2 - int(math.log10(value / unit)))
            return f"{value / unit:.{digits}f} {prefix}"
    return f"{value:.0f} "


def _interruptible(function: Callable[[], Value]) -> Value:
    """Calls a function that compiles; Ctrl-C ends the process meanwhile.

    Args:
      function: Function without arguments.
    """
    try:
        return interrupts.in_thread(function)
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.stderr.flush()
        os._exit(130)  # the compiler would not survive the usual end of a process
