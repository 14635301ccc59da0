import re

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts.config import Config, TuningConfig, knobs
from tts.config.load import flatten, override
from tts.config.presets import PRESETS
from tts.errors import UsageError
from tts.tuning.space import apply, default_params, holds, search_space, suggest

SEARCHABLE = [knob.path for knob in knobs(Config) if knob.search]


def space_of(names, **knobs):
    return search_space(TuningConfig(knobs=tuple(names), **knobs))


def searching(config, names, **knobs):
    return override(config, {"tuning.knobs": names, **{f"tuning.{name}": value for name, value in knobs.items()}})


@pytest.mark.parametrize("name", PRESETS)
def test_every_searchable_default_of_every_preset_lies_in_its_range(name):
    config = searching(PRESETS[name](), SEARCHABLE)

    values = default_params(config, space_of(SEARCHABLE))

    assert values == {path: flatten(config)[path] for path in SEARCHABLE}
    assert set(PRESETS[name]().tuning.knobs) <= set(SEARCHABLE)


def test_distributions_have_the_kind_range_and_scale_of_the_knob():
    space = space_of(["optimiser.learning_rate", "optimiser.warmup_steps", "model.prenet_dropout", "model.reduction_factor"])

    assert space == {
        "optimiser.learning_rate": optuna.distributions.FloatDistribution(1e-4, 4e-3, log=True),
        "optimiser.warmup_steps": optuna.distributions.IntDistribution(1, 1000, log=True),
        "model.prenet_dropout": optuna.distributions.FloatDistribution(0.1, 0.7),
        "model.reduction_factor": optuna.distributions.CategoricalDistribution((1, 2, 3, 5)),
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("optimiser.learning_rat", "'optimiser.learning_rat' is not a knob; did you mean optimiser.learning_rate?"),
        ("model.postnet_kernel", "'model.postnet_kernel' is a knob without a search range; did you mean model.postnet_dropout?"),
        ("zzz", "'zzz' is not a knob; searchable are "),
    ],
)
def test_a_name_that_cannot_be_searched_is_refused_with_the_nearest_that_can(name, message):
    with pytest.raises(UsageError, match=re.escape(f"tuning.knobs: {message}")):
        space_of(["losses.gate_weight", name])


def test_a_value_outside_its_range_is_refused(tiny):
    config = override(searching(tiny, ["optimiser.warmup_steps"]), {"optimiser.warmup_steps": 5000})

    with pytest.raises(UsageError, match=re.escape("optimiser.warmup_steps is 5000, outside its search range (1 to 1000, log)")):
        default_params(config, space_of(["optimiser.warmup_steps"]))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31 - 1))
def test_whatever_is_drawn_is_a_configuration_with_these_values(seed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    params = study.ask(space_of(SEARCHABLE)).params

    config = apply(Config(), params)

    assert {path: flatten(config)[path] for path in SEARCHABLE} == params
    untouched = {path: value for path, value in flatten(config).items() if path not in SEARCHABLE}
    assert untouched == {path: value for path, value in flatten(Config()).items() if path not in SEARCHABLE}


def test_a_value_against_the_rules_of_the_configuration_is_refused(tiny):
    with pytest.raises(UsageError, match=re.escape("trial: model.prenet_dropout")):
        apply(tiny, {"model.prenet_dropout": 1.5})
