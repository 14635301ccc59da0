import logging
import re
import warnings
from typing import get_args

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from scipy.stats import qmc

from tts.config import Condition, ObjectiveTerm, TuningConfig
from tts.config.search import Pruner, Sampler
from tts.errors import UsageError
from tts.tuning.search.samplers import as_if_completed, bounded
from tts.tuning.search.space import suggest
from tts.tuning.search.strategy import SEVERAL_OBJECTIVES, directions, pruner, sampler

SAMPLERS = get_args(Sampler)
PRUNERS = get_args(Pruner)
SPACE = {
    "rate": FloatDistribution(1e-4, 1e-2, log=True),
    "layers": IntDistribution(1, 9),
    "steps": IntDistribution(1, 1000, log=True),
    "kind": CategoricalDistribution(("l1", "mse")),
    "share": FloatDistribution(0, 1),
}
ONLY_L1 = Condition(knob="share", when="kind", among=("l1",))
TWO = (ObjectiveTerm(metric="mel_loss", objective="sound"), ObjectiveTerm(metric="gate_loss", objective="stopping"))


def study_of(config):
    return optuna.create_study(directions=directions(config))


def value(params, objective=0):
    """Lowest at rate 1e-3, five layers, 30 steps, l1, share 0.3; the second objective wants all of it higher."""
    distance = (
        abs(np.log10(params["rate"]) + 3 - objective) + abs(params["layers"] - 5 - objective) / 4 + abs(np.log10(params["steps"] / 30) - objective)
    )
    return float(distance + (params["kind"] == "mse") + abs(params.get("share", 0.5) - 0.3 - objective / 2))


def run(config, study, trials):
    """Goes on with a study, as one worker does, up to so many trials; all values of each."""
    tuning = config.model_copy(update={"knobs": tuple(SPACE)})
    for number in range(len(study.trials), trials):
        study.sampler = sampler(tuning, number, SPACE)
        trial = study.ask()
        params = suggest(trial, tuning, SPACE)
        study.tell(trial, [value(params, objective) for objective in range(len(study.directions))])
    return [trial.params for trial in study.trials]


def quick(**knobs):
    """A model from the fifth trial on; the Gaussian process takes a while for each draw."""
    return TuningConfig(**{"startup_trials": 7 if knobs["sampler"] == "gp" else 4, "pruner": "none", **knobs})


