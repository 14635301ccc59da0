"""A step's parts by a clock that the test turns."""

import math

import pytest

from tts.training import step_clock
from tts.training.step_clock import PARTS, UNREAD, StepClock


@pytest.fixture
def turn(monkeypatch):
    """Moves time on."""
    now = [100.0]
    monkeypatch.setattr(step_clock.time, "perf_counter", lambda: now[0])

    def on(seconds):
        now[0] += seconds

    return on


def _step(clock, turn, *seconds):
    clock.start()
    for part, taken in zip(PARTS, seconds, strict=False):
        turn(taken)
        clock.end_of(part)


def test_means_are_over_the_steps_since_they_were_last_asked(turn):
    clock = StepClock()
    _step(clock, turn, 1, 2, 3, 4)
    turn(50)
    _step(clock, turn, 3, 4, 5, 6)
    assert clock.means() == {"data_seconds": 2, "forward_seconds": 3, "backward_seconds": 4, "update_seconds": 5}
    _step(clock, turn, 0.5, 0.25, 0.125, 0)
    assert clock.means() == {"data_seconds": 0.5, "forward_seconds": 0.25, "backward_seconds": 0.125, "update_seconds": 0}
    assert all(math.isnan(mean) for mean in clock.means().values())


def test_a_step_that_did_not_end_does_not_count(turn):
    clock = StepClock()
    _step(clock, turn, 10, 20, 30)
    _step(clock, turn, 1, 2, 3, 4)
    assert clock.means() == {"data_seconds": 1, "forward_seconds": 2, "backward_seconds": 3, "update_seconds": 4}


def test_a_step_that_was_not_started_does_not_count(turn):
    clock = StepClock()
    for part in PARTS[1:]:
        turn(1)
        clock.end_of(part)
    assert all(math.isnan(mean) for mean in clock.means().values())


def test_nothing_piles_up_where_nobody_asks(turn):
    clock = StepClock()
    for number in range(3 * UNREAD + 5):
        _step(clock, turn, 1, 2, 3, number)
    assert len(clock._finished) < UNREAD
    assert clock.means()["update_seconds"] == pytest.approx((3 * UNREAD + 4) / 2)
