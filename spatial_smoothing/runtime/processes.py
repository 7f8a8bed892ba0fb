"""Processes: how those of one run find each other, agree, and end together.

Contract of this file: all processes of a run call its functions in the same order, with
the same arguments unless said otherwise. Where a process is alone they cost nothing.
"""

import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from spatial_smoothing.runtime import rendezvous

Value = TypeVar("Value")
_PATIENCE = 2.0  # seconds for what takes a moment in another process


def start(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: float = 300,
) -> None:
    """Makes this process one of several; the first use of JAX in a program.

    Without arguments, JAX asks the cluster (TPU, SLURM, Open MPI, Kubernetes) for
    them; where there is none, the process stays alone. On CPUs, processes talk gloo.

    Args:
      coordinator: HOST:PORT of process 0, reachable from all; the port is free there.
      num_processes: How many there are.
      process_id: Number of this one, in [0, num_processes).
      timeout: Seconds to wait for all to come; and later, at most 100 of them, for a
        sign of life from each.

    Raises:
      ValueError: if some arguments are given and others not, or those of the processes
        contradict each other, or processes have different numbers of devices.
      TimeoutError: if not all come in time; names the address.
    """
    # It would take SIGTERM from `interrupts`, and from the system before that.
    jax.config.update("jax_enable_preemption_service", False)
    given = (coordinator, num_processes, process_id)
    silence = int(min(timeout, 100))  # seconds after which JAX ends them all
    if given == (None, None, None):
        try:
            jax.distributed.initialize(
                initialization_timeout=int(timeout), heartbeat_timeout_seconds=silence
            )
        except ValueError as error:
            if "coordinator_address should be defined" not in str(error):
                raise
            return  # no cluster
    elif None in given:
        raise ValueError(
            "--coordinator=HOST:PORT, --num_processes and --process_id go together, "
            f"got {coordinator}, {num_processes} and {process_id}"
        )
    else:
        rendezvous.meet(coordinator, num_processes, process_id, timeout)
        jax.distributed.initialize(
            coordinator, num_processes, process_id, heartbeat_timeout_seconds=silence
        )
    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{n} on process {i}" for i, n in sorted(counts.items()))
        raise ValueError(f"processes need equal numbers of devices, there are {each}")
    if jax.process_count() > 1:
        largest(0)
        _sum_over_devices()


def is_alone() -> bool:
    """Whether this is the only process."""
    return jax.process_count() == 1


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def largest(*values: float) -> list[float]:
    """Returns the largest of each value over all processes; of flags, any."""
    if jax.process_count() == 1:
        return list(values)
    found = multihost_utils.process_allgather(np.asarray(values, np.float32))
    return found.max(0).tolist()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Makes the mistake of one process one of all: each raises, or none does.

    The body must not wait for other processes.

    Raises:
      ValueError: naming the first process that raised a ValueError or OSError; there,
        its own.
    """
    mistake = None
    try:
        yield
    except (ValueError, OSError) as error:
        mistake = error
    if jax.process_count() > 1:
        texts = _texts("" if mistake is None else str(mistake) or repr(mistake))
        failed = [number for number, text in enumerate(texts) if text]
        if failed and mistake is None:
            raise ValueError(f"process {failed[0]}: {texts[failed[0]]}")
    if mistake is not None:
        raise mistake


def check_same(values: Mapping[str, Any]) -> None:
    """Checks that all processes agree.

    Args:
      values: Name -> what is JSON-able, or a function that computes it, which is only
        called where there are several.

    Raises:
      ValueError: naming what differs, and how; in all processes.
    """
    if jax.process_count() == 1:
        return
    own = {name: v() if callable(v) else v for name, v in values.items()}
    first, *others = (json.loads(text) for text in _texts(json.dumps(own)))
    for number, other in enumerate(others, 1):
        different = [
            f"{name} is {first.get(name)!r} on process 0 and {other.get(name)!r} on "
            f"process {number}"
            for name in {**first, **other}
            if first.get(name) != other.get(name)
        ]
        if different:
            raise ValueError(f"{'; '.join(different)}; all processes need the same")


def of_first(value: Value) -> Value:
    """Returns in all processes what is JSON-able and comes from process 0."""
    if jax.process_count() == 1:
        return value
    return json.loads(_texts(json.dumps(value))[0])


def leave(code: int) -> None:
    """Ends this process with an exit code, whatever the others do.

    JAX's own goodbye waits for all the others, and they may wait for this one. They
    notice that it is gone, or fail for the same reason.
    """
    if not jax.distributed.is_initialized():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():
        time.sleep(_PATIENCE)  # others cannot outlive it for long enough to speak
    os._exit(code)


def _sum_over_devices() -> None:
    """Opens all connections now, for which gloo allows 30 s.

    Later, one process may come to them so much before another, for having compiled
    faster.
    """
    mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("all"))
    ones = jax.make_array_from_process_local_data(
        split, np.ones(jax.local_device_count(), np.float32)
    )
    jax.block_until_ready(jax.jit(jnp.sum)(ones))


def _texts(text: str) -> list[str]:
    """Returns the texts of all processes, in their order."""
    content = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray([len(content)], np.int32))
    padded = np.zeros(max(sizes.max(), 1), np.uint8)
    padded[: len(content)] = content
    found = multihost_utils.process_allgather(padded)
    return [
        row[: int(size)].tobytes().decode()
        for row, size in zip(found, sizes[:, 0], strict=True)
    ]
