"""What `benchmarks.compiled` writes down of a compiled program.

Contract of this file: figures are of one device and of one execution: one step, one
pass, one call of an op. They are numbers of the compiler, and nothing has run.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.compiled_programs import Program
from spatial_smoothing.runtime import costs as costs_lib
from spatial_smoothing.runtime import hlo

_CONVOLUTION = "__cudnn$conv"  # what calls of cuDNN's convolutions begin with


class Counts(NamedTuple):
    """How many instructions of a kind a part of a program has.

    Attributes:
      fusions: Fusions, each of which is one kernel.
      copies: Copies of arrays into another layout or place.
      convolutions: Calls of cuDNN's convolutions, on a GPU.
    """

    fusions: int
    copies: int
    convolutions: int

    def __add__(self, other: "Counts") -> "Counts":
        """Adds up, in place of appending."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


def compile_and_read(program: Program, *, chip_memory: float) -> dict[str, Any]:
    """Compiles a program; returns its figures, as values that JSON can hold.

    Args:
      program: The program.
      chip_memory: Bytes of memory of a device.

    Returns:
      `bytes` read and written, `ideal_bytes` where they are known, `kernels` that run,
      `fusions` and `copies` in the text, where a loop counts once, `loop_fusions` and
      `loop_convolutions` of the loop with the most convolutions, `flops`, bytes of
      `temporaries` and of all `memory`, `chip_memory`, `collectives`, the number of
      `parameters` of a network, `compile_seconds`. A step of a program that loops over
      steps is a round of the loop; `bytes_before_loop` are moved once for many steps.
    """
    begin = time.perf_counter()
    compiled = program.traced.lower().compile()
    seconds = time.perf_counter() - begin
    found = costs_lib.costs(
        compiled,
        flops=costs_lib.matrix_flops(program.traced.jaxpr) / program.num_devices,
        compile_seconds=seconds,
    )
    text = hlo.Program(compiled.as_text())
    whole, loop = counts(text, loops_only=program.loops), largest_loop(text)
    moved, kernels, before_loop = found.bytes_accessed, found.kernels, 0
    if program.loops:  # a round of the loop over steps is a step
        before_loop = found.once
        moved -= before_loop
        kernels -= text.traffic(most_rounds=0).kernels
    return {
        "bytes": moved,
        "ideal_bytes": program.ideal,
        "bytes_before_loop": before_loop,
        "kernels": kernels,
        "fusions": whole.fusions,
        "copies": whole.copies,
        "loop_fusions": loop.fusions if loop else None,
        "loop_convolutions": loop.convolutions if loop else None,
        "flops": found.flops,
        "temporaries": found.temporaries,
        "memory": found.memory,
        "chip_memory": chip_memory,
        "collectives": [each._asdict() for each in found.collectives],
        "parameters": program.parameters,
        "compile_seconds": seconds,
    }


def counts(program: hlo.Program, *, loops_only: bool = False) -> Counts:
    """Returns the counts of the entry and of all loop bodies, each taken once.

    Args:
      program: The text of a compiled program.
      loops_only: Whether to leave out the entry.
    """
    parts = _each_part(program)
    if loops_only:
        del parts[program.entry]
    return sum(parts.values(), Counts(0, 0, 0))


def largest_loop(program: hlo.Program) -> Counts | None:
    """Returns the counts of the loop body with the most convolutions, if any has one.

    Args:
      program: The text of a compiled program.
    """
    bodies = _each_part(program)
    del bodies[program.entry]
    best = max(bodies.values(), key=lambda each: each.convolutions, default=None)
    return best if best is not None and best.convolutions else None


def _each_part(program: hlo.Program) -> dict[str, Counts]:
    """Counts of the entry and of each loop body, by the name of the computation."""
    found, waiting = {}, [program.entry]
    while waiting:
        name = waiting.pop()
        part = list(_instructions(program, name))
        found[name] = Counts(
            fusions=sum(each.opcode == "fusion" for each in part),
            copies=sum(each.opcode in ("copy", "copy-start") for each in part),
            convolutions=sum(_CONVOLUTION in each.attributes for each in part),
        )
        waiting += [
            body for each in part if each.opcode == "while" for body in each.called
        ]
    return found


def _instructions(program: hlo.Program, name: str) -> Iterator[hlo.Instruction]:
    """Yields the instructions of a computation, and those of what it calls."""
    for instruction in program.computations[name].values():
        yield instruction
        if instruction.opcode in ("call", "conditional"):
            for called in instruction.called:
                yield from _instructions(program, called)
