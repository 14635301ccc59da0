"""Configuration in and out of files, overrides, and what errors say."""

import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tts.config import Choices, Config, Knob, Search, knobs
from tts.config.knob import UNWRITABLE
from tts.config.load import flatten, from_mapping, merge, override, preset, read_config, to_json
from tts.config.presets import PRESETS
from tts.errors import UsageError

KNOBS = list(knobs(Config))


def _values(knob: Knob) -> st.SearchStrategy[Any]:
    """Values inside a knob's search range, or its default."""
    if isinstance(knob.search, Choices):
        return st.sampled_from(knob.search.values)
    if isinstance(knob.search, Search):
        if knob.type is int:
            return st.integers(int(knob.search.low), int(knob.search.high))
        return st.floats(knob.search.low, knob.search.high)
    return st.just(knob.default)


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    base = PRESETS[draw(st.sampled_from(sorted(PRESETS)))]()
    searched = [knob for knob in KNOBS if knob.search]
    chosen = draw(st.lists(st.sampled_from(searched), unique_by=lambda knob: knob.path))
    return override(base, {knob.path: draw(_values(knob)) for knob in chosen})


@given(configurations())
def test_json_round_trip(config):
    assert from_mapping(json.loads(to_json(config)), "test") == config


@given(config=configurations())
def test_yaml_round_trip(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert read_config(path) == config


@given(configurations())
def test_flat_names_hold_everything(config):
    assert override(Config(), flatten(config)) == config


@given(configurations())
def test_texts_of_a_command_line_mean_the_same(config):
    texts = {name: str(value) for name, value in flatten(config).items() if not isinstance(value, list)}
    lists = {name: value for name, value in flatten(config).items() if isinstance(value, list)}
    assert override(Config(), {**texts, **lists}) == config


def test_every_knob_has_a_description_and_a_legal_default():
    assert [knob.path for knob in KNOBS if len(knob.description) < 8] == []
    assert from_mapping({}, "test") == Config()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_defaults_of_searched_knobs_lie_in_their_range(name):
    values = flatten(PRESETS[name]())
    for path in PRESETS[name]().tuning.knobs:
        search = next(knob.search for knob in KNOBS if knob.path == path)
        if isinstance(search, Search):
            assert search.low <= values[path] <= search.high, path
        else:
            assert isinstance(search, Choices)
            assert values[path] in search.values


def test_a_file_changes_what_it_names(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("training:\n  steps: 20\n")
    base = PRESETS["demo"]()
    changed = read_config(path, base)
    assert changed.training.steps == 20
    assert flatten(changed) | {"training.steps": base.training.steps} == flatten(base)


def test_merge_goes_into_sections():
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}}) == {"a": {"b": 1, "c": 4}, "d": 3}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training.stepz": 1}, "'training.stepz' is not a knob; did you mean training.steps?"),
        ({"training.steps": 0}, "training.steps: Input should be greater than or equal to 1, got 0"),
        ({"training.steps": "many"}, "training.steps: Input should be a valid integer, unable to parse string as an integer, got 'many'"),
        ({"training.precision": "fp8"}, "training.precision: Input should be 'fp32', 'bf16' or 'fp16', got 'fp8'"),
        ({"tuning.sampler": "tpee"}, "'random' or 'nsgaii', got 'tpee'; did you mean tpe?"),
        ({"tuning.pruner": "halving"}, "got 'halving'; did you mean successive_halving?"),
        ({"tuning.pruner": "xyz"}, "or 'none', got 'xyz'"),
        ({"optimiser.learning_rate": math.nan}, "optimiser.learning_rate: Input should be a finite number, got nan"),
        ({"model.encoder_kernel": 4}, "encoder_kernel must be odd, got 4"),
        (
            {"model.reduction_factor": 3, "model.initial_reduction_factor": 2},
            "initial_reduction_factor must be at least reduction_factor (3), to which it falls, or 0 for no schedule; got 2",
        ),
        ({"model.filter_length": 20}, "filter_length must be odd, got 20"),
        ({"model.prior_length": 1}, "model.prior_length: Input should be greater than or equal to 2, got 1"),
        ({"model.attention_mechanism": "forwards"}, "'location', 'dynamic_convolution' or 'forward', got 'forwards'; did you mean forward?"),
        ({"model.style_width": 20}, "style_width must be a multiple of style_heads (8), got 20"),
        ({"audio.max_hz": 20000.0}, "max_hz must lie between min_hz (0.0) and half of sample_rate (11025.0), got 20000.0"),
        ({"tuning.knobs": ["a.b", "a.b"]}, "knobs names a.b more than once"),
        ({"quality.max_seconds": 0.1}, "max_seconds must exceed min_seconds (0.4), got 0.1"),
        ({"training.steps": True}, "training.steps: must be a number, got true"),
        ({"tracking.uri": "\x85"}, "tracking.uri: must not hold control characters, got U+0085"),
        ({"cluster.node_selector": ["zone=a\u2028"]}, "cluster.node_selector: must not hold control characters, got U+2028"),
        ({"optimiser.learning_rate": False}, "optimiser.learning_rate: must be a number, got false"),
        ({"zzz.yyy": 1}, "'zzz.yyy' is not a knob; sections are text, audio, quality"),
    ],
)
def test_errors_name_field_value_and_what_is_allowed(values, message):
    with pytest.raises(UsageError) as error:
        override(Config(), values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 64


@given(st.text(st.characters(exclude_categories=UNWRITABLE), min_size=1))
def test_a_text_that_is_taken_can_be_read_back(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "config.json"
    config = override(Config(), {"tracking.experiment": text})

    path.write_text(to_json(config), encoding="utf-8")

    assert read_config(path) == config


def test_several_errors_come_at_once():
    with pytest.raises(UsageError, match=r"training\.steps: .*; optimiser\.beta1: |optimiser\.beta1: .*; training\.steps: "):
        override(Config(), {"training.steps": 0, "optimiser.beta1": 1.0})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "must hold sections such as 'training:', got list"),
        (b"training: [1, 2\n", "cannot be read"),
        (b"\xff\xfe\x00bad", "cannot be read"),
        (b"training:\n  stepz: 3\n", "'training.stepz' is not a knob; did you mean training.steps?"),
        (b"traning:\n  steps: 3\n", "'traning' is not a knob; did you mean"),
        (b"training: 3\n", "training: Input should be"),
        (b"training:\n  steps: 3\n  steps: 4\n", "'steps' stands more than once, again in line 3"),
        (b"training:\n  steps: 3\ntraining:\n  seed: 4\n", "'training' stands more than once, again in line 3"),
        (b'{"training": {"steps": 3, "steps": 4}}', "'steps' stands more than once"),
        (b"training:\n  steps: yes\n", "training.steps: must be a number, got true"),
        (b"? [a, b]\n: 3\n", "cannot be read"),
        (b"traning:\n", "'traning' is not a knob; did you mean"),
        (b"training:\n  steps:\n", "training.steps: Input should be a valid integer, got None"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, content, message):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        read_config(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_an_unknown_preset(tmp_path):
    with pytest.raises(UsageError, match=r"no\.yaml does not exist"):
        read_config(tmp_path / "no.yaml")
    with pytest.raises(UsageError, match="preset 'tiny' is not known; choose one of tacotron2, full, small, demo"):
        preset("tiny")


def test_an_empty_file_changes_nothing(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert read_config(tmp_path / "empty.yaml", PRESETS["small"]()) == PRESETS["small"]()


@pytest.mark.parametrize("base", [None, PRESETS["small"]()])
def test_an_empty_section_changes_nothing(tmp_path, base):
    (tmp_path / "some.yaml").write_text("training:\n#  steps: 20\nmodel:\n  prenet: 64\n")
    assert read_config(tmp_path / "some.yaml", base) == override(base or Config(), {"model.prenet": 64})


def test_a_configuration_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().training.steps = 3
