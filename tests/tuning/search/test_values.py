import numpy as np
import optuna
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from tts.tuning.search.values import chosen, pareto

FINITE = st.integers(-3, 3).map(float)


def study_of(values, states=None, imported=()):
    study = optuna.create_study(directions=["minimize"] * len(values[0]))
    states = states or [TrialState.COMPLETE] * len(values)
    study.add_trials(
        create_trial(
            values=list(own) if state == TrialState.COMPLETE else None,
            state=state,
            user_attrs={"imported": "another"} if number in imported else {},
        )
        for number, (own, state) in enumerate(zip(values, states, strict=True))
    )
    return study


def points(objectives):
    return st.lists(st.tuples(*[FINITE] * objectives), min_size=1, max_size=12)


@given(values=st.one_of(points(2), points(3)))
def test_the_pareto_set_is_optunas_and_that_of_the_definition(values):
    study = study_of(values)

    numbers = [trial.number for trial in pareto(study.trials)]

    assert numbers == sorted(trial.number for trial in study.best_trials)
    assert numbers == [
        number
        for number, own in enumerate(values)
        if not any(all(a <= b for a, b in zip(other, own, strict=True)) and other != own for other in values)
    ]


@given(values=points(1))
def test_of_one_objective_the_lowest_is_chosen(values):
    study = study_of(values)

    assert chosen(study.trials).values == [min(values)[0]]
    assert chosen(study.trials).number == study.best_trial.number


def test_of_several_the_compromise_is_nearest_to_the_lowest_of_each_on_the_sets_own_scale():
    """The second objective is measured in thousands; on the set's scale the points are (0, 1), (0.25, 0.375), (0.9, 0.1), (1, 0)."""
    study = study_of([(0.0, 8000.0), (1.0, 3000.0), (3.6, 800.0), (4.0, 0.0), (3.9, 9000.0)])

    assert [trial.number for trial in pareto(study.trials)] == [0, 1, 2, 3]
    assert chosen(study.trials).number == 1


@given(values=points(2), factors=st.tuples(st.sampled_from([0.5, 1024.0]), st.sampled_from([0.25, 64.0])), shift=st.integers(-5, 5))
def test_the_choice_does_not_depend_on_the_units_of_the_objectives(values, factors, shift):
    other = [tuple(value * factor + shift for value, factor in zip(own, factors, strict=True)) for own in values]

    assert chosen(study_of(other).trials).number == chosen(study_of(values).trials).number


@given(values=points(2))
def test_what_is_chosen_is_in_the_pareto_set(values):
    trials = study_of(values).trials

    assert chosen(trials).number in {trial.number for trial in pareto(trials)}


def test_an_objective_in_which_the_set_is_equal_does_not_matter():
    assert chosen(study_of([(1.0, 2.0), (1.0, 2.0), (1.0, 3.0)]).trials).number == 0


def test_imported_and_unfinished_trials_are_never_chosen():
    complete, pruned, failed, running = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING
    study = study_of([(0.0,), (3.0,), (0.0,), (0.0,), (2.0,)], [complete, complete, pruned, failed, complete], imported={0})
    study.ask()

    assert [trial.state for trial in study.trials][-1] == running
    assert chosen(study.trials).number == 4
    assert [trial.number for trial in pareto(study.trials)] == [4]
    assert chosen(study_of([(0.0,)], imported={0}).trials) is None
    assert pareto([]) == []


def test_many_trials_are_judged_as_a_plain_loop_would():
    values = [tuple(point) for point in np.random.default_rng(0).integers(0, 12, (200, 3)).astype(float)]
    study = study_of(values)

    assert [trial.number for trial in pareto(study.trials)] == sorted(trial.number for trial in study.best_trials)
