import os
import signal
import threading

import pytest

from spatial_smoothing.runtime.interrupts import Interrupts, in_thread


@pytest.fixture(autouse=True)
def _handlers():
    """Puts back what the tests change."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
)
def test_the_first_signal_asks_and_the_second_insists(number, code):
    insisted = []
    signal.signal(number, lambda *_: insisted.append(number))
    with Interrupts() as interrupts:
        assert not interrupts
        assert interrupts.exit_code == 0
        os.kill(os.getpid(), number)
        assert interrupts
        assert interrupts.exit_code == code
        assert insisted == []
        os.kill(os.getpid(), number)
        assert insisted == [number]


def test_handlers_come_back_at_the_end():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_nohup_has_switched_off_stays_off():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not interrupts
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_calls_in_a_thread_return_and_raise():
    assert in_thread(lambda: 3) == 3
    with pytest.raises(ValueError, match="not in list"):
        in_thread(lambda: [].index("none"))


def test_ctrl_c_ends_the_wait_for_a_thread():
    release = threading.Event()
    interrupt = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        in_thread(release.wait)
    release.set()
