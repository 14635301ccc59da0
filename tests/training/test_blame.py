"""Whose a value is that is not finite."""

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tts.config.load import override
from tts.losses.total import total_loss
from tts.model.frames import step_lengths
from tts.model.packing import packing
from tts.model.row import row
from tts.training.anomaly import NORM
from tts.training.blame import TOLD_APART, _share, can_tell_apart, owners, rows_not_finite
from tts.training.randomness import reseed
from tts.training.ranks import ALONE
from tts.training.step import train_step

COARSE = {"model.coarse_reduction_factor": 7, "double_decoder.consistency": "attention"}


def _output(learner, batch, config):
    reseed(config.training.seed, 1)
    learner.model.train()
    return learner.model(batch.symbols_BN, batch.symbol_lengths_B, batch.mel_BTM, batch.mel_lengths_B, batch.speakers_B)


@pytest.mark.parametrize("knobs", [{}, COARSE])
def test_the_shares_of_the_utterances_add_up_to_the_gradient_and_to_the_loss(new_run, tiny, knobs):
    """The oracle of the attribution: what is given to the utterances is all that there is, and each has something of it."""
    config = override(tiny, knobs)
    learner, batch = new_run(config)
    learner.model.double()
    batch = dataclasses.replace(batch, mel_BTM=batch.mel_BTM.double())
    output = _output(learner, batch, config)

    def losses(part_of_output, part):
        return total_loss(part_of_output, part, config, 1)

    shares = [_share(output, batch, row, losses) for row in range(len(batch.ids))]
    whole = losses(output, batch)
    for name, term in whole.terms.items():
        torch.testing.assert_close(sum(share.terms[name] for share in shares), term, rtol=1e-12, atol=1e-12)
    parameters = list(learner.model.parameters())
    added = [torch.zeros_like(parameter) for parameter in parameters]
    for share in shares:
        gradients = torch.autograd.grad(share.total, parameters, retain_graph=True)
        added = [total + gradient for total, gradient in zip(added, gradients, strict=True)]
    for ours, theirs in zip(added, torch.autograd.grad(whole.total, parameters), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_an_utterance_whose_squares_overflow_is_named_alone(new_run, tiny):
    learner, batch = new_run(tiny)
    mel_BTM = batch.mel_BTM.clone()
    mel_BTM[1, 4, 7] = 1e25
    result = train_step(learner, dataclasses.replace(batch, mel_BTM=mel_BTM), tiny, 1)
    assert result.anomaly is not None
    assert (result.anomaly.kind, result.anomaly.name, result.anomaly.value) == ("loss", "mel_before", "inf")
    assert result.anomaly.utterances == (batch.ids[1],)


def test_a_sum_that_overflows_without_any_single_utterance_is_everybodys(new_run, tiny):
    learner, batch = new_run(tiny)
    rows = len(batch.ids)
    mel_BTM = batch.mel_BTM.clone()
    mel_BTM[:, 0, 0] = (3.0e38 / (rows - 1)) ** 0.5
    result = train_step(learner, dataclasses.replace(batch, mel_BTM=mel_BTM), tiny, 1)
    assert result.anomaly is not None
    assert result.anomaly.utterances == batch.ids


def test_an_utterance_whose_gradient_overflows_is_named_alone(new_run, tiny):
    """In the postnet; on the way to the parameters before it the sums mix it with the others'."""
    learner, batch = new_run(tiny)

    laid = row(batch.mel_lengths_B, learner.model.postnet.reach)
    own = laid.place_Z[laid.utterance_Z == 1]

    def overflow(gradient_1CL):
        rest_1CL = gradient_1CL.clone()
        rest_1CL[:, :, own] = gradient_1CL[:, :, own] * 1e38 * 1e38
        return rest_1CL

    learner.model.postnet.convolutions[0].norm.register_forward_hook(lambda _module, _inputs, output: output.register_hook(overflow) and None)
    result = train_step(learner, batch, tiny, 1)
    assert result.anomaly is not None
    assert result.anomaly.kind == "gradient"
    assert result.anomaly.name.startswith("postnet.convolutions.0.norm")
    assert result.anomaly.utterances == (batch.ids[1],)


def test_an_utterance_whose_gradients_norm_overflows_is_named_alone(new_run, tiny):
    """Every gradient is finite, but not their squares: a recording that is far off, in bands that vary a lot."""
    learner, batch = new_run(tiny)
    learner.model.mel_deviation_M.fill_(1e9)
    mel_BTM = batch.mel_BTM.clone()
    mel_BTM[2, 1, 3] = 1e19
    result = train_step(learner, dataclasses.replace(batch, mel_BTM=mel_BTM), tiny, 1)
    assert result.anomaly is not None
    assert (result.anomaly.kind, result.anomaly.name, result.anomaly.value) == ("gradient", NORM, "inf")
    assert result.anomaly.utterances == (batch.ids[2],)


@pytest.mark.parametrize("stack", ["encoder", "postnet"])
def test_whose_a_position_is_within_convolutions_can_be_told(new_run, tiny, stack):
    learner, batch = new_run(tiny)
    lengths_B = batch.symbol_lengths_B if stack == "encoder" else batch.mel_lengths_B
    laid = row(lengths_B, getattr(learner.model, stack).reach)
    for number, identity in enumerate(batch.ids):
        values_BTC = torch.zeros(len(batch.ids), int(lengths_B.max()), 3)
        values_BTC[number, int(lengths_B[number]) - 1, 2] = torch.nan
        assert rows_not_finite(laid.join(values_BTC), batch, learner.model) == [identity]
    assert rows_not_finite(torch.zeros(1, 3, laid.valid_11L.shape[2] + 1), batch, learner.model) is None


def test_whose_a_gradient_is_can_be_told_where_every_rank_has_an_utterance_and_there_are_few(new_run, tiny):
    _, batch = new_run(tiny)
    many = dataclasses.replace(batch, ids=tuple(f"clip-{number}" for number in range(TOLD_APART + 1)))
    assert can_tell_apart(batch, ALONE)
    assert not can_tell_apart(many, ALONE)


class _Waits(TorchDispatchMode):
    """Counts where a program reads a number of a tensor: on a GPU each is a wait for the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_a_healthy_step_waits_equally_often_however_many_parameters_there_are(new_run, tiny):
    counts = []
    for layers in (3, 8):
        config = override(tiny, {"model.postnet_convolutions": layers, "model.encoder_convolutions": layers})
        learner, batch = new_run(config)
        with _Waits() as waits:
            result = train_step(learner, batch, config, 1, keep_evidence=True)
        assert result.anomaly is None
        assert result.evidence is None
        counts.append(waits.count)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("reduction_factor", [1, 3, 5])
def test_rows_of_the_decoders_steps_are_their_utterances(new_run, tiny, reduction_factor):
    learner, batch = new_run(override(tiny, {"model.reduction_factor": reduction_factor}))
    steps_B = step_lengths(batch.mel_lengths_B, reduction_factor)
    steps = int(steps_B.max()) + 2
    numbers_BS = torch.arange(len(batch.ids))[:, None].expand(-1, steps)
    packed_Z = packing(steps_B, steps).pack(numbers_BS)
    assert owners(len(packed_Z), batch, learner.model) == packed_Z.tolist()
    assert owners(len(batch.ids), batch, learner.model) == list(range(len(batch.ids)))
    assert owners(len(packed_Z) + 1, batch, learner.model) is None
