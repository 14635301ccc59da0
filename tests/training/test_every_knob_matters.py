"""Every knob of the network and its fitting changes what training gives, the searched ones between the ends of their range.

The predecessor searched eleven knobs, six of which did nothing.
"""

import json
from functools import cache

import pytest

from tts.config import OBJECTIVES, Choices, Config, Search, knobs
from tts.config.load import override
from tts.data.store import FeatureStore
from tts.progress import Silent
from tts.training.loop import train
from tts.training.metrics_log import WALL_CLOCK_FIELDS
from tts.training.preemption import StopFlag

BASE = {"training.steps": 3, "training.validation_interval": 100, "training.checkpoint_interval": 100}

SEARCHED = {knob.path: knob.search for knob in knobs(Config) if knob.search}

DYNAMIC = {"model.attention_mechanism": "dynamic_convolution"}
DECAYING = {"optimiser.decay_start": 0, "optimiser.warmup_steps": 0, "optimiser.decay_half_life": 2}
FADING = {"guided_attention.hold_steps": 0, "guided_attention.decay_steps": 4}

# What must be set for a searched knob to have a say.
DOUBLE = {"model.coarse_reduction_factor": 7}
HEARD = {"model.recogniser": 8}
NEEDED = {
    "model.recogniser_dropout": HEARD,
    "mutual_information.weight": HEARD,
    "mutual_information.gradient_share": HEARD | {"mutual_information.weight": 100.0},  # so much that it is bounded
    "double_decoder.consistency": DOUBLE,
    "double_decoder.weight": DOUBLE,
    "double_decoder.coarse_weight": DOUBLE,
}

STYLE = {"model.style_tokens": 3, "model.style_heads": 2, "model.style_width": 8}

# Knob: another value than the base's, and what else must be set for it to have a say.
OTHERS = {
    "model.symbol_embedding": (20, {}),
    "model.encoder_convolutions": (1, {}),
    "model.encoder_kernel": (3, {}),
    "model.encoder_lstm": (12, {}),
    "model.attention": (12, {}),
    "model.attention_mechanism": ("forward", {}),
    "model.location_filters": (6, {}),
    "model.location_kernel": (5, {}),
    "model.static_filters": (4, DYNAMIC),
    "model.dynamic_filters": (4, DYNAMIC),
    "model.filter_length": (7, DYNAMIC),
    "model.prior_length": (5, DYNAMIC),
    "model.attention_lstm": (20, {}),
    "model.prenet": (16, {}),
    "model.prenet_dropout_at_inference": (False, {}),
    "model.decoder_lstm": (20, {}),
    "model.initial_reduction_factor": (7, {}),
    "model.style_tokens": (4, STYLE),
    "model.style_heads": (4, STYLE),
    "model.style_width": (12, STYLE),
    "model.postnet_convolutions": (2, {}),
    "model.postnet_channels": (12, {}),
    "model.postnet_kernel": (3, {}),
    "losses.mel": ("l1", {}),
    "guided_attention.hold_steps": (1, FADING),
    "guided_attention.decay_steps": (8, FADING),
    "guided_attention.final_share": (0.9, FADING),
    "optimiser.decay_start": (2, DECAYING),
    "optimiser.decay_half_life": (1, DECAYING),
    "optimiser.minimum_learning_rate": (0.0019, DECAYING),
    "optimiser.beta1": (0.5, {}),
    "optimiser.beta2": (0.9, {}),
    "optimiser.epsilon": (1e-2, {}),
    "data.max_batch_size": (2, {}),
    "training.seed": (1, {}),
    "training.reduction_interval": (1, {"model.initial_reduction_factor": 7}),
}

# The same, where several people speak.
VOICES = {"model.speaker_embedding": (4, {})}


@pytest.fixture(scope="module")
def outcome(store, voices_features, tiny, tmp_path_factory):
    """What training measures in a few steps and on the held-out clips after them, by the values of knobs."""

    @cache
    def measure(changes, *, voices):
        run = tmp_path_factory.mktemp("knob") / "run"
        features = FeatureStore.open(voices_features) if voices else store
        list(train(features, override(tiny, BASE | dict(changes)), run, progress=Silent(), stop=StopFlag()))
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [{name: value for name, value in line.items() if name not in WALL_CLOCK_FIELDS} for line in lines]

    return lambda changes, voices=False: measure(tuple(sorted(changes.items())), voices=voices)


def _ends(search):
    if isinstance(search, Choices):
        return search.values[0], search.values[-1]
    assert isinstance(search, Search)
    return search.low, search.high


def test_without_a_change_the_outcome_is_the_same(outcome, store, tiny, tmp_path):
    list(train(store, override(tiny, BASE), tmp_path / "run", progress=Silent(), stop=StopFlag()))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [{name: value for name, value in line.items() if name not in WALL_CLOCK_FIELDS} for line in lines] == outcome({})


@pytest.mark.parametrize("path", SEARCHED)
def test_a_searched_knob_changes_the_outcome(outcome, path):
    low, high = _ends(SEARCHED[path])
    kind = next(knob.type for knob in knobs(Config) if knob.path == path)
    low, high = (int(low), int(high)) if kind is int else (low, high)
    needed = NEEDED.get(path, {})
    assert outcome(needed | {path: low}) != outcome(needed | {path: high})


@pytest.mark.parametrize("path", OTHERS)
def test_any_other_knob_of_network_and_fitting_changes_the_outcome(outcome, path):
    value, context = OTHERS[path]
    assert outcome(context) != outcome(context | {path: value})


@pytest.mark.parametrize("path", VOICES)
def test_a_knob_for_several_voices_changes_the_outcome(outcome, path):
    value, context = VOICES[path]
    assert outcome(context, voices=True) != outcome(context | {path: value}, voices=True)


def test_no_knob_of_network_and_fitting_is_left_out():
    fitting = {knob.path for knob in knobs(Config) if knob.path.split(".")[0] in ("model", *OBJECTIVES, "optimiser")}
    assert fitting - SEARCHED.keys() - OTHERS.keys() - VOICES.keys() == set()
    assert SEARCHED.keys() & OTHERS.keys() == set()
