import os
import signal

import pytest

from tts.errors import PreemptedError
from tts.training.preemption import StopFlag, listen


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, PreemptedError), (signal.SIGINT, KeyboardInterrupt)])
def test_the_first_signal_only_sets_the_flag(number, error):
    with listen() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
    assert isinstance(stop.error(7), error)
    assert "step 7" in str(stop.error(7))


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_ctrl_c_after_another_signal_interrupts_at_once(first):
    with listen() as stop:
        os.kill(os.getpid(), first)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.signal is first


def test_sigterm_twice_is_still_one_request():
    with listen() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal is signal.SIGTERM


def test_the_handlers_from_before_are_put_back_even_after_an_error():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(ValueError, match="inside"), listen(StopFlag()):
        raise ValueError("inside")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_it_is_the_callers_flag_that_is_set():
    mine = StopFlag()
    with listen(mine) as stop:
        assert stop is mine
        os.kill(os.getpid(), signal.SIGTERM)
    assert mine
