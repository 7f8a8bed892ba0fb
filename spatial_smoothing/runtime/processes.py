"""Processes: how the processes of one run find each other, agree, and end together.

Contract of this file: all processes of a run call its functions in the same order, and
with the same arguments unless the function says otherwise. Most of them wait for all
processes; in a run of a single process they return at once.
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
_LAST_WORDS_SECONDS = 2.0  # for other processes to print why they end


def start(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: float = 300,
) -> None:
    """Joins this process with the others of the run, before any other use of JAX.

    Without arguments, JAX asks the cluster (TPU, SLURM, Open MPI, Kubernetes) for
    them; without a cluster, the process stays alone. On CPUs, processes exchange arrays
    by gloo.

    Args:
      coordinator: HOST:PORT of process 0, an address that all processes can reach. The
        port must be free on that machine.
      num_processes: Number of processes.
      process_id: Number of this process, in [0, num_processes).
      timeout: Seconds to wait for all processes to start. It also limits how long a
        process may later be silent before JAX ends the others, to at most 100 s.

    Raises:
      ValueError: if some arguments are given and others not, if the arguments of the
        processes contradict each other, or if processes have different numbers of
        devices.
      TimeoutError: if not all processes start in time; names those that are missing.
      OSError: if process 0 cannot listen at the address.
    """
    # JAX's service would take SIGTERM, with which `interrupts` ends a run in order.
    jax.config.update("jax_enable_preemption_service", False)
    given = (coordinator, num_processes, process_id)
    silence = int(min(timeout, 100))  # seconds after which JAX ends all processes
    if given == (None, None, None):
        # JAX knows several kinds of clusters, and raises where it finds none of them.
        try:
            jax.distributed.initialize(
                initialization_timeout=int(timeout), heartbeat_timeout_seconds=silence
            )
        except ValueError as error:
            if "coordinator_address should be defined" not in str(error):
                raise
            return  # there is no cluster: this process is alone
    elif None in given:
        raise ValueError(
            "--coordinator=HOST:PORT, --num_processes and --process_id go together, "
            f"got {coordinator}, {num_processes} and {process_id}"
        )
    else:
        # First our own rendezvous, because JAX aborts without naming the mistake.
        rendezvous.meet(coordinator, num_processes, process_id, timeout=timeout)
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=int(timeout),
            heartbeat_timeout_seconds=silence,
            # Without it, JAX listens on all interfaces of the machine.
            coordinator_bind_address=coordinator,
        )
    # A mesh of unequal processes would split batches in a way that no pipeline expects.
    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{n} on process {i}" for i, n in sorted(counts.items()))
        raise ValueError(f"processes need equal numbers of devices, there are {each}")
    if jax.process_count() > 1:
        barrier()
        _open_connections()


def is_alone() -> bool:
    """Whether this is the only process."""
    return jax.process_count() == 1


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def barrier() -> None:
    """Waits until all processes are here."""
    max_over_processes(0.0)


def max_over_processes(*values: float) -> list[float]:
    """Returns the largest of each value over all processes.

    Args:
      *values: Numbers of this process, compared as float32; as many in each process.
    """
    if jax.process_count() == 1:
        return list(values)
    found = multihost_utils.process_allgather(np.asarray(values, np.float32))
    return found.max(0).tolist()


def any_process(flag: bool) -> bool:
    """Returns whether `flag` is true in at least one process.

    Args:
      flag: The answer of this process.
    """
    (found,) = max_over_processes(float(flag))
    return found > 0


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Makes all processes raise if the body fails in one of them.

    Otherwise the process that failed would end, and the others would wait for it in
    their next collective operation. The body must not wait for other processes.

    Raises:
      ValueError: in each process whose body did not fail; it names the first one that
        failed, and why.
      OSError: as the body raised it, like a ValueError, in a process that failed.
    """
    mistake = None
    try:
        yield
    except (ValueError, OSError) as error:
        mistake = error
    if jax.process_count() > 1:
        # An empty text says that a process did not fail.
        texts = _gather_texts("" if mistake is None else str(mistake) or repr(mistake))
        failed = [number for number, text in enumerate(texts) if text]
        if failed and mistake is None:
            raise ValueError(f"process {failed[0]}: {texts[failed[0]]}")
    if mistake is not None:
        raise mistake


def check_same(values: Mapping[str, Any]) -> None:
    """Checks that some values are the same in all processes.

    Args:
      values: Name -> a value that JSON can hold, or a function that computes one. A
        function is not called in a run of a single process.

    Raises:
      ValueError: in all processes; names what differs, and the values.
    """
    if jax.process_count() == 1:
        return
    own = {name: v() if callable(v) else v for name, v in values.items()}
    first, *others = (json.loads(text) for text in _gather_texts(json.dumps(own)))
    # Every process compares all of them, so that all raise the same error.
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
    """Returns the value that process 0 gives, in all processes.

    Args:
      value: Value of this process, which JSON can hold.
    """
    if jax.process_count() == 1:
        return value
    return json.loads(_gather_texts(json.dumps(value))[0])


def leave(code: int) -> None:
    """Ends this process with an exit code, whatever the others do.

    JAX's own shutdown waits for all processes, some of which may wait for this one.
    They notice that it is gone, or fail for the same reason.

    Args:
      code: Exit code, in [0, 255].
    """
    if not jax.distributed.is_initialized():
        sys.exit(code)
    # `os._exit` skips everything that Python and JAX do at the end, also this.
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():
        # When process 0 is gone, JAX aborts the others; they print their line before.
        time.sleep(_LAST_WORDS_SECONDS)
    os._exit(code)


def _open_connections() -> None:
    """Sums a number over all devices, for which all processes connect to each other.

    Gloo waits 30 s for a connection. At the first step of a run one process may be
    later than that, because it compiles more slowly; here, all have just left a
    barrier.
    """
    mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("all"))
    ones = jax.make_array_from_process_local_data(
        split, np.ones(jax.local_device_count(), np.float32)
    )
    jax.block_until_ready(jax.jit(jnp.sum)(ones))


def _gather_texts(text: str) -> list[str]:
    """Returns the texts of all processes, in the order of their numbers.

    Args:
      text: The text of this process.
    """
    # Collectives need arrays of one shape: first the sizes, then the padded texts.
    content = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray([len(content)], np.int32))
    padded = np.zeros(max(sizes.max(), 1), np.uint8)
    padded[: len(content)] = content
    found = multihost_utils.process_allgather(padded)
    return [
        row[: int(size)].tobytes().decode()
        for row, size in zip(found, sizes[:, 0], strict=True)
    ]
