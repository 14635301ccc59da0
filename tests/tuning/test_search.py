import re

import optuna
import pytest
from optuna.distributions import FloatDistribution

from tts.config import TuningConfig
from tts.errors import UsageError
from tts.tuning.search import pruner, sampler

SPACE = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}


def draws(config, trials, *, restart=None):
    """Parameters of trials of one study; at trial `restart` the process is another one."""
    study = optuna.create_study()
    drawn = []
    for number in range(trials):
        if number == restart:
            optuna.create_study(sampler=sampler(config, 0, SPACE)).ask(SPACE)
        study.sampler = sampler(config, number, SPACE)
        trial = study.ask(SPACE)
        drawn.append(tuple(trial.params.values()))
        study.tell(trial, trial.params["x"])
    return drawn


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_a_study_is_reproduced_by_its_seed_also_when_it_is_taken_up_again(name):
    config = TuningConfig(sampler=name, seed=5)

    assert draws(config, 14) == draws(config, 14, restart=7)
    assert draws(config, 14) != draws(TuningConfig(sampler=name, seed=6), 14)


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_no_trial_draws_what_another_drew(name):
    drawn = draws(TuningConfig(sampler=name), 14)

    assert len(set(drawn)) == 14


@pytest.mark.parametrize("name", ["hyperband", "median"])
def test_a_pruner_that_could_never_judge_is_refused(name):
    config = TuningConfig(pruner=name, steps=10, validation_interval=6, pruner_min_reports=2)

    with pytest.raises(UsageError, match=re.escape(f"tuning.pruner {name} judges a trial first at step 12")):
        pruner(config)
    pruner(config.model_copy(update={"pruner": "none"}))


@pytest.mark.parametrize(("name", "first"), [("hyperband", 4), ("median", 4), ("none", None)])
def test_a_trial_without_prospects_ends_at_the_report_that_the_configuration_names(name, first):
    config = TuningConfig(pruner=name, steps=8, validation_interval=2, pruner_min_reports=2, pruner_reduction_factor=3)
    study = optuna.create_study(pruner=pruner(config))
    for _ in range(6):  # the median of fewer than five trials is not trusted by Optuna
        trial = study.ask(SPACE)
        for step in (2, 4, 6, 8):
            trial.report(1.0, step)
            trial.should_prune()
        study.tell(trial, 1.0)

    trial = study.ask(SPACE)
    ends = None
    for step in (2, 4, 6, 8):
        trial.report(100.0, step)
        if trial.should_prune():
            ends = step
            break

    assert ends == first