@pytest.mark.parametrize("conditions", [(), (ONLY_L1,)], ids=["plain", "conditional"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_study_is_reproduced_by_its_seed(name, conditions):
    config = quick(sampler=name, seed=5, conditions=conditions)

    drawn = run(config, study_of(config), 9)

    assert drawn == run(config, study_of(config), 9)
    assert drawn[:3] != run(quick(sampler=name, seed=6, conditions=conditions), study_of(config), 3)
    assert len({str(params) for params in drawn}) == 9
    assert all(("share" in params) == (params["kind"] == "l1" or not conditions) for params in drawn)


@pytest.mark.parametrize("conditions", [(), (ONLY_L1,)], ids=["plain", "conditional"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_study_that_is_taken_up_again_goes_on_as_if_it_had_never_stopped(name, conditions, tmp_path):
    config = quick(sampler=name, conditions=conditions)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=url, study_name="voices", directions=directions(config))
    whole = run(config, study_of(config), 9)

    for trials in (3, 6, 9):  # each time a new process as far as Optuna can tell: another study object, another storage
        stopped = optuna.load_study(storage=url, study_name="voices")
        drawn = run(config, stopped, trials)

    assert drawn == whole


@pytest.mark.parametrize("name", SAMPLERS)
def test_workers_that_draw_at_the_same_time_draw_different_values(name):
    config = quick(sampler=name, knobs=tuple(SPACE))
    study = study_of(config)
    run(config, study, 8)

    drawn = []
    for number in range(8, 14):
        study.sampler = sampler(config, number, SPACE)
        drawn.append(suggest(study.ask(), config, SPACE))

    assert len({str(params) for params in drawn + [trial.params for trial in study.trials[:8]]}) == 14


@pytest.mark.parametrize(("name", "trials"), [("tpe", 40), ("cmaes", 40), ("gp", 16), ("nsgaii", 40)])
def test_what_finished_trials_taught_is_used(name, trials):
    """The last quarter of a study is better than values at random."""
    config = quick(sampler=name, startup_trials=8)
    learned = run(config, study_of(config), trials)[-trials // 4 :]
    at_random = run(quick(sampler="random"), study_of(config), 60)

    assert np.median([value(params) for params in learned]) < np.quantile([value(params) for params in at_random], 0.3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_nothing_is_said_that_a_user_can_do_nothing_about(name, caplog):
    optuna.logging.enable_propagation()
    try:
        with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
            warnings.simplefilter("error")
            for conditions in ((), (ONLY_L1,)):
                config = quick(sampler=name, conditions=conditions)
                run(config, study_of(config), 6)
    finally:
        optuna.logging.disable_propagation()

    assert caplog.text == ""


def test_the_quasi_random_sequence_is_one_sobol_sequence_whoever_draws_and_however_often():
    space = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    config = TuningConfig(sampler="qmc", seed=3)
    study = study_of(config)
    drawn = []
    for number in range(16):
        study.sampler = sampler(config, number, space)
        trial = study.ask(space)
        study.sampler.sample_relative(study, study.trials[number], space)  # as when a trial is handed back and asked for again
        drawn.append([trial.params["x"], trial.params["y"]])

    np.testing.assert_allclose(drawn, qmc.Sobol(2, seed=3).random(16))


def test_all_trials_teach_the_sampler_under_hyperband_too():
    """Optuna alone would show it a bracket's trials: with three brackets of ten, none has the eight it waits for."""
    brackets = {"pruner": "hyperband", "pruner_min_reports": 1, "pruner_reduction_factor": 3}
    config = TuningConfig(steps=90, validation_interval=10, startup_trials=8, knobs=tuple(SPACE), **brackets)
    study = optuna.create_study(pruner=pruner(config))

    def drawn(number):
        study.sampler = sampler(config, number, SPACE)
        trial = study.ask()
        suggest(trial, config, SPACE)
        return trial

    for number in range(10):
        trial = drawn(number)
        trial.report(value(trial.params), 10)
        state = TrialState.PRUNED if trial.should_prune() else TrialState.COMPLETE
        study.tell(trial, None if state == TrialState.PRUNED else value(trial.params), state)
    with_brackets = drawn(10).params
    study.tell(10, 0.0)
    study.pruner = optuna.pruners.NopPruner()

    without = optuna.create_study()
    without.add_trials(study.trials[:10])
    without.sampler = sampler(config, 10, SPACE)
    assert with_brackets == suggest(without.ask(), config, SPACE)


@pytest.mark.parametrize("name", SAMPLERS)
def test_several_objectives_are_searched_by_the_samplers_that_can(name):
    config = quick(sampler=name, objective=TWO)
    assert directions(config) == ["minimize", "minimize"]

    if name in SEVERAL_OBJECTIVES:
        drawn = run(config, study_of(config), 9)
        assert drawn == run(config, study_of(config), 9)
        assert len({str(params) for params in drawn}) == 9
    else:
        with pytest.raises(UsageError, match=r"tuning\.sampler cmaes searches for one objective.*sound, stopping; choose one of tpe, gp"):
            sampler(config, 0, SPACE)


@pytest.mark.parametrize("name", [name for name in PRUNERS if name != "none"])
def test_several_objectives_are_not_pruned(name):
    with pytest.raises(UsageError, match=f"tuning.pruner {name} compares trials by one number.*sound, stopping; set tuning.pruner none"):
        pruner(TuningConfig(pruner=name, objective=TWO))
    pruner(TuningConfig(pruner="none", objective=TWO))


@pytest.mark.parametrize("name", [name for name in PRUNERS if name not in ("none", "wilcoxon")])
def test_a_pruner_that_could_never_judge_is_refused(name):
    config = TuningConfig(pruner=name, steps=10, validation_interval=6, pruner_min_reports=2)

    with pytest.raises(UsageError, match=re.escape(f"tuning.pruner {name} judges a trial first at step 12")):
        pruner(config)
    pruner(config.model_copy(update={"pruner": "none"}))


def test_the_report_at_which_a_pruner_can_first_judge_is_known():
    with pytest.raises(UsageError, match="wilcoxon judges a trial first at step 40 "):
        pruner(TuningConfig(pruner="wilcoxon", steps=30, validation_interval=10, pruner_p_value=0.1))
    with pytest.raises(UsageError, match="median judges a trial first at step 40 "):
        pruner(TuningConfig(pruner="median", steps=30, validation_interval=10, pruner_patience=2))
    with pytest.raises(UsageError, match=r"set tuning\.pruner_patience 0"):
        pruner(TuningConfig(pruner="none", pruner_patience=2))


def judged(config, values, *, before=6):
    """The step at which a trial with these reports ends, after `before` trials that reported 1 to 1.05; None if it does not."""
    # The name decides which of Hyperband's brackets a trial is in: with this one the last is in the first, which judges earliest.
    study = optuna.create_study(pruner=pruner(config), study_name="voices")
    for _ in range(before):  # the median of fewer than five trials is not trusted by Optuna
        trial = study.ask()
        for place in range(len(values)):
            trial.report(1.0 + place / 100, (place + 1) * config.validation_interval)
            trial.should_prune()
        study.tell(trial, 1.0)
    trial = study.ask()
    for place, reported in enumerate(values, 1):
        trial.report(reported, place * config.validation_interval)
        if trial.should_prune():
            return place * config.validation_interval
    return None


@pytest.mark.parametrize(
    ("name", "first"),
    [("hyperband", 4), ("successive_halving", 4), ("median", 4), ("percentile", 4), ("threshold", 4), ("wilcoxon", 8), ("none", None)],
)
def test_a_trial_without_prospects_ends_at_the_report_that_the_configuration_names(name, first):
    config = TuningConfig(pruner=name, steps=12, validation_interval=2, pruner_min_reports=2, pruner_reduction_factor=3, pruner_threshold=50)

    assert judged(config, [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]) == first
    assert judged(config, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]) is None


def test_the_percentile_and_the_threshold_are_those_of_the_configuration():
    shared = {"steps": 6, "validation_interval": 2, "pruner_min_reports": 1}
    study_values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]

    def survives(share, reported):
        study = optuna.create_study(pruner=pruner(TuningConfig(pruner="percentile", pruner_percentile=share, **shared)))
        for known in study_values:
            trial = study.ask()
            trial.report(known, 2)
            study.tell(trial, known)
        trial = study.ask()
        trial.report(reported, 2)
        return not trial.should_prune()

    assert [survives(30.0, reported) for reported in (2.5, 5.0)] == [True, False]
    assert [survives(80.0, reported) for reported in (5.0, 9.5)] == [True, False]
    assert judged(TuningConfig(pruner="threshold", pruner_threshold=3.0, **shared), [2.9, 3.1, 9.0]) == 4


@pytest.mark.parametrize("name", [name for name in PRUNERS if name not in ("none", "wilcoxon")])
def test_patience_lets_a_trial_go_on_while_it_improves(name):
    config = TuningConfig(pruner=name, steps=12, validation_interval=2, pruner_min_reports=1, pruner_threshold=50, pruner_patience=2)

    assert judged(config, [100.0, 99.0, 98.0, 97.0, 96.0, 95.0]) is None
    # Three reports without an improvement on the first: the judgement is left to the pruner again.
    assert judged(config, [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]) == 8


def trial_of(state, reports, value=None, x=0.5):
    return create_trial(state=state, value=value, intermediate_values=reports, params={"x": x}, distributions={"x": FloatDistribution(0, 1)})


@pytest.mark.parametrize(
    ("reports", "value"),
    [
        ({1: 5.5}, 2.5),  # the one that stood better reported 5 and came to 2
        ({1: 5.0}, 2.0),
        ({1: 4.0}, 2.0),  # it stood better than all: as the best of them
        ({1: 6.5}, 4.3),  # the last one before it reported 6.2; those before it came to 4 at worst
        ({1: 9.0}, 6.0),  # behind all: two behind the last, which was luckier than others
        ({1: 5.5, 2: 4.5}, 8.5),  # at step 2 two completed trials are known
        ({1: 5.5, 2: 3.5}, 2.5),
        ({3: 1.0}, 8.0),  # no completed trial was seen at this step
        ({}, 8.0),
    ],
)
def test_a_pruned_trial_counts_as_far_behind_those_that_completed_as_it_stood(reports, value):
    completed = [
        trial_of(TrialState.COMPLETE, {1: 5.0, 2: 3.0}, 2.0),
        trial_of(TrialState.COMPLETE, {1: 6.0}, 2.0),
        trial_of(TrialState.COMPLETE, {1: 6.2}, 4.0),
        trial_of(TrialState.COMPLETE, {1: 7.0}, 1.0),
        trial_of(TrialState.COMPLETE, {2: 4.0}, 8.0),
    ]
    pruned = trial_of(TrialState.PRUNED, reports)

    judged = as_if_completed(pruned, completed)

    assert (judged.state, judged.values) == (TrialState.COMPLETE, [pytest.approx(value)])
    assert pruned.state == TrialState.PRUNED


def test_what_blew_up_is_no_worse_to_the_model_than_bad():
    completed = [trial_of(TrialState.COMPLETE, {}, value) for value in (3.0, 1.0, 2.0, 5.0, 900.0)]  # median 3, best 1
    taken_for_completed = trial_of(TrialState.COMPLETE, {}, 12.0)
    running = trial_of(TrialState.RUNNING, {})

    assert [trial.values for trial in bounded([*completed, taken_for_completed, running], completed)] == [[3], [1], [2], [5], [11], [11], None]
    assert completed[4].values == [900.0]
    assert bounded(completed[:1], completed[:1]) == completed[:1]

    def draw(blown):
        made = optuna.create_study()
        space = {"x": FloatDistribution(0, 1)}
        for place in range(8):
            result = blown if place == 7 else (place / 8 - 0.3) ** 2
            made.add_trial(create_trial(value=result, params={"x": place / 8}, distributions=space))
        made.sampler = sampler(TuningConfig(sampler="gp", startup_trials=3), 8, space)
        return made.ask(space).params["x"]

    assert draw(1e3) == draw(1e9)


def test_the_gaussian_process_does_not_draw_where_trials_were_pruned():
    """Three completed trials say that lower x is better, six pruned ones that nothing is there: Optuna's own draws among them, once more."""
    space = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}

    def study():
        made = optuna.create_study()
        for place in range(9):
            x, y = (0.5 + place / 20, place / 8) if place < 3 else (place / 20 - 0.1, 1 - place / 9)
            done = {"state": TrialState.COMPLETE, "value": x} if place < 3 else {"state": TrialState.PRUNED}
            made.add_trial(create_trial(**done, params={"x": x, "y": y}, distributions=space, intermediate_values={1: x if place < 3 else 9.0}))
        return made

    def drawn(made, own):
        made.sampler = own
        return made.ask(space).params["x"]

    config = TuningConfig(sampler="gp", startup_trials=3, knobs=("x", "y"))
    assert drawn(study(), optuna.samplers.GPSampler(seed=0, n_startup_trials=3)) < 0.3
    assert drawn(study(), sampler(config, 9, space)) > 0.35
