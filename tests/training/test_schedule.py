import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.config import Config, OptimiserConfig
from tts.config.load import override
from tts.training.schedule import learning_rate, reduction_factor

KNOBS = OptimiserConfig(learning_rate=8e-4, warmup_steps=4, decay_start=10, decay_half_life=5, minimum_learning_rate=1e-4)


def test_values_by_hand():
    expected = {1: 2e-4, 2: 4e-4, 3: 6e-4, 4: 8e-4, 5: 8e-4, 10: 8e-4, 15: 4e-4, 20: 2e-4, 25: 1e-4, 26: 1e-4, 10_000: 1e-4}
    assert {step: learning_rate(KNOBS, step) for step in expected} == pytest.approx(expected)


def test_between_the_halvings_the_decay_is_exponential():
    assert learning_rate(KNOBS, 12) == pytest.approx(8e-4 * 2 ** (-2 / 5))


def test_without_warm_up_the_first_update_has_the_full_rate():
    assert learning_rate(KNOBS.model_copy(update={"warmup_steps": 0}), 1) == 8e-4


def test_decay_waits_for_the_end_of_the_warm_up():
    knobs = KNOBS.model_copy(update={"warmup_steps": 100})
    assert learning_rate(knobs, 50) == pytest.approx(4e-4)
    assert learning_rate(knobs, 100) == pytest.approx(8e-4)
    assert learning_rate(knobs, 105) == pytest.approx(4e-4)


def test_a_rate_below_the_minimum_stays_as_it_is():
    knobs = KNOBS.model_copy(update={"learning_rate": 5e-5})
    assert learning_rate(knobs, 4) == learning_rate(knobs, 1000) == 5e-5


@given(st.integers(1, 1000), st.integers(0, 60), st.integers(0, 60), st.integers(1, 60))
def test_it_rises_once_then_falls_once_and_never_exceeds_its_peak(step, warmup, start, half_life):
    knobs = OptimiserConfig(warmup_steps=warmup, decay_start=start, decay_half_life=half_life)
    now, then = learning_rate(knobs, step), learning_rate(knobs, step + 1)
    assert 0 < now <= knobs.learning_rate
    assert now < then if step < warmup else now >= then


def gradual(last, initial, interval):
    return override(Config(), {"model.reduction_factor": last, "model.initial_reduction_factor": initial, "training.reduction_interval": interval})


def test_the_reduction_factor_falls_by_one_after_each_interval():
    config = gradual(2, 5, 10)
    expected = {0: 5, 1: 5, 10: 5, 11: 4, 20: 4, 21: 3, 30: 3, 31: 2, 32: 2, 100_000: 2}
    assert {step: reduction_factor(config, step) for step in expected} == expected


def test_without_a_schedule_it_stays():
    for step in (1, 10_000, 10_001, 10**6):
        assert reduction_factor(gradual(3, 0, 1), step) == reduction_factor(gradual(3, 3, 1), step) == 3


@given(step=st.integers(1, 100), last=st.integers(1, 5), more=st.integers(0, 5), interval=st.integers(1, 20))
def test_it_never_rises_nor_leaves_its_bounds(step, last, more, interval):
    config = gradual(last, last + more, interval)
    now, then = reduction_factor(config, step), reduction_factor(config, step + 1)
    assert last + more >= now >= then >= last
    assert now - then in (0, 1)
