"""How processes meet. What they do then is in `test_topologies` and `test_scripts`."""

import concurrent.futures
import re
import socket
import time

import pytest

from spatial_smoothing.runtime import processes, rendezvous


def free_address():
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return f"localhost:{server.getsockname()[1]}"


def meet(*arguments, timeout=10.0):
    """What each (num_processes, process_id) is told; None if all came."""
    address = free_address()

    def one(argument):
        try:
            rendezvous.meet(address, *argument, timeout=timeout)
        except (ValueError, TimeoutError) as error:
            return type(error), str(error).replace(address, "ADDRESS")
        return None

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(one, arguments))


def test_all_come():
    assert meet((3, 2), (3, 0), (3, 1)) == [None] * 3


def test_nobody_at_the_address():
    ((kind, told),) = meet((2, 1), timeout=0.3)
    assert kind is TimeoutError
    assert "process 0 did not answer at ADDRESS within 0.3 s" in told


def test_one_does_not_come():
    first, second = meet((3, 0), (3, 1), timeout=1.0)
    assert first == second
    message = "process 2 of 3 did not come to ADDRESS within 1 s"
    assert first == (TimeoutError, message)


def test_another_count():
    first, second = meet((2, 0), (3, 1))
    assert first == second
    assert first == (
        ValueError,
        "num_processes is 2 on process 0 and 3 on process 1; "
        "all processes need the same",
    )


def test_the_same_number_twice():
    told = meet((4, 0), (4, 1), (4, 1))
    assert told == [(ValueError, "two processes came to ADDRESS as process 1")] * 3


def connected(address):
    """A connection to process 0, which may be about to listen."""
    host, port = address.split(":")
    while True:
        try:
            return socket.create_connection((host, int(port)))
        except ConnectionRefusedError:
            continue


def test_strangers_are_let_go(monkeypatch):
    monkeypatch.setattr(rendezvous, "_REPLY_SECONDS", 0.2)  # with the silent one
    address = free_address()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(rendezvous.meet, address, 2, 0, timeout=10)
        greetings = (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"process_id": []}\n', b"")
        for greeting in greetings:
            with connected(address) as connection:
                connection.sendall(greeting)
        with connected(address) as silent:
            silent.settimeout(5)
            assert silent.recv(1) == b""  # as who is let go reads
            rendezvous.meet(address, 2, 1, timeout=10)
        first.result()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coordinator": "a:1"}, "go together, got a:1, None and None"),
        (
            {"coordinator": "a", "num_processes": 2, "process_id": 0},
            "--coordinator must be HOST:PORT, with a port of 1 to 65535, got a",
        ),
        *(
            (
                {"coordinator": f"a:{port}", "num_processes": 2, "process_id": 1},
                f"of 1 to 65535, got a:{port}",
            )
            for port in ("0", "65536", "²")
        ),
        (
            {"coordinator": "a:1", "num_processes": 2, "process_id": 2},
            "--process_id must be in [0, 2), got 2",
        ),
    ],
)
def test_flags_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        processes.start(**options, timeout=0.5)


def test_a_process_alone_agrees_with_itself():
    assert processes.is_first()
    assert processes.max_over_processes(1, 2.5) == [1, 2.5]
    assert processes.any_process(True) is True
    assert processes.any_process(False) is False
    processes.barrier()
    processes.check_same({"data": lambda: 1 / 0})  # not even computed
    with pytest.raises(OSError, match="disk"), processes.together():
        raise OSError("disk")


def test_a_foreign_service_at_the_address_is_no_process():
    with socket.create_server(("localhost", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        with concurrent.futures.ThreadPoolExecutor() as pool:
            late = pool.submit(rendezvous.meet, address, 2, 1, timeout=0.2)
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"5\n")
            with pytest.raises(TimeoutError, match="process 0 did not answer at"):
                late.result()


def test_a_silent_program_at_the_port_is_one_line_for_each_process():
    """It is there before process 0, which cannot listen, and never answers."""
    with socket.create_server(("localhost", 0)) as silent:
        address = f"localhost:{silent.getsockname()[1]}"
        message = f"process 0 cannot listen at {address} (Address already in use)"
        with pytest.raises(OSError, match=re.escape(message)):
            rendezvous.meet(address, 2, 0, timeout=5)
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match="process 0 did not answer at"):
            rendezvous.meet(address, 2, 1, timeout=0.3)
        assert time.monotonic() - begin < 5


def test_process_0_listens_at_the_address_alone():
    """Not on all interfaces: 127.0.0.2 is one of this machine, and refuses."""
    address = free_address().replace("localhost", "127.0.0.1")
    port = int(address.rpartition(":")[2])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(rendezvous.meet, address, 2, 0, timeout=10)
        connected(address).close()  # listens by now
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=5)
        rendezvous.meet(address, 2, 1, timeout=10)
        first.result()


def test_an_address_of_another_machine():
    with pytest.raises(OSError, match=r"cannot listen at 192\.0\.2\.1:1234 \(Cannot"):
        rendezvous.meet("192.0.2.1:1234", 2, 0, timeout=5)
