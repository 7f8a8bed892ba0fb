"""The rendezvous of all processes at one address, before JAX brings them together.

Contract of this file: when an argument of one process is wrong, or one process does not
come, every process that came raises one error that names the mistake, in bounded time.

JAX alone (`jax.distributed.initialize` of JAX 0.10.2 on CPUs, with
`initialization_timeout=12`) does not do this; measured, for each case:

- Process 1 of 2 never starts, or process 0 never does: the other one aborts after 18 s
  (SIGABRT, exit code 134) with a C++ stack trace of 14 lines that names nobody.
- Another program listens at the port and is silent, or answers by HTTP: process 0
  raises "UNKNOWN: Failed to start RPC server" at once, the others abort after 18 s.
- Two processes have the same number, of 3: one aborts at once, the others after 18 s.
  Of 2: two of the three start, the third aborts after 18 s.
- Two are process 0 of 2: both abort after 18 s.
- `num_processes` is 2 on process 0 and 3 on process 1: both start without a word, and
  disagree. It is 3 and 2: both abort after 18 s.
"""

import contextlib
import errno
import json
import os
import socket
import time
from typing import NamedTuple

_REPLY_SECONDS = 2.0  # for what another process does at once
_LAST_PORT = 2**16 - 1
_LONGEST_LINE = 1000  # characters that a caller may send; others are let go


class _Address(NamedTuple):
    """Where process 0 listens.

    Attributes:
      host: Name or number of its machine.
      port: A free port there.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class _Mistake(NamedTuple):
    """Why the processes cannot start; process 0 sends it to all that came.

    Attributes:
      text: One line for the user.
      late: Whether the reason is that a process did not come in time.
    """

    text: str
    late: bool


def meet(
    coordinator: str, num_processes: int, process_id: int, *, timeout: float
) -> None:
    """Waits at the coordinator's address until all processes are there.

    Each process connects to process 0 and says its number and how many processes it
    expects. Process 0 answers all of them at once, with a mistake or with none.

    Args:
      coordinator: HOST:PORT of process 0.
      num_processes: Number of processes.
      process_id: Number of this process, in [0, num_processes).
      timeout: Seconds to wait.

    Raises:
      ValueError: if an argument is wrong, or contradicts that of another process.
      TimeoutError: if a process does not come in time; names it.
      OSError: if process 0 cannot listen at the address.
    """
    host, _, port = coordinator.rpartition(":")
    # The system would take a larger number for another one, and 0 for any free port.
    if not host or not port.isdecimal() or not 1 <= int(port) <= _LAST_PORT:
        raise ValueError(
            f"--coordinator must be HOST:PORT, with a port of 1 to {_LAST_PORT}, got "
            f"{coordinator}"
        )
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"--process_id must be in [0, {num_processes}), got {process_id}"
        )
    address = _Address(host, int(port))
    if process_id == 0:
        mistake = _wait_for_others(address, num_processes, timeout)
    else:
        mistake = _call_first(address, num_processes, process_id, timeout)
    if mistake:
        raise (TimeoutError if mistake.late else ValueError)(mistake.text)


def _wait_for_others(
    address: _Address, num_processes: int, timeout: float
) -> _Mistake | None:
    """Lets the other processes call; returns, and tells them, what is wrong."""
    deadline = time.monotonic() + timeout
    connections: list[socket.socket] = []
    present: set[int] = set()
    mistake = None
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(address))
        while mistake is None and len(present) < num_processes - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection = stack.enter_context(server.accept()[0])
            except TimeoutError:
                mistake = _absent(address, num_processes, present, timeout)
                continue
            except ConnectionError:
                continue  # this caller has hung up already
            hello = _read_hello(connection)
            if hello is None:
                connection.close()  # another program, such as a port scanner
                continue
            process_id, count = hello
            mistake = _contradiction(address, num_processes, present, process_id, count)
            # A caller whose arguments are wrong waits for an answer, too.
            connections.append(connection)
            present.add(process_id)
        # All that came hear the same, also the one whose arguments are wrong.
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.sendall((json.dumps(mistake) + "\n").encode())
    return mistake


def _listen(address: _Address) -> socket.socket:
    """Returns a socket that listens at the coordinator's address, and there only."""
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        for family, _, _, _, place in found[:-1]:
            # The name of a host may stand for an IPv6 address that it does not have.
            # Any other error, such as a port in use, is of the whole address.
            try:
                return socket.create_server(place[:2], family=family)
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
        family, _, _, _, place = found[-1]
        return socket.create_server(place[:2], family=family)
    except OSError as error:
        # Python adds to the words of the system; errors of names have no such number.
        reason = (
            error if isinstance(error, socket.gaierror) else os.strerror(error.errno)
        )
        raise OSError(
            f"process 0 cannot listen at {address} ({reason}); "
            "--coordinator must be an address of its machine, with a free port"
        ) from None


def _absent(
    address: _Address, num_processes: int, present: set[int], timeout: float
) -> _Mistake:
    absent = sorted({*range(1, num_processes)} - present)
    return _Mistake(
        f"process {', '.join(map(str, absent))} of {num_processes} did not come to "
        f"{address} within {timeout:g} s",
        late=True,
    )


def _contradiction(
    address: _Address,
    num_processes: int,
    present: set[int],
    process_id: int,
    count: int,
) -> _Mistake | None:
    """What is wrong with a caller that expects `count` processes; None if nothing."""
    if count != num_processes:
        text = (
            f"num_processes is {num_processes} on process 0 and {count} on process "
            f"{process_id}; all processes need the same"
        )
    elif process_id in present:
        text = f"two processes came to {address} as process {process_id}"
    else:
        return None
    return _Mistake(text, late=False)


def _read_hello(connection: socket.socket) -> tuple[int, int] | None:
    """Returns a caller's number and count of processes; None of another program."""
    try:
        connection.settimeout(_REPLY_SECONDS)
        with connection.makefile() as file:
            hello = json.loads(file.readline(_LONGEST_LINE))
        return int(hello["process_id"]), int(hello["num_processes"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _call_first(
    address: _Address, num_processes: int, process_id: int, timeout: float
) -> _Mistake | None:
    """Calls process 0 until it answers; returns what it says is wrong."""
    deadline = time.monotonic() + timeout
    hello = {"num_processes": num_processes, "process_id": process_id}
    while time.monotonic() < deadline:
        # Process 0 may start later, and another program may be at the port until then.
        with contextlib.suppress(OSError, ValueError, TypeError):
            left = max(deadline - time.monotonic(), 0.01)
            with socket.create_connection(address, timeout=left) as connection:
                connection.sendall((json.dumps(hello) + "\n").encode())
                # Process 0 answers when all have come. Its own timeout may have begun
                # just now.
                connection.settimeout(timeout + _REPLY_SECONDS)
                # Another program may answer anything, which raises; then try again.
                answer = json.loads(connection.makefile().readline())
                return None if answer is None else _Mistake(*answer)
        time.sleep(0.1)
    return _Mistake(
        f"process 0 did not answer at {address} within {timeout:g} s; check that it "
        "runs there and that its port can be reached",
        late=True,
    )
