"""Free-running synthesis: bounded, batched, with a reason for each end."""

import math

import numpy as np
import pytest
import torch

from tts.config import Config
from tts.diagnostics.attention import attention_measures
from tts.evaluation.synthesis import BATCH, Utterance, synthesise
from tts.model.tacotron2 import Tacotron2

CPU = torch.device("cpu")
SENTENCES = [[5, 6, 7, 1], [8, 1], [9, 10, 11, 12, 13, 1]]


@pytest.fixture(scope="module")
def model(tiny: Config) -> Tacotron2:
    torch.manual_seed(0)
    return Tacotron2(tiny.model, symbols=20, mels=tiny.audio.mels).eval()


def speak(model: Tacotron2, sentences: list[list[int]], tiny: Config, **knobs: float) -> list[Utterance]:
    config = tiny.synthesis.model_copy(update=knobs)
    return [utterance for batch in synthesise(model, sentences, config, CPU) for utterance in batch]


def test_a_gate_that_stays_shut_runs_into_the_limit(model: Tacotron2, tiny: Config):
    spoken = speak(model, SENTENCES, tiny, gate_threshold=0.999, max_frames_per_symbol=2.5)
    assert [utterance.stop_reason for utterance in spoken] == ["length limit"] * 3
    assert [len(utterance.mel_TM) for utterance in spoken] == [10, 5, 15]
    for utterance, symbols in zip(spoken, SENTENCES, strict=True):
        steps = math.ceil(len(utterance.mel_TM) / tiny.model.reduction_factor)
        assert utterance.mel_TM.shape[1] == tiny.audio.mels
        assert utterance.gate_T.shape == (len(utterance.mel_TM),)
        assert utterance.alignment_SN.shape == (steps, len(symbols))
        np.testing.assert_allclose(utterance.alignment_SN.sum(1), 1, atol=1e-5)


def test_a_gate_that_opens_ends_the_utterance_at_its_first_open_frame(model: Tacotron2, tiny: Config):
    for utterance in speak(model, SENTENCES, tiny, gate_threshold=0.001):
        assert utterance.stop_reason == "gate"
        assert len(utterance.mel_TM) == 1
        assert utterance.gate_T[-1] > 0.001


def test_monotonic_attention_reads_one_symbol_after_another(model: Tacotron2, tiny: Config):
    for utterance in speak(model, SENTENCES, tiny, gate_threshold=0.999, max_frames_per_symbol=20, monotonic_attention=True):
        places = utterance.alignment_SN.argmax(1)
        assert places[0] == 0
        assert set(np.diff(places)) <= {0, 1}
        assert utterance.attention["skips"] == utterance.attention["repetitions"] == 0


def test_measures_are_those_of_its_alignment(model: Tacotron2, tiny: Config):
    for utterance in speak(model, SENTENCES, tiny, gate_threshold=0.999):
        steps, symbols = utterance.alignment_SN.shape
        expected = attention_measures(torch.from_numpy(utterance.alignment_SN)[None], torch.tensor([symbols]), torch.tensor([steps]))
        # Up to rounding: sums beside padding are made in another order.
        assert utterance.attention == pytest.approx({name: float(value) for name, value in expected.items() if name != "valid"}, rel=1e-5)


def test_what_the_recogniser_makes_of_it_is_measured_where_there_is_one(model: Tacotron2, tiny: Config):
    assert all(utterance.recogniser_error_rate is None for utterance in speak(model, SENTENCES, tiny, max_frames_per_symbol=2.0))
    torch.manual_seed(0)
    listening = Tacotron2(tiny.model.model_copy(update={"recogniser": 9}), symbols=20, mels=tiny.audio.mels).eval()
    with torch.no_grad():  # it hears nothing but sevens
        listening.recogniser.classes.weight.zero_()
        listening.recogniser.classes.bias.copy_(torch.arange(21) == 7)
    rates = [utterance.recogniser_error_rate for utterance in speak(listening, SENTENCES, tiny, max_frames_per_symbol=2.0)]
    assert rates == [2 / 3, 1.0, 1.0]


def test_more_sentences_than_a_batch_come_in_order_and_as_if_alone(model: Tacotron2, tiny: Config):
    many = [[3 + place % 15, 1 + place % 4 + 2, 1] for place in range(BATCH + 2)]
    together = speak(model, many, tiny, gate_threshold=0.999)
    assert len(together) == len(many)
    alone = speak(model, many[-1:], tiny, gate_threshold=0.999)[0]
    np.testing.assert_allclose(together[-1].mel_TM, alone.mel_TM, atol=1e-5)
    assert sum(utterance.seconds for utterance in together) > 0
