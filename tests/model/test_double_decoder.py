"""The network with its coarse decoder, which only training has."""

import pytest
import torch

from tests.model.sizes import MELS, SYMBOLS, WITHOUT_DROPOUT, model_config, teacher_forced, three_utterances
from tests.model.textbook import decode, until_the_end
from tts.config import Config
from tts.data.batch import Batch
from tts.losses.total import total_loss
from tts.model.tacotron2 import Tacotron2

OUTPUTS = ("mel_BTM", "gate_logits_BT", "alignment_BSN")


def network(factor: int, coarse: int, **knobs) -> Tacotron2:
    torch.manual_seed(0)
    config = model_config(**(WITHOUT_DROPOUT | knobs), reduction_factor=factor, coarse_reduction_factor=coarse)
    model = Tacotron2(config, symbols=SYMBOLS, mels=MELS).double()
    model.normalise_by(torch.linspace(-6, -4, MELS), torch.linspace(1, 2, MELS))
    return model


def batch() -> Batch:
    return three_utterances(10, 13, 1)


def gradients(model: Tacotron2, factor: int, coarse: int, **double_decoder):
    model_knobs = {"reduction_factor": factor, "coarse_reduction_factor": coarse}
    config = Config.model_validate({"model": model_knobs, "double_decoder": double_decoder})
    model.zero_grad()
    total_loss(teacher_forced(model, batch()), batch(), config, step=0).total.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("factor", "coarse"), [(1, 6), (2, 6), (3, 7), (5, 8)])
def test_both_decoders_equal_the_textbook_with_every_gradient(factor, coarse):
    model = network(factor, coarse).eval()
    one = batch()
    output = teacher_forced(model, one)
    memory_BNE = model.encoder(one.symbols_BN, one.symbol_lengths_B)
    inward_BTM = model._inward(one.mel_BTM)
    for decoder, ours in ((model.decoder, output), (model.coarse_decoder, output.coarse)):
        plain = until_the_end(decode(decoder, memory_BNE, one.symbol_lengths_B, inward_BTM), batch().mel_lengths_B)
        for name in OUTPUTS:
            expected = model._outward(plain.mel_BTM) if name == "mel_BTM" else getattr(plain, name)
            torch.testing.assert_close(getattr(ours, name), expected, rtol=0, atol=1e-10)
        assert ours.alignment_BSN.shape[1] == -(-13 // decoder.reduction_factor)
        parameters = [*decoder.parameters(), model.encoder.embedding.weight]
        mine = torch.autograd.grad(sum(getattr(ours, name).square().sum() for name in OUTPUTS), parameters, retain_graph=True)
        theirs = torch.autograd.grad(
            sum((model._outward(plain.mel_BTM) if name == "mel_BTM" else getattr(plain, name)).square().sum() for name in OUTPUTS),
            parameters,
            retain_graph=True,
        )
        for one_gradient, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one_gradient, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("consistency", ["attention", "mel"])
@pytest.mark.parametrize(("factor", "coarse"), [(1, 2), (2, 6), (3, 7), (5, 6)])
def test_every_parameter_gets_a_gradient(factor, coarse, consistency):
    found = gradients(network(factor, coarse).train(), factor, coarse, consistency=consistency)
    assert any(name.startswith("coarse_decoder.") for name in found)
    assert [name for name, gradient in found.items() if gradient is None or gradient.abs().max() < 1e-12] == []


def test_of_the_coarse_decoder_only_its_attention_is_compared():
    """Its projections learn from its own losses alone; the attention of both feels the consistency."""
    plain, drawn = (gradients(network(2, 6).train(), 2, 6, weight=weight) for weight in (0.0, 1.0))
    same = {name for name in plain if torch.equal(plain[name], drawn[name])}
    projections = {f"coarse_decoder.{layer}.{kind}" for layer in ("mel", "gate") for kind in ("weight", "bias")}
    assert projections <= same
    for name in ("decoder.attention.query.weight", "coarse_decoder.attention.query.weight", "encoder.embedding.weight"):
        assert name not in same


def test_the_form_on_mels_teaches_the_decoder_that_speaks_only():
    plain, drawn = (gradients(network(2, 6).train(), 2, 6, consistency="mel", weight=weight) for weight in (0.0, 1.0))
    for name in plain:
        assert torch.equal(plain[name], drawn[name]) == name.startswith(("coarse_decoder.", "decoder.gate.")), name


def test_the_postnet_sees_nothing_of_the_coarse_mel():
    model, twin = network(2, 6).train(), network(2, 6).train()
    with torch.no_grad():
        twin.coarse_decoder.mel.weight.mul_(100)
    one, other = teacher_forced(model, batch()), teacher_forced(twin, batch())
    assert not torch.equal(one.coarse.mel_BTM, other.coarse.mel_BTM)
    assert torch.equal(one.mel_post_BTM, other.mel_post_BTM)
    for ours, theirs in zip(model.postnet.buffers(), twin.postnet.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_synthesis_has_no_coarse_decoder():
    model = network(2, 6).eval()
    spoken = []
    for _ in range(2):
        one = batch()
        spoken.append(model.synthesise(one.symbols_BN, one.symbol_lengths_B, max_frames_B=torch.full((3,), 9), gate_threshold=0.9, seed=0))
        for parameter in model.coarse_decoder.parameters():
            torch.nn.init.constant_(parameter, torch.nan)
    assert torch.equal(spoken[0].mel_BTM, spoken[1].mel_BTM)


def test_each_utterance_alone_equals_its_row_of_the_batch():
    model, one = network(3, 7).eval(), batch()
    together = teacher_forced(model, one).coarse
    for row in range(3):
        symbols, frames = int(batch().symbol_lengths_B[row]), int(batch().mel_lengths_B[row])
        place = slice(row, row + 1)
        alone = model(
            one.symbols_BN[place, :symbols], batch().symbol_lengths_B[place], one.mel_BTM[place, :frames], batch().mel_lengths_B[place]
        ).coarse
        for name, size in (("mel_BTM", frames), ("gate_logits_BT", frames), ("alignment_BSN", -(-frames // 7))):
            its = getattr(alone, name)[0, :size]
            torch.testing.assert_close(getattr(together, name)[row, :size][..., : its.shape[-1]], its, rtol=0, atol=1e-10)


@pytest.mark.parametrize("coarse", [1, 3])
def test_a_coarse_decoder_must_be_coarser(coarse):
    with pytest.raises(ValueError, match=rf"must exceed that of every step \(3\), or be 0 for no second decoder; got {coarse}"):
        model_config(reduction_factor=3, coarse_reduction_factor=coarse)
