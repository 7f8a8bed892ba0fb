"""Times rivals in turns, and measures the limits of the machine.

Contract of this file: rivals are functions without arguments that return when their
work is done. They take turns in one process, so that what slows the machine down slows
all of them down; a ratio is the median of those of the rounds.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Rival = Callable[[], Any]
CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "cpu": time.process_time,
}
"""Name -> clock. "wall" is the time of day. "cpu" is the processor time of the process
on all cores: other programs do not change it, but threads that wait in a loop count."""


def in_turns(
    rivals: Mapping[str, Rival],
    *,
    rounds: int,
    clock: str = "wall",
    turn: float = 0.0,
) -> dict[str, list[float]]:
    """Times rivals in turns.

    Args:
      rivals: Name -> function to be timed, which returns nothing.
      rounds: Number of turns of each rival.
      clock: Clock, a key of `CLOCKS`.
      turn: Seconds that a turn lasts at least, for functions so short that the threads
        of the rival before, which still wait for work in a loop, would disturb them.

    Returns:
      Name -> seconds of a call, the mean of each turn, after two calls to warm up.
    """
    now = CLOCKS[clock]
    calls = {}
    for name, rival in rivals.items():
        rival()
        begin = time.perf_counter()
        rival()
        calls[name] = 1 + int(turn / (time.perf_counter() - begin))
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, rival in rivals.items():
            begin = now()
            for _ in range(calls[name]):
                rival()
            seconds[name].append((now() - begin) / calls[name])
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the median, the least and the largest value."""
    return {
        "median": statistics.median(values),
        "least": min(values),
        "largest": max(values),
    }


def compare(
    suite: str,
    name: str,
    rivals: Mapping[str, Rival],
    *,
    rounds: int,
    clock: str = "wall",
    turn: float = 0.0,
    work: float | None = None,
    limit: float | None = None,
) -> list[dict[str, Any]]:
    """Times rivals, and compares the first one, which is ours, with each other.

    Args:
      suite: Name of the suite that the row belongs to.
      name: Name of the row.
      rivals: Name -> function to be timed, which returns nothing.
      rounds: Number of timed turns of each rival.
      clock: Clock, a key of `CLOCKS`.
      turn: Seconds that a turn lasts at least; see `in_turns`.
      work: Number of bytes or floating-point operations of a call.
      limit: How many of them the machine is able to do in a second.

    Returns:
      A row for each of the others, or one alone: `seconds` and `peer_seconds` (median,
      least, largest), `ratio`, how many times faster than the peer ours is, and
      `share_of_limit`, in [0, 1].
    """
    taken = in_turns(rivals, rounds=rounds, clock=clock, turn=turn)
    ours, *others = rivals
    row = {"suite": suite, "name": name, "seconds": spread(taken[ours])}
    row["rounds"] = rounds
    if work and limit:
        row["share_of_limit"] = work / limit / row["seconds"]["median"]
    if not others:
        return [row]
    return [
        {
            **row,
            "peer": other,
            "peer_seconds": spread(taken[other]),
            "ratio": spread(
                [a / b for a, b in zip(taken[other], taken[ours], strict=True)]
            ),
        }
        for other in others
    ]


def limits(
    *, copied: int, side: int, clock: str = "wall", rounds: int = 7
) -> dict[str, float]:
    """Measures what the machine is able to do: bytes and operations a second.

    Args:
      copied: Size in bytes of the array that is copied, larger than any cache.
      side: Side of the square matrices that are multiplied.
      clock: Clock, a key of `CLOCKS`.
      rounds: Number of measurements, of which the best one counts.

    Returns:
      `copy`, bytes read and written a second, and operations a second of a matrix
      product in `float32` and `bfloat16`.
    """

    def best(function: Callable, *arrays: jax.Array) -> float:
        function = jax.jit(function)
        call = lambda: jax.block_until_ready(function(*arrays))
        return min(in_turns({"": call}, rounds=rounds, clock=clock)[""])

    found = {"copy": 2 * copied / best(jnp.negative, jnp.ones(copied // 4))}
    for dtype in ("float32", "bfloat16"):
        matrix = jnp.ones((side, side), dtype)
        found[dtype] = 2 * side**3 / best(jnp.matmul, matrix, matrix)
    return found
