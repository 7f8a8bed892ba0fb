"""Compiled programs as text: which instructions run, and what they read and write.

Contract of this file: the text is optimised and scheduled HLO, as `as_text()` of a
compiled function returns it, for one device. A top-level instruction reads its operands
from memory and writes its result there; what is inside a fusion moves nothing. A loop
counts as often as it runs, where the text tells; once otherwise.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\]")
_NAME = re.compile(r"%?([\w.\-]+)\s*$")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|called_computations|branch_computations|"
    r"true_computation|false_computation)=(?:\{([^}]*)\}|%?([\w.\-]+))"
)
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
# Instructions that compute and move nothing.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "replica-id", "opt-barrier", "domain", "add-dependency"),
}
# Instructions that read as much of their first operand as they return.
_SLICES = {"gather", "dynamic-slice", "slice"}
_LARGEST_NUMBER = 8  # bytes
# Copies between the memories of a TPU that run beside kernels.
_FETCHES = {"copy-start", "slice-start", "dynamic-slice-start"}
# Instructions whose computations are further instructions, and not kernels.
_CONTROL = {"while", "conditional", "call", "async-start"}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a program.

    Attributes:
      name: Its name, unique in the program.
      opcode: What it does, such as "fusion".
      shape: Type and sizes of its result, as text; of a tuple, those of all elements.
      operands: Names of the instructions whose results it takes.
      attributes: The rest of the line.
      is_root: Whether it is the result of its computation.
    """

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool = False

    @functools.cached_property
    def bytes(self) -> int:
        """Bytes of its result."""
        return sum(sizes_of(self.shape))

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it calls, without the condition of a loop."""
        found = []
        for several, one in _CALLED.findall(self.attributes):
            found += re.findall(r"[\w.\-]+", several) if several else [one]
        return tuple(found)


Computation = Mapping[str, Instruction]


class Traffic(NamedTuple):
    """What a part of a program moves.

    Attributes:
      bytes: Bytes that its kernels read and write.
      kernels: Number of kernels that run.
    """

    bytes: float
    kernels: float


class Exchange(NamedTuple):
    """A collective operation of a program.

    Attributes:
      kind: What it does, such as "all-reduce".
      bytes: Bytes that one device gives or gets, whichever is more.
      times: How often it runs.
    """

    kind: str
    bytes: int
    times: float


class Program:
    """A compiled program.

    Args:
      text: Its HLO.

    Attributes:
      computations: Name -> computation, which is a mapping of names to instructions.
      entry: Name of the computation that runs.
    """

    def __init__(self, text: str):
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            # A computation begins at the left margin, its instructions are indented.
            if (begin := _beginning(line)) is not None:
                name, is_entry = begin
                current = self.computations[name] = {}
                self.entry = name if is_entry else self.entry
            elif (instruction := _parse(line)) is not None:
                current[instruction.name] = instruction

    def traffic(
        self, *, name: str | None = None, most_rounds: float = math.inf
    ) -> Traffic:
        """Returns what a computation moves, those that it calls included.

        Args:
          name: Name of the computation; None for the whole program.
          most_rounds: The most rounds of a loop that count: 0 leaves out what is in
            loops.
        """
        computation = self.computations[name or self.entry]
        moved, kernels = 0.0, 0.0
        for instruction in computation.values():
            if instruction.opcode in _CONTROL:
                times = 1
                if instruction.opcode == "while":
                    times = min(self._rounds(instruction), most_rounds)
                for called in instruction.called:
                    part = self.traffic(name=called, most_rounds=most_rounds)
                    moved += times * part.bytes
                    kernels += times * part.kernels
            elif _moves(instruction.opcode):
                moved += self._moved(instruction, computation)
                kernels += _is_kernel(instruction)
        return Traffic(moved, kernels)

    def exchanges(
        self, *, name: str | None = None, times: float = 1
    ) -> Iterator[Exchange]:
        """Yields the collective operations of a computation and those that it calls.

        Args:
          name: Name of the computation; None for the whole program.
          times: How often the computation runs.
        """
        computation = self.computations[name or self.entry]
        for instruction in computation.values():
            if instruction.opcode.endswith("-done"):
                continue  # it waits for an operation that was found where it starts
            kind = instruction.opcode.removesuffix("-start")
            if kind in _COLLECTIVES:
                size = _exchanged(instruction, computation)
                yield Exchange(kind, size, times)
                continue  # what it applies is an addition
            repeated = times * self._rounds(instruction)
            for called in instruction.called:
                yield from self.exchanges(name=called, times=repeated)

    def _rounds(self, instruction: Instruction) -> int:
        """Returns how often a loop runs; 1 where the text does not tell, or no loop."""
        if instruction.opcode != "while":
            return 1
        if known := _TRIP_COUNT.search(instruction.attributes):
            return int(known[1])
        # `lax.scan` makes loops that count from 0 and compare with a constant.
        condition = re.search(r"condition=%?([\w.\-]+)", instruction.attributes)
        body = self.computations[condition[1]]
        (root,) = (found for found in body.values() if found.is_root)
        if root.opcode != "compare" or "direction=LT" not in root.attributes:
            return 1
        index, limit = (body.get(operand) for operand in root.operands)
        if index.opcode != "get-tuple-element" or limit.opcode != "constant":
            return 1
        return int(limit.operands[0])

    def _moved(self, instruction: Instruction, computation: Computation) -> int:
        """Returns the bytes that a kernel reads and writes."""
        operands = [computation[name] for name in instruction.operands]
        if instruction.opcode in _SLICES:
            return 2 * instruction.bytes
        if instruction.opcode == "dynamic-update-slice":
            return 2 * operands[1].bytes
        if instruction.opcode == "copy-start":
            return 2 * operands[0].bytes
        if instruction.opcode == "fusion":
            inside = self.computations[instruction.called[0]]
            return _moved_by_fusion(inside)
        return instruction.bytes + sum(operand.bytes for operand in operands)


def _moves(opcode: str) -> bool:
    """Returns whether an instruction moves something; those that only wait do not."""
    return opcode not in _FREE and not opcode.endswith("-done")


def _is_kernel(instruction: Instruction) -> bool:
    """Returns whether an instruction that moves something is a kernel.

    TPUs compute single numbers aside, and fetch arrays ahead while kernels run.
    """
    if instruction.opcode in _FETCHES:
        return False
    is_number = instruction.bytes <= _LARGEST_NUMBER
    return instruction.opcode in ("fusion", "custom-call") or not is_number


def sizes_of(shape: str) -> list[int]:
    """Returns the bytes of each array in the text of a shape.

    Args:
      shape: Such as "(bf16[8,4]{1,0}, s32[])", for which the result is [64, 4].
    """
    found = []
    for kind, dimensions in _ARRAY.findall(shape):
        sizes = [int(size.removeprefix("<=")) for size in dimensions.split(",") if size]
        found.append(math.ceil(_bits(kind) * math.prod(sizes) / 8))
    return found


def _bits(kind: str) -> int:
    """Returns the bits of a number of a type, such as "bf16"."""
    if kind == "pred":
        return 8
    # "token" and "opaque" hold no numbers; "f8e4m3fn" has 8 bits.
    digits = re.search(r"\d+", kind)
    return int(digits[0]) if digits else 0


def _moved_by_fusion(inside: Computation) -> int:
    """Returns the bytes that a fusion reads and writes, given what is inside.

    Of an operand that is only sliced, the slices are read; of a result that is an
    operand with a part replaced in place, the part is written.
    """
    users: dict[str, list[Instruction]] = {name: [] for name in inside}
    for instruction in inside.values():
        for operand in instruction.operands:
            if operand in users:
                users[operand].append(instruction)
    moved = 0
    for name, instruction in inside.items():
        if instruction.is_root:
            moved += _written(instruction, inside)
        if instruction.opcode != "parameter":
            continue
        parts = [_read(name, user) for user in users[name]]
        moved += min(sum(parts), instruction.bytes) if parts else 0
    return moved


def _read(name: str, user: Instruction) -> float:
    """Returns the bytes that an instruction in a fusion reads of an operand."""
    is_first = user.operands[0] == name
    if is_first and user.opcode in _SLICES:
        return user.bytes
    if is_first and user.opcode == "dynamic-update-slice":
        return 0
    return math.inf  # all of it


def _written(root: Instruction, inside: Computation) -> int:
    """Returns the bytes that the root of a fusion writes."""
    if root.opcode == "tuple":
        return sum(_written(inside[name], inside) for name in root.operands)
    if root.opcode == "bitcast" and root.operands[0] in inside:
        return _written(inside[root.operands[0]], inside)
    if root.opcode == "dynamic-update-slice":
        return inside[root.operands[1]].bytes
    return root.bytes


def _exchanged(instruction: Instruction, computation: Computation) -> int:
    """Returns the bytes that a device gives or gets in a collective operation."""
    given = sum(computation[name].bytes for name in instruction.operands)
    got = instruction.bytes
    if instruction.opcode.endswith("-start") and got > given:
        got -= given  # the result begins with the operands
    return max(given, got)


def _beginning(line: str) -> tuple[str, bool] | None:
    """Returns the name of the computation that begins, and whether it is the entry."""
    match = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$", line)
    return (match[2], match[1] is not None) if match else None


def _parse(line: str) -> Instruction | None:
    """Returns the instruction of a line; None if it has none."""
    match = re.match(r"\s+(ROOT )?%?([\w.\-]+) = (.*)", line)
    if match is None:
        return None
    shape, rest = _shape_and_rest(match[3])
    opcode, _, rest = rest.partition("(")
    end = _closing(rest)
    arguments, attributes = rest[:end], rest[end + 1 :]
    if opcode in ("constant", "parameter"):
        operands = (arguments,)
    else:
        operands = tuple(
            found[1] for part in _split(arguments) if (found := _NAME.search(part))
        )
    return Instruction(
        match[2], opcode, shape, operands, attributes, is_root=bool(match[1])
    )


def _shape_and_rest(text: str) -> tuple[str, str]:
    """Divides "SHAPE opcode(...)"; a shape that is a tuple has spaces in it."""
    end = _closing(text[1:]) + 2 if text.startswith("(") else text.index(" ")
    return text[:end], text[end:].strip()


def _closing(text: str) -> int:
    """Returns the position of the bracket that closes one before the text."""
    depth = 0
    for position, letter in enumerate(text):
        if letter in "({[":
            depth += 1
        elif letter in ")}]":
            depth -= 1
            if depth < 0:
                return position
    raise ValueError(f"no closing bracket in {text[:80]!r}")


def _split(text: str) -> Iterator[str]:
    """Yields the parts between commas that are in no brackets."""
    depth, begin = 0, 0
    for position, letter in enumerate(text):
        if letter in "({[":
            depth += 1
        elif letter in ")}]":
            depth -= 1
        elif letter == "," and depth == 0:
            yield text[begin:position]
            begin = position + 1
    yield text[begin:]
