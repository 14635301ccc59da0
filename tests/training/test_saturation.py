"""Shares that follow from weights set by hand, on utterances of different lengths side by side."""

import math

import pytest
import torch

from tts.config.load import override
from tts.data.batches import evaluation_batches
from tts.model.frames import decoder_inputs, step_lengths
from tts.training.saturation import SATURATION_FIELDS, watching
from tts.training.validation import validate

CPU = torch.device("cpu")


@pytest.fixture
def held_out(store, tiny):
    """All in one batch, so that most of them are padded."""
    (batch,) = evaluation_batches(store, store.held_out, override(tiny, {"data.frame_budget": 100_000}).data, tiny.model.reduction_factor)
    assert len(set(batch.mel_lengths_B.tolist())) > 1
    return batch


@pytest.fixture
def learner(new_run, tiny):
    return new_run(override(tiny, {"model.prenet_dropout_at_inference": False}))[0]


def _shares(learner, batches, tiny):
    with watching(learner.model) as saturation:
        validate(learner.model, batches, tiny, 1, CPU)
    return {name.removeprefix("activation_saturation_"): value for name, value in saturation.figures().items()}


def _open(lstm):
    """Every gate fully open and 1 to be added at each step: outputs are tanh(1), tanh(2), tanh(3) and so on, saturated from the third on."""
    with torch.no_grad():
        for name, parameter in lstm.named_parameters():
            parameter.fill_(0 if "weight" in name else 50)


def test_fresh_weights_saturate_nothing_but_kill_some_units(learner, held_out, tiny):
    shares = _shares(learner, [held_out], tiny)
    assert tuple(f"activation_saturation_{name}" for name in shares) == SATURATION_FIELDS
    assert all(shares[place] < 0.05 for place in ("encoder_lstm", "attention_lstm", "decoder_lstm", "postnet"))
    assert shares["prenet"] < 0.5


@pytest.mark.parametrize(("place", "by_symbols"), [("encoder_lstm", True), ("attention_lstm", False), ("decoder_lstm", False)])
def test_lstm_outputs_count_by_true_lengths(learner, held_out, tiny, place, by_symbols):
    model = learner.model
    _open({"encoder_lstm": model.encoder.lstm, "attention_lstm": model.decoder.attention_lstm, "decoder_lstm": model.decoder.decoder_lstm}[place])
    lengths = held_out.symbol_lengths_B if by_symbols else step_lengths(held_out.mel_lengths_B, tiny.model.reduction_factor)
    assert _shares(learner, [held_out], tiny)[place] == pytest.approx(float((lengths - 2).sum() / lengths.sum()))


def test_postnet_counts_true_frames_of_the_layers_with_tanh(learner, held_out, tiny):
    channels = tiny.model.postnet_channels
    with torch.no_grad():
        for block in learner.model.postnet.convolutions:
            block.norm.weight.fill_(0)
            block.norm.bias.fill_(-9)
        learner.model.postnet.convolutions[0].norm.bias[: channels // 4].fill_(0.5)
    layers = tiny.model.postnet_convolutions - 1
    assert _shares(learner, [held_out], tiny)["postnet"] == pytest.approx(1 - 0.25 / layers)


def test_a_unit_of_the_prenet_is_dead_where_no_true_step_wakes_it(learner, held_out, store, tiny):
    model = learner.model
    first, second = model.decoder.prenet.layers
    with torch.no_grad():
        first.weight[:3] = 0
        second.weight[:5] = -second.weight[:5].abs()  # what comes in is not negative
    inputs_BSM = decoder_inputs(model._inward(held_out.mel_BTM), tiny.model.reduction_factor)
    steps_B = step_lengths(held_out.mel_lengths_B, tiny.model.reduction_factor)
    awake = [set(), set()]
    for inputs_SM, steps in zip(inputs_BSM, steps_B.tolist(), strict=True):
        x_SP = inputs_SM[:steps]
        for place, layer in enumerate((first, second)):
            x_SP = (x_SP @ layer.weight.T).relu()
            awake[place] |= {unit for unit in range(tiny.model.prenet) if (x_SP[:, unit] > 0).any()}
    assert awake[0].isdisjoint(range(3))
    assert awake[1].isdisjoint(range(5))
    expected = 1 - (len(awake[0]) + len(awake[1])) / (2 * tiny.model.prenet)
    assert _shares(learner, [held_out], tiny)["prenet"] == pytest.approx(expected)
    alone = evaluation_batches(store, store.held_out, override(tiny, {"data.max_batch_size": 1}).data, tiny.model.reduction_factor)
    assert _shares(learner, alone, tiny)["prenet"] == pytest.approx(expected), "a unit that one utterance wakes lives"


def test_what_is_not_finite_has_no_share_and_nothing_seen_has_none(learner, held_out, tiny):
    with torch.no_grad():
        learner.model.encoder.lstm.weight_ih_l0.fill_(torch.nan)
    shares = _shares(learner, [held_out], tiny)
    assert {place for place, share in shares.items() if math.isnan(share)} == {"encoder_lstm", "attention_lstm", "decoder_lstm", "postnet"}
    with watching(learner.model) as saturation:
        pass
    assert all(math.isnan(share) for share in saturation.figures().values())


def test_no_hook_stays(learner, held_out, tiny):
    _shares(learner, [held_out], tiny)
    assert not any(module._forward_hooks for module in learner.model.modules())
