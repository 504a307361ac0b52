"""Signals that are noted, obeyed at once, or kept for the end of a block."""

import os
import signal

import pytest

from common.stopping import Stopped, StopSignal


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_noted_and_the_handlers_return(number: int, code: int) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert stop.number is None
        send(number)
        assert stop.number == number and stop.exit_code == code
    assert signal.getsignal(number) is before


def test_the_second_interrupt_is_immediate() -> None:
    with StopSignal() as stop:
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert stop.exit_code == 130


def test_an_interruptible_block_ends_and_the_program_goes_on() -> None:
    with StopSignal() as stop:
        with stop.interrupting():
            send(signal.SIGTERM)
            pytest.fail("the block went on")
        assert stop.number == signal.SIGTERM
        send(signal.SIGTERM)  # noted again, outside the block


def test_at_once_means_everywhere_but_in_deferred_blocks() -> None:
    with StopSignal(at_once=True) as stop:
        done = False
        with pytest.raises(Stopped), stop.deferred():
            send(signal.SIGTERM)
            done = True
        assert done and stop.number == signal.SIGTERM
        with pytest.raises(Stopped):
            send(signal.SIGTERM)


def test_errors_of_a_block_are_not_swallowed() -> None:
    with StopSignal() as stop:
        with pytest.raises(ValueError, match="own"), stop.interrupting():
            raise ValueError("own")
        with pytest.raises(ValueError, match="own"), stop.deferred():
            raise ValueError("own")
