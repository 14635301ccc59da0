"""Speakers, styles, a coarse decoder, a recogniser and a falling reduction factor in one network."""

import pytest
import torch

from tests.model.sizes import MELS, SYMBOLS, WITHOUT_DROPOUT, model_config
from tts.config import Config
from tts.data.batch import Batch, length_mask
from tts.losses.total import total_loss
from tts.model.tacotron2 import Tacotron2

KNOBS = {
    "speaker_embedding": 4,
    "style_tokens": 3,
    "style_heads": 2,
    "style_width": 8,
    "reduction_factor": 2,
    "initial_reduction_factor": 3,
    "coarse_reduction_factor": 5,
    "recogniser": 13,
    "recogniser_dropout": 0.0,
}


def network(**knobs) -> Tacotron2:
    torch.manual_seed(0)
    model = Tacotron2(model_config(**(WITHOUT_DROPOUT | KNOBS | knobs)), symbols=SYMBOLS, mels=MELS, speakers=3).double()
    model.normalise_by(torch.linspace(-6, -4, MELS), torch.linspace(1, 2, MELS))
    model.recogniser.listen_for(tuple(range(2, SYMBOLS)))
    return model


def batch() -> Batch:
    """The longest has more frames than a step of the style tokens' reference encoder."""
    generator = torch.Generator().manual_seed(0)
    symbol_lengths_B, mel_lengths_B = torch.tensor([3, 6, 1]), torch.tensor([19, 70, 7])
    symbols_BN = torch.randint(2, SYMBOLS, (3, 6), generator=generator) * length_mask(symbol_lengths_B, 6)
    mel_BTM = torch.randn(3, 70, MELS, generator=generator).double() * length_mask(mel_lengths_B, 70)[:, :, None]
    return Batch(("a", "b", "c"), symbols_BN, symbol_lengths_B, mel_BTM, mel_lengths_B, speakers_B=torch.tensor([2, 0, 1]))


def output_of(model: Tacotron2, one: Batch):
    return model(one.symbols_BN, one.symbol_lengths_B, one.mel_BTM, one.mel_lengths_B, one.speakers_B)


@pytest.mark.parametrize("now", [3, 2])
def test_every_parameter_in_use_gets_a_gradient(now):
    model, config = network(), Config.model_validate({"model": KNOBS})
    model.reduce_by(now)
    total_loss(output_of(model, batch()), batch(), config, step=0).total.backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    assert without == (set() if now == 3 else {f"decoder.early_{kind}.0.{part}" for kind in ("mel", "gate") for part in ("weight", "bias")})


@torch.no_grad()
def test_an_utterance_gives_the_same_alone_and_beside_others():
    model, one = network(prenet_dropout_at_inference=False).eval(), batch()
    together = output_of(model, one)
    for row in range(3):
        here, symbols, frames = slice(row, row + 1), int(one.symbol_lengths_B[row]), int(one.mel_lengths_B[row])
        lengths = one.symbol_lengths_B[here], one.mel_BTM[here, :frames], one.mel_lengths_B[here], one.speakers_B[here]
        alone = model(one.symbols_BN[here, :symbols], *lengths)
        for ours, theirs in ((together, alone), (together.coarse, alone.coarse)):
            torch.testing.assert_close(ours.mel_BTM[here, :frames], theirs.mel_BTM[:, :frames], rtol=0, atol=1e-10)
        torch.testing.assert_close(together.style_BHK[here], alone.style_BHK, rtol=0, atol=1e-10)
        steps = alone.recognition.logits_BSC.shape[1]
        torch.testing.assert_close(together.recognition.logits_BSC[here, :steps], alone.recognition.logits_BSC, rtol=0, atol=1e-10)


def test_who_speaks_and_how_are_heard_by_both_decoders_and_the_recogniser():
    model, one = network(prenet_dropout_at_inference=False).eval(), batch()
    spoken = [
        model.synthesise(one.symbols_BN, one.symbol_lengths_B, torch.full((3,), who), max_frames_B=torch.full((3,), 9), gate_threshold=1.0)
        for who in (0, 1)
    ]
    assert not torch.equal(spoken[0].mel_BTM, spoken[1].mel_BTM)
    assert not torch.equal(spoken[0].recognition.logits_BSC, spoken[1].recognition.logits_BSC)
    output = output_of(model, one)
    for part in (output.mel_BTM, output.coarse.mel_BTM, output.recognition.logits_BSC):
        learnt = model.speaker.table.weight, model.style.tokens
        assert all(gradient.any() for gradient in torch.autograd.grad(part.square().sum(), learnt, retain_graph=True))
