import re

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts.config import Condition, Config, Range, TuningConfig, knobs
from tts.config.load import flatten, override
from tts.config.presets import PRESETS
from tts.errors import UsageError
from tts.tuning.search.space import apply, default_params, holds, search_space, suggest

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


RATE, WARMUP, WEIGHT, SIGMA, FACTOR = (
    "optimiser.learning_rate", "optimiser.warmup_steps", "guided_attention.weight", "guided_attention.sigma", "model.reduction_factor",
)  # fmt: skip


def test_a_range_of_the_configuration_replaces_the_knobs_own():
    ranges = [
        Range(knob=RATE, low=1e-3, high=1e-2),
        Range(knob=WARMUP, low=10, high=50, step=20),
        Range(knob=FACTOR, values=(2, 4)),
        Range(knob="losses.mel", values=("mse", "l1")),
        Range(knob="model.prenet", low=16, high=64, log=True),
    ]

    space = space_of([RATE, WARMUP, FACTOR, "losses.mel", "model.prenet", SIGMA], ranges=ranges)

    assert space == {
        RATE: optuna.distributions.FloatDistribution(1e-3, 1e-2),
        WARMUP: optuna.distributions.IntDistribution(10, 50, step=20),
        FACTOR: optuna.distributions.CategoricalDistribution((2, 4)),
        "losses.mel": optuna.distributions.CategoricalDistribution(("mse", "l1")),
        "model.prenet": optuna.distributions.IntDistribution(16, 64, log=True),
        SIGMA: optuna.distributions.FloatDistribution(0.1, 0.5),
    }


@pytest.mark.parametrize(
    ("knob", "entry", "message"),
    [
        (RATE, {"low": 0.1, "high": 2}, "optimiser.learning_rate, 0.1 to 2: 2.0 is outside what the knob allows: > 0 and <= 1"),
        (RATE, {"low": 0, "high": 0.1}, "optimiser.learning_rate, 0 to 0.1: 0.0 is outside what the knob allows: > 0 and <= 1"),
        (RATE, {"values": [1e-3, 5]}, "optimiser.learning_rate, values 0.001, 5: 5 is outside what the knob allows: > 0 and <= 1"),
        (FACTOR, {"low": 1, "high": 11}, "model.reduction_factor, 1 to 11: 11.0 is outside what the knob allows: >= 1 and <= 10"),
        (WARMUP, {"low": 0.5, "high": 10}, "optimiser.warmup_steps, 0.5 to 10: the knob takes whole numbers, got 0.5"),
        (WARMUP, {"low": 0, "high": 10, "step": 2.5}, "optimiser.warmup_steps, 0 to 10: the knob takes whole numbers, step is 2.5"),
        (WARMUP, {"low": 0, "high": 10, "step": 3}, "optimiser.warmup_steps, 0 to 10: 10 is no whole number of steps of 3 from 0"),
        (SIGMA, {"low": 0.1, "high": 0.4, "step": 0.2}, "guided_attention.sigma, 0.1 to 0.4: 0.4 is no whole number of steps of 0.2 from 0.1"),
        (WARMUP, {"values": [1, 1.0]}, "optimiser.warmup_steps, values 1, 1.0: a value stands there more than once"),
        (WARMUP, {"values": [True, 5]}, "optimiser.warmup_steps, values True, 5: True is no whole number"),
        ("losses.mel", {"values": ["mse", "l2"]}, "losses.mel, values 'mse', 'l2': 'l2' is outside what the knob allows: one of mse, l1"),
        ("losses.mel", {"low": 1, "high": 2}, "losses.mel, 1 to 2: this knob is no number: give values"),
        ("model.prenet_dropout_at_inference", {"values": [1, 0]}, "model.prenet_dropout_at_inference, values 1, 0: 1 is no true or false"),
    ],
)
def test_a_range_that_the_knob_does_not_allow_is_refused_with_what_it_allows(knob, entry, message):
    with pytest.raises(UsageError, match=f"^{re.escape(f'tuning.ranges: {message}')}$"):
        space_of([knob], ranges=[Range(knob=knob, **entry)])


def test_a_range_of_a_knob_that_is_not_searched_is_refused():
    with pytest.raises(UsageError, match=re.escape("tuning.ranges: 'model.prenet' is not searched; did you mean model.prenet_dropout?")):
        space_of(["model.prenet_dropout"], ranges=[Range(knob="model.prenet", low=16, high=64)])


@pytest.mark.parametrize("knob", ["audio.mels", "training.steps", "tuning.trials"])
def test_what_a_trial_cannot_be_trained_with_is_not_searched_even_with_a_range(knob):
    with pytest.raises(UsageError, match=f"tuning.knobs: '{knob}' is a knob without a search range"):
        space_of([knob], ranges=[Range(knob=knob, low=10, high=20)])


def test_a_range_end_against_a_rule_between_knobs_is_refused_before_any_trial(tiny):
    config = searching(tiny, ["model.postnet_kernel"], ranges=[{"knob": "model.postnet_kernel", "low": 3, "high": 8}])

    with pytest.raises(UsageError, match=r"tuning\.ranges: model: postnet_kernel must be odd, got 8"):
        default_params(config, search_space(config.tuning))


CONDITIONS = [
    Condition(knob=SIGMA, when=WEIGHT, above=1.0),
    Condition(knob=WEIGHT, when=FACTOR, among=(1, 2)),
    Condition(knob=WARMUP, when=RATE, above=1e-3, below=2e-3),
]


