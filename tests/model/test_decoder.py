import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model import textbook
from tests.model.sizes import MECHANISMS, MELS, WITHOUT_DROPOUT, model_config
from tts.data.batch import length_mask
from tts.model.decoder import Decoder, DecoderOutput
from tts.model.frames import step_lengths
from tts.model.packing import packing


def scalar(output: DecoderOutput) -> torch.Tensor:
    """A loss on all three outputs, each cell with a weight of its own."""
    parts = []
    for tensor in (output.mel_BTM, output.gate_logits_BT, output.alignment_BSN):
        generator = torch.Generator().manual_seed(tensor.numel())
        parts.append((tensor * torch.rand(tensor.shape, generator=generator).to(tensor)).square().sum())
    return torch.stack(parts).sum()


def assert_same(decoder: Decoder, memory_BNE: torch.Tensor, ours: DecoderOutput, plain: DecoderOutput) -> None:
    """Outputs, and gradients of every parameter and of the memory, to 1e-10."""
    for name in ("mel_BTM", "gate_logits_BT", "alignment_BSN"):
        torch.testing.assert_close(getattr(ours, name), getattr(plain, name), rtol=0, atol=1e-10)
    parameters = {"memory": memory_BNE} | dict(decoder.named_parameters())
    mine = torch.autograd.grad(scalar(ours), list(parameters.values()))
    theirs = torch.autograd.grad(scalar(plain), list(parameters.values()))
    for name, one, other in zip(parameters, mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10, msg=lambda text, name=name: f"gradient of {name}: {text}")


