import math
from datetime import datetime, timedelta

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from tts.config import TuningConfig
from tts.tuning.budget import Budget, covered, since_better, total
from tts.tuning.database.attributes import IMPORTED, SPANS

ZERO = datetime(2026, 1, 1)  # noqa: DTZ001  # as Optuna's
spans = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 50)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=12)


def trial(state=TrialState.COMPLETE, values=None, ended=0, **attributes):
    made = optuna.trial.create_trial(state=state, values=values or ([1.0] if state == TrialState.COMPLETE else None), user_attrs=attributes)
    if state.is_finished():
        made.datetime_complete = ZERO + timedelta(seconds=ended)
    return made


@given(spans)
def test_hours_by_the_clock_are_the_seconds_that_lie_in_some_span(made):
    assert covered(made) == len({second for begin, end in made for second in range(begin, end)})


@given(spans)
def test_hours_of_training_are_those_of_every_attempt(made):
    assert total(made) == sum(len(range(begin, end)) for begin, end in made)
    assert total(made) >= covered(made)


@given(spans, spans)
def test_time_spent_only_grows_and_a_night_between_two_evenings_does_not_count(first, second):
    both = covered([*first, *second])
    later = [(begin + 10_000, end + 10_000) for begin, end in second]

    assert max(covered(first), covered(second)) <= both <= covered(first) + covered(second)
    assert covered([*first, *later]) == covered(first) + covered(second)


@given(st.lists(st.integers(-5, 5), max_size=15))
def test_a_plateau_is_as_long_as_the_trials_since_the_best(values):
    finished = [trial(values=[float(value)], ended=place) for place, value in enumerate(values)]

    expected = len(values) - 1 - values.index(min(values)) if values else 0

    assert since_better(finished, 0.0) == expected


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12))
def test_with_several_objectives_a_plateau_is_an_unchanged_pareto_set(pairs):
    def front(known):
        return {one for one in known if not any(other != one and other[0] <= one[0] and other[1] <= one[1] for other in known)}

    finished = [trial(values=[float(one), float(other)], ended=place) for place, (one, other) in enumerate(pairs)]
    changes = [place for place in range(len(pairs)) if front(pairs[: place + 1]) != front(pairs[:place])]

    assert since_better(finished, 0.0) == len(pairs) - 1 - (changes[-1] if changes else -1)


def test_what_is_better_by_less_than_the_share_counts_only_when_it_adds_up():
    def since(*values):
        return since_better([trial(values=[value], ended=place) for place, value in enumerate(values)], 0.01)

    assert since(10.0, 9.95) == 1
    assert since(10.0, 9.95, 9.85) == 0
    assert since(-10.0, -10.05) == 1
    assert since(-10.0, -10.2) == 0


def test_trials_count_for_a_plateau_in_the_order_in_which_they_ended():
    late = trial(values=[1.0], ended=5)
    early = trial(values=[2.0], ended=1)

    assert since_better([late, early], 0.0) == 0
    assert since_better([late, early, trial(TrialState.FAIL, ended=6), trial(TrialState.PRUNED, ended=7)], 0.0) == 2


def test_retried_and_imported_trials_eat_nothing_of_the_budget():
    trials = [
        trial(**{IMPORTED: "other", SPANS: [[0, 9e9]]}),
        trial(TrialState.WAITING, interruptions=["its worker died"] * 3, **{SPANS: [[0, 360], [360, 720]]}),
        trial(TrialState.RUNNING, **{SPANS: [[0, 360]]}),
        trial(TrialState.PRUNED, **{SPANS: [[720, 1080]]}),
    ]

    found = Budget.of(TuningConfig(trials=3, gpu_hours=1, hours=0.5), trials)

    assert (found.finished, found.running, found.waiting) == (1, 1, 1)
    assert (found.gpu_hours_used, found.hours_used) == (pytest.approx(0.4), pytest.approx(0.3))
    assert (found.gpu_hours_left, found.hours_left) == (pytest.approx(0.6), pytest.approx(0.2))
    assert found.may_begin
    assert found.spent == ""


def test_each_limit_says_in_words_that_it_is_reached():
    hour = trial(ended=1, **{SPANS: [[0, 3600]]})
    running = trial(TrialState.RUNNING)

    def of(known, **knobs):
        return Budget.of(TuningConfig(**knobs), known)

    assert of([hour], trials=1).spent == "all 1 trials (tuning.trials) are finished"
    assert of([hour], gpu_hours=1).spent == "its 1 hours of training (tuning.gpu_hours) are used up"
    assert of([hour], hours=1).spent == "its 1 hours (tuning.hours) are over"
    assert of([hour, hour], plateau_trials=1).spent == "1 trials in a row (tuning.plateau_trials) brought none that is better"
    assert not any(of([hour, hour], **knobs).may_begin for knobs in ({"trials": 2}, {"gpu_hours": 1}, {"hours": 1}, {"plateau_trials": 1}))
    unlimited = of([hour])
    assert (unlimited.gpu_hours_left, unlimited.hours_left, unlimited.spent) == (math.inf, math.inf, "")
    # The last trial under way may be the better one.
    assert of([hour, hour, running], plateau_trials=1).spent == ""
    assert not of([hour, hour, running], plateau_trials=1).may_begin
    # Time that is up is up for those under way, too.
    assert of([hour, running], hours=1).spent == "its 1 hours (tuning.hours) are over"


@pytest.mark.parametrize(("gpus", "hours"), [(0, 0.5), (1, 0.5), (4, 2.0)])
def test_hours_of_training_count_each_device_of_a_trial(gpus, hours):
    found = Budget.of(TuningConfig(gpus_per_trial=gpus, gpu_hours=2), [trial(**{SPANS: [(0, 1800)]})])

    assert (found.gpu_hours_used, found.hours_used) == (hours, 0.5)
    assert bool(found.out_of_time) == (hours == 2.0)


@given(finished=st.integers(0, 6), running=st.integers(0, 6), asked=st.integers(1, 6))
def test_a_trial_begins_only_if_all_under_way_may_finish_within_the_budget(finished, running, asked):
    found = Budget.of(TuningConfig(trials=asked), [trial()] * finished + [trial(TrialState.RUNNING)] * running)

    assert found.may_begin == (finished + running + 1 <= asked)
    assert bool(found.spent) == (finished >= asked)