def test_deciders_are_drawn_first_and_others_keep_their_order():
    space = space_of([SIGMA, "losses.gate_weight", WARMUP, WEIGHT, RATE, FACTOR], conditions=CONDITIONS)

    assert list(space) == [FACTOR, WEIGHT, SIGMA, "losses.gate_weight", RATE, WARMUP]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31 - 1), order=st.permutations([SIGMA, WARMUP, WEIGHT, RATE, FACTOR]), keep=st.lists(st.booleans(), min_size=3, max_size=3)
)
def test_a_knob_is_searched_exactly_where_its_condition_and_its_deciders_hold(seed, order, keep):
    tuning = TuningConfig(knobs=tuple(order), conditions=[condition for condition, kept in zip(CONDITIONS, keep, strict=True) if kept])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()

    params = suggest(trial, tuning, search_space(tuning))

    assert trial.params == params
    free = {knob for knob in order if knob not in {condition.knob for condition in tuning.conditions}}
    expected = set(free)
    if keep[1] and params[FACTOR] in (1, 2):
        expected.add(WEIGHT)
    if keep[0] and WEIGHT in expected and params[WEIGHT] > 1.0:
        expected.add(SIGMA)
    if keep[2] and 1e-3 < params[RATE] < 2e-3:
        expected.add(WARMUP)
    assert set(params) == expected
    untouched = flatten(apply(Config(), params))
    assert all(untouched[knob] == flatten(Config())[knob] for knob in set(order) - expected)


def test_the_first_trial_has_the_configurations_values_where_conditions_hold(tiny):
    config = override(searching(tiny, [SIGMA, WEIGHT], conditions=[CONDITIONS[0].model_dump()]), {WEIGHT: 0.5, SIGMA: 0.9})

    # sigma is outside its range, but beside this weight nobody searches it
    assert default_params(config, search_space(config.tuning)) == {WEIGHT: 0.5}
    with pytest.raises(UsageError, match=re.escape("guided_attention.sigma is 0.9, outside its search range (0.1 to 0.5)")):
        default_params(override(config, {WEIGHT: 2.0}), search_space(config.tuning))


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (
            [{"knob": SIGMA, "when": "losses.gate_weigth", "above": 1}],
            f"'{SIGMA}': 'losses.gate_weigth' is not searched; did you mean losses.gate_weight?",
        ),
        ([{"knob": "optimiser.weight_decay", "when": SIGMA, "above": 1}], "'optimiser.weight_decay': 'optimiser.weight_decay' is not searched"),
        ([{"knob": SIGMA, "when": SIGMA, "above": 0.2}], f"{SIGMA} hangs on {SIGMA}; a knob cannot decide over itself"),
        (
            [{"knob": SIGMA, "when": WEIGHT, "above": 1}, {"knob": WEIGHT, "when": SIGMA, "above": 0.2}],
            f"{SIGMA} hangs on {WEIGHT} hangs on {SIGMA}; a knob cannot decide over itself",
        ),
        ([{"knob": SIGMA, "when": WEIGHT, "above": 20}], f"'{SIGMA}': the condition never holds for any value of {WEIGHT} (0.1 to 20, log)"),
        ([{"knob": SIGMA, "when": WEIGHT, "above": 3, "below": 2}], f"'{SIGMA}': the condition never holds for any value"),
        ([{"knob": SIGMA, "when": WEIGHT, "among": [1.0]}], f"'{SIGMA}': among would never be met exactly of {WEIGHT}"),
        ([{"knob": SIGMA, "when": FACTOR, "among": [4]}], f"'{SIGMA}': the condition among has 4, which is no value of {FACTOR} (one of 1, 2, 3, 5)"),
        ([{"knob": SIGMA, "when": FACTOR, "above": 5}], f"'{SIGMA}': the condition never holds for any value of {FACTOR} (one of 1, 2, 3, 5)"),
        ([{"knob": SIGMA, "when": WARMUP, "among": [2000]}], f"'{SIGMA}': the condition among has 2000, which is no value of {WARMUP}"),
        (
            [{"knob": SIGMA, "when": "losses.mel", "above": 1}],
            f"'{SIGMA}': above and below need numbers, not the values of losses.mel (one of mse, l1)",
        ),
    ],
)
def test_a_condition_that_cannot_work_is_refused(conditions, message):
    names = [SIGMA, WEIGHT, FACTOR, WARMUP, "losses.gate_weight", "losses.mel"]

    with pytest.raises(UsageError, match=re.escape(f"tuning.conditions: {message}")):
        space_of(names, conditions=conditions, ranges=[Range(knob="losses.mel", values=("mse", "l1"))])


def test_whole_numbers_at_the_edge_of_a_condition_count():
    tuning = {"knobs": (SIGMA, WARMUP), "conditions": [Condition(knob=SIGMA, when=WARMUP, above=999)]}

    assert list(search_space(TuningConfig(**tuning))) == [WARMUP, SIGMA]
    assert holds(tuning["conditions"][0], {WARMUP: 1000})
    assert not holds(tuning["conditions"][0], {WARMUP: 999})
    assert not holds(tuning["conditions"][0], {})


@pytest.mark.parametrize(
    ("name", "switch", "value"),
    [
        ("double_decoder.weight", "model.coarse_reduction_factor", 6),
        ("mutual_information.gradient_share", "model.recogniser", 256),
        ("model.recogniser_dropout", "model.recogniser", 256),
    ],
)
def test_a_knob_that_would_do_nothing_is_refused_unless_what_it_needs_is_set_or_searched(tiny, name, switch, value):
    config = searching(tiny, [name])
    with pytest.raises(UsageError, match=re.escape(f"{name} does nothing while {switch} is 0; set that, search it too, or leave {name} out")):
        default_params(config, search_space(config.tuning))
    assert name in default_params(override(config, {switch: value}), search_space(config.tuning))
    both = searching(tiny, [name, switch])
    assert default_params(both, search_space(both.tuning))[switch] == 0
