"""The meeting of all processes at one address, before JAX brings them together.

Contract of this file: if one is wrong or does not come, all that came hear of it, raise
an error, and end. JAX does the same once more, but kills a process for whose arguments
it has no use, and all of them when one does not come.
"""

import contextlib
import json
import socket
import time
from typing import NamedTuple

_PATIENCE = 2.0  # seconds for what takes a moment in another process
_LONGEST = 1000  # characters of what a caller says; a stranger may say more


def meet(coordinator: str, num_processes: int, process_id: int, timeout: float) -> None:
    """Waits at the coordinator's address until all processes are there.

    Args:
      coordinator: HOST:PORT, of process 0.
      num_processes: In all.
      process_id: Of this one.
      timeout: Seconds.

    Raises:
      ValueError: for arguments that are wrong, or differ from those of another.
      TimeoutError: naming who did not come.
    """
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--coordinator must be HOST:PORT, got {coordinator}")
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"--process_id must be in [0, {num_processes}), got {process_id}"
        )
    deadline = time.monotonic() + timeout
    if process_id == 0:
        mistake = _receive(coordinator, int(port), num_processes, deadline, timeout)
    else:
        hello = {"num_processes": num_processes, "process_id": process_id}
        mistake = _call(coordinator, host, int(port), hello, deadline, timeout)
    if mistake:
        raise (TimeoutError if mistake.late else ValueError)(mistake.text)


class _Mistake(NamedTuple):
    """What is wrong, and whether it is that somebody did not come in time."""

    text: str
    late: bool


def _receive(
    coordinator: str, port: int, num_processes: int, deadline: float, timeout: float
) -> _Mistake | None:
    """Lets the other processes call; returns, and tells them, what is wrong."""
    callers: dict[int, socket.socket] = {}
    mistake = None
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("", port)))
        while not mistake and len(callers) < num_processes - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection = stack.enter_context(server.accept()[0])
            except TimeoutError:
                absent = sorted({*range(1, num_processes)} - callers.keys())
                mistake = _Mistake(
                    f"process {', '.join(map(str, absent))} of {num_processes} did not "
                    f"come to {coordinator} within {timeout:g} s",
                    late=True,
                )
                continue
            except ConnectionError:
                continue  # gone again
            hello = _hello(connection)
            if hello is None:
                connection.close()  # a stranger
                continue
            number, count = hello
            if count != num_processes:
                mistake = _Mistake(
                    f"num_processes is {num_processes} on process 0 and {count} on "
                    f"process {number}; all processes need the same",
                    late=False,
                )
            elif number in callers:
                text = f"two processes came to {coordinator} as process {number}"
                mistake = _Mistake(text, late=False)
            callers[number if not mistake else -1] = connection
        for connection in callers.values():
            with contextlib.suppress(OSError):
                connection.sendall((json.dumps(mistake) + "\n").encode())
    return mistake


def _hello(connection: socket.socket) -> tuple[int, int] | None:
    """Returns number and count as a caller says them; None of a stranger."""
    try:
        connection.settimeout(_PATIENCE)
        with connection.makefile() as file:
            hello = json.loads(file.readline(_LONGEST))
        return int(hello["process_id"]), int(hello["num_processes"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _call(
    coordinator: str,
    host: str,
    port: int,
    hello: dict[str, int],
    deadline: float,
    timeout: float,
) -> _Mistake | None:
    """Calls process 0 until it answers; returns what it says is wrong."""
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, TypeError):
            left = max(deadline - time.monotonic(), 0.01)
            with socket.create_connection((host, port), timeout=left) as connection:
                connection.sendall((json.dumps(hello) + "\n").encode())
                # Process 0 may have begun to wait later.
                connection.settimeout(timeout + _PATIENCE)
                answer = json.loads(connection.makefile().readline())
                return None if answer is None else _Mistake(*answer)
        time.sleep(0.1)
    return _Mistake(
        f"process 0 did not answer at {coordinator} within {timeout:g} s; check that "
        "it runs there and that its port can be reached",
        late=True,
    )