@settings(deadline=None, max_examples=90)
@given(
    mechanism=st.sampled_from(MECHANISMS),
    lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20)), min_size=1, max_size=5),
    spare=st.integers(0, 3),
    factor=st.integers(1, 8),
    kernel=st.sampled_from([1, 5, 11]),
    prior=st.sampled_from([2, 4, 9]),
    dropout=st.sampled_from([0.0, 0.4]),
    seed=st.integers(0, 99),
)
def test_equals_the_textbook_with_every_gradient(mechanism, lengths, spare, factor, kernel, prior, dropout, seed):
    """Utterances in any order, some of no frame at all, beside more padding than the longest needs."""
    torch.manual_seed(seed)
    knobs = {"attention_dropout": dropout, "location_kernel": kernel, "filter_length": kernel, "prior_length": prior}
    config = model_config(attention_mechanism=mechanism, reduction_factor=factor, **(WITHOUT_DROPOUT | knobs))
    decoder = Decoder(config, mels=MELS).double()
    symbol_lengths_B, mel_lengths_B = torch.tensor(lengths).unbind(1)
    frames = max(1, int(mel_lengths_B.max()) + spare)
    memory_BNE = torch.randn(len(lengths), int(symbol_lengths_B.max()), config.encoder_lstm).double().requires_grad_()
    arguments = (memory_BNE, symbol_lengths_B, torch.randn(len(lengths), frames, MELS).double())
    order = packing(step_lengths(mel_lengths_B, factor), -(-frames // factor))
    torch.manual_seed(seed)
    kept_ZH = torch.rand(len(order.index_Z), config.attention_lstm) >= dropout
    plain = textbook.until_the_end(textbook.decode(decoder, *arguments, order.unpack(kept_ZH).transpose(0, 1)), mel_lengths_B)
    torch.manual_seed(seed)
    ours = decoder(*arguments, mel_lengths_B)
    if mel_lengths_B.any():
        assert_same(decoder, memory_BNE, ours, plain)
    else:
        assert not any(tensor.any() for tensor in (ours.mel_BTM, ours.gate_logits_BT, ours.alignment_BSN))


@pytest.mark.parametrize("now", [2, 3, 5])
def test_equals_the_textbook_while_the_reduction_factor_falls(now):
    config = model_config(reduction_factor=2, initial_reduction_factor=5, **WITHOUT_DROPOUT)
    torch.manual_seed(0)
    decoder = Decoder(config, mels=MELS).double()
    decoder.reduce_by(now)
    memory_BNE = torch.randn(3, 6, config.encoder_lstm).double().requires_grad_()
    arguments = (memory_BNE, torch.tensor([6, 2, 5]), torch.randn(3, 13, MELS).double())
    ours, plain = decoder(*arguments), textbook.decode(decoder, *arguments)
    idle = [name for name, parameter in decoder.named_parameters() if name.startswith("early_") and int(name.split(".")[1]) >= now - 2]
    for name in idle:
        decoder.get_parameter(name).requires_grad_(False)
    used = {name: parameter for name, parameter in decoder.named_parameters() if parameter.requires_grad}
    mine, theirs = (torch.autograd.grad(scalar(output), [memory_BNE, *used.values()]) for output in (ours, plain))
    assert len(idle) == 4 * (5 - now), "neither weights nor biases of frames that no step writes any more"
    assert ours.mel_BTM.shape == (3, -(-13 // now) * now, MELS)
    for name in ("mel_BTM", "gate_logits_BT", "alignment_BSN"):
        torch.testing.assert_close(getattr(ours, name), getattr(plain, name), rtol=0, atol=1e-10)
    for name, one, other in zip(("memory", *used), mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10, msg=lambda text, name=name: f"gradient of {name}: {text}")


@pytest.mark.parametrize("now", [2, 3, 4])
def test_a_smaller_factor_writes_the_first_frames_of_each_step(now):
    """With the recordings' frames at the same places, so that both read the same."""
    decoder = Decoder(model_config(reduction_factor=2, initial_reduction_factor=4, **WITHOUT_DROPOUT), mels=MELS).double()
    memory_BNE, lengths_B, mel_BTM = torch.randn(1, 4, 6).double(), torch.tensor([4]), torch.zeros(1, 8, MELS).double()
    largest_BSRM = decoder(memory_BNE, lengths_B, mel_BTM).mel_BTM.view(1, 2, 4, MELS)
    decoder.reduce_by(now)
    smaller_BSRM = decoder(memory_BNE, lengths_B, mel_BTM[:, : 2 * now]).mel_BTM.view(1, 2, now, MELS)
    torch.testing.assert_close(smaller_BSRM, largest_BSRM[:, :, :now], rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [0, 1, 5])
def test_a_factor_that_the_decoder_was_not_built_for_is_refused(factor):
    decoder = Decoder(model_config(reduction_factor=2, initial_reduction_factor=4), mels=MELS)
    with pytest.raises(ValueError, match=f"built for 2 to 4 frames a step, got {factor}"):
        decoder.reduce_by(factor)


@pytest.mark.parametrize("knob", ["attention_dropout", "decoder_dropout", "prenet_dropout"])
def test_dropout_acts_in_training_only(knob):
    torch.manual_seed(0)
    decoder = Decoder(model_config(**(WITHOUT_DROPOUT | {knob: 0.5, "prenet_dropout_at_inference": False})), mels=MELS)
    arguments = (torch.randn(2, 4, 6), torch.tensor([4, 3]), torch.randn(2, 9, MELS))
    assert not torch.equal(decoder(*arguments).mel_BTM, decoder(*arguments).mel_BTM)
    decoder.eval()
    assert torch.equal(decoder(*arguments).mel_BTM, decoder(*arguments).mel_BTM)


@pytest.mark.parametrize("factor", range(1, 9))
@pytest.mark.parametrize("frames", [0, 1, 5, 8])
def test_shapes_for_any_number_of_frames_and_any_reduction_factor(factor, frames):
    decoder = Decoder(model_config(reduction_factor=factor), mels=MELS)
    output = decoder(torch.randn(2, 4, 6), torch.tensor([3, 4]), torch.randn(2, frames, MELS))
    steps = (frames + factor - 1) // factor
    assert output.mel_BTM.shape == (2, steps * factor, MELS)
    assert output.gate_logits_BT.shape == (2, steps * factor)
    assert output.alignment_BSN.shape == (2, steps, 4)
    torch.testing.assert_close(output.alignment_BSN.sum(2), torch.ones(2, steps))


def test_a_step_writes_its_frames_in_the_order_of_the_projection():
    torch.manual_seed(0)
    decoder = Decoder(model_config(reduction_factor=3), mels=MELS)
    z_ZF = torch.randn(4, 9 + 6)
    mel_ZRM, gate_logits_ZR = decoder.project(z_ZF)
    torch.testing.assert_close(mel_ZRM.flatten(1), decoder.mel(z_ZF))
    torch.testing.assert_close(gate_logits_ZR, decoder.gate(z_ZF))


def test_a_graph_kept_for_a_second_backward_pass_gives_the_same_gradients():
    torch.manual_seed(0)
    decoder = Decoder(model_config(), mels=MELS).double()
    loss = scalar(decoder(torch.randn(2, 4, 6).double(), torch.tensor([3, 4]), torch.randn(2, 5, MELS).double()))
    parameters = list(decoder.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(loss, parameters), strict=True):
        assert torch.equal(one, other)


def test_a_step_depends_on_earlier_frames_only():
    torch.manual_seed(0)
    decoder = Decoder(model_config(reduction_factor=2, **WITHOUT_DROPOUT), mels=MELS).double()
    memory_BNE, lengths_B, mel_BTM = torch.randn(1, 4, 6).double(), torch.tensor([4]), torch.randn(1, 10, MELS).double()
    changed_BTM = mel_BTM.clone()
    changed_BTM[:, 5] += 1  # the last frame of step 2: step 3 is the first to read it
    one, other = decoder(memory_BNE, lengths_B, mel_BTM), decoder(memory_BNE, lengths_B, changed_BTM)
    assert torch.equal(one.mel_BTM[:, :6], other.mel_BTM[:, :6])
    assert not torch.equal(one.mel_BTM[:, 6:8], other.mel_BTM[:, 6:8])


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_half_precision_follows_float32(mechanism):
    torch.manual_seed(0)
    decoder = Decoder(model_config(attention_mechanism=mechanism, **WITHOUT_DROPOUT), mels=MELS)
    arguments = (torch.randn(2, 4, 6), torch.tensor([4, 3]), torch.randn(2, 30, MELS))
    reference = decoder(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = decoder(*arguments)
    assert half.alignment_BSN.dtype == torch.float32
    torch.testing.assert_close(half.alignment_BSN, reference.alignment_BSN, rtol=0, atol=0.01)
    torch.testing.assert_close(half.mel_BTM.float(), reference.mel_BTM, rtol=0, atol=0.05)
    parameters = list(decoder.parameters())
    for one, other in zip(torch.autograd.grad(scalar(half), parameters), torch.autograd.grad(scalar(reference), parameters), strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.05 * other.norm() + 1e-3


def test_frames_past_the_end_of_a_shorter_utterance_do_not_reach_it():
    torch.manual_seed(0)
    decoder = Decoder(model_config(reduction_factor=3, **WITHOUT_DROPOUT), mels=MELS).double()
    memory_BNE, symbol_lengths_B, mel_lengths_B = torch.randn(2, 4, 6).double(), torch.tensor([4, 2]), torch.tensor([11, 4])
    mel_BTM = torch.randn(2, 11, MELS).double()
    noisy_BTM = torch.where(length_mask(mel_lengths_B, 11)[:, :, None], mel_BTM, 1e3)
    one, other = decoder(memory_BNE, symbol_lengths_B, mel_BTM), decoder(memory_BNE, symbol_lengths_B, noisy_BTM)
    valid_BT = length_mask(mel_lengths_B, 12)
    assert torch.equal(one.mel_BTM[valid_BT], other.mel_BTM[valid_BT])
