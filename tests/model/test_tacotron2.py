import pytest
import torch

from tests.model.sizes import MELS, SYMBOLS, WITHOUT_DROPOUT, model_config
from tests.model.textbook import TextbookDecoder
from tts.config import ModelConfig
from tts.data.batch import length_mask
from tts.model.frames import step_lengths
from tts.model.output import Tacotron2Output
from tts.model.tacotron2 import Tacotron2

requires_cuda = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

SYMBOL_LENGTHS_B = torch.tensor([3, 7, 1, 5])
MEL_LENGTHS_B = torch.tensor([10, 13, 1, 6])


def network(**knobs) -> Tacotron2:
    torch.manual_seed(0)
    model = Tacotron2(model_config(**(WITHOUT_DROPOUT | knobs)), symbols=SYMBOLS, mels=MELS).double()
    for name, buffer in model.named_buffers():  # as after some training
        if name.endswith(("running_mean", "running_var")):
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    torch.nn.init.normal_(model.decoder.gate.weight)
    return model


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    symbols_BN = torch.randint(1, SYMBOLS, (4, 7), generator=generator) * length_mask(SYMBOL_LENGTHS_B, 7)
    mel_BTM = torch.randn(4, 13, MELS, generator=generator).double() * length_mask(MEL_LENGTHS_B, 13)[:, :, None]
    return symbols_BN, SYMBOL_LENGTHS_B, mel_BTM, MEL_LENGTHS_B


def total(output: Tacotron2Output) -> torch.Tensor:
    """Every output's valid cells, squared and weighted by their place."""
    factor = output.mel_BTM.shape[1] // output.alignment_BSN.shape[1]
    valid_BT = length_mask(MEL_LENGTHS_B.to(output.mel_BTM.device), output.mel_BTM.shape[1])
    valid_BS = length_mask(step_lengths(MEL_LENGTHS_B, factor).to(valid_BT.device), output.alignment_BSN.shape[1])
    parts = [
        output.mel_BTM[valid_BT],
        output.mel_post_BTM[valid_BT],
        output.gate_logits_BT[valid_BT],
        output.alignment_BSN[valid_BS][:, : int(SYMBOL_LENGTHS_B.max())],
    ]
    return torch.stack([(part.square().flatten() * torch.linspace(1, 2, part.numel()).to(part)).sum() for part in parts]).sum()


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_each_utterance_alone_equals_its_row_of_the_batch(factor):
    model = network(reduction_factor=factor).eval()
    symbols_BN, symbol_lengths_B, mel_BTM, mel_lengths_B = inputs()
    together = model(symbols_BN, symbol_lengths_B, mel_BTM, mel_lengths_B)
    for row in range(4):
        one, symbols, frames = slice(row, row + 1), int(symbol_lengths_B[row]), int(mel_lengths_B[row])
        alone = model(symbols_BN[one, :symbols], symbol_lengths_B[one], mel_BTM[one, :frames], mel_lengths_B[one])
        steps = -(-frames // factor)
        for name, size in (("mel_BTM", frames), ("mel_post_BTM", frames), ("gate_logits_BT", frames), ("alignment_BSN", steps)):
            mine, its = getattr(together, name)[row, :size], getattr(alone, name)[0, :size]
            torch.testing.assert_close(mine[..., : its.shape[-1]], its, rtol=0, atol=1e-10)


@pytest.mark.parametrize("factor", [1, 3])
def test_equals_the_network_with_the_textbook_decoder(factor):
    """The whole network, mel normalisation included: every output until the utterance's end, every gradient."""
    model, plain = network(reduction_factor=factor), network(reduction_factor=factor)
    for one in (model, plain):
        one.normalise_by(torch.linspace(-6, -4, MELS), torch.linspace(1, 2, MELS))
    plain.decoder = TextbookDecoder(plain.decoder)
    ours, theirs = model(*inputs()), plain(*inputs())
    steps_B = step_lengths(MEL_LENGTHS_B, factor)
    for name, lengths_B in (
        ("mel_BTM", MEL_LENGTHS_B),
        ("mel_post_BTM", MEL_LENGTHS_B),
        ("gate_logits_BT", MEL_LENGTHS_B),
        ("alignment_BSN", steps_B),
    ):
        mine, its = getattr(ours, name), getattr(theirs, name)
        valid = length_mask(lengths_B, mine.shape[1])
        torch.testing.assert_close(mine[valid], its[valid], rtol=0, atol=1e-10)
    total(ours).backward()
    total(theirs).backward()
    for (name, one), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        scale = 1 + other.grad.abs().max()  # sums of many squares: gradients are in the hundreds
        torch.testing.assert_close(
            one.grad / scale, other.grad / scale, rtol=0, atol=1e-10, msg=lambda text, name=name: f"gradient of {name}: {text}"
        )


def test_in_training_neither_the_amount_nor_the_content_of_padding_matters():
    """Batch statistics included: values, every gradient and the running statistics."""
    symbols_BN, symbol_lengths_B, mel_BTM, mel_lengths_B = inputs()
    wide_BN = torch.nn.functional.pad(symbols_BN, (0, 4)).masked_fill(~length_mask(symbol_lengths_B, 11), 3)
    wide_BTM = torch.nn.functional.pad(mel_BTM, (0, 0, 0, 6)).masked_fill(~length_mask(mel_lengths_B, 19)[:, :, None], 50.0)
    model, twin = network(reduction_factor=3).train(), network(reduction_factor=3).train()
    narrow, wide = total(model(symbols_BN, symbol_lengths_B, mel_BTM, mel_lengths_B)), total(twin(wide_BN, symbol_lengths_B, wide_BTM, mel_lengths_B))
    torch.testing.assert_close(narrow, wide, rtol=0, atol=1e-10)
    narrow.backward()
    wide.backward()
    for (name, one), (_, other) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-9, msg=lambda text, name=name: f"gradient of {name}: {text}")
    for one, other in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 6, 7, 8])
def test_every_parameter_gets_a_gradient(factor):
    model = network(reduction_factor=factor).train()
    total(model(*inputs())).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None or parameter.grad.abs().max() < 1e-9]
    assert without == []


def test_the_defaults_have_the_papers_size():
    """Counted by hand from Shen et al. 2018 and NVIDIA/tacotron2's layout with its 148 symbols; it has 28.19 M, convolution biases included."""
    conv, lstm = lambda i, o: 5 * i * o + 2 * o, lambda i, h: 4 * h * (i + h + 2)
    encoder = 148 * 512 + 3 * conv(512, 512) + 2 * lstm(512, 256)
    attention = 1024 * 128 + 512 * 128 + 32 * 2 * 31 + 32 * 128 + 128
    decoder = 80 * 256 + 256 * 256 + lstm(256 + 512, 1024) + attention + lstm(1024 + 512, 1024) + 1536 * 80 + 80 + 1536 + 1
    postnet = conv(80, 512) + 3 * conv(512, 512) + conv(512, 80)
    with torch.device("meta"):
        model = Tacotron2(ModelConfig(), symbols=148, mels=80)
    assert sum(parameter.numel() for parameter in model.parameters()) == encoder + decoder + postnet
    assert (encoder + decoder + postnet) / 1e6 == pytest.approx(28.19, abs=0.01)


def test_the_postnet_adds_to_the_decoders_mel_inside_the_utterance_only():
    output = network().eval()(*inputs())
    same_BT = (output.mel_BTM == output.mel_post_BTM).all(2)
    assert torch.equal(same_BT, ~length_mask(MEL_LENGTHS_B, 13))


@pytest.mark.parametrize("factor", [1, 3])
def test_a_batch_without_frames_gives_a_batch_without_frames(factor):
    output = network(reduction_factor=factor)(
        torch.ones(2, 3, dtype=torch.long), torch.tensor([3, 2]), torch.zeros(2, 0, MELS).double(), torch.zeros(2).long()
    )
    assert output.mel_BTM.shape == output.mel_post_BTM.shape == (2, 0, MELS)
    assert output.gate_logits_BT.shape == (2, 0)
    assert output.alignment_BSN.shape == (2, 0, 3)


def test_the_same_seed_draws_the_same_weights():
    states = [network().state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_synthesis_refuses_training_mode():
    with pytest.raises(RuntimeError, match=r"eval\(\)"):
        network().train().synthesise(torch.ones(1, 2, dtype=torch.long), torch.tensor([2]), max_frames_B=torch.tensor([4]), gate_threshold=0.5)


@pytest.mark.parametrize("factor", [1, 3])
def test_synthesis_by_batch_equals_synthesis_one_by_one(factor):
    model = network(reduction_factor=factor, prenet_dropout=0.5).eval()
    symbols_BN, symbol_lengths_B, _, _ = inputs()
    max_frames_B = torch.tensor([12, 30, 5, 17])
    together = model.synthesise(symbols_BN, symbol_lengths_B, max_frames_B=max_frames_B, gate_threshold=0.8, seed=3)
    for row in range(4):
        one, symbols = slice(row, row + 1), int(symbol_lengths_B[row])
        alone = model.synthesise(symbols_BN[one, :symbols], symbol_lengths_B[one], max_frames_B=max_frames_B[one], gate_threshold=0.8, seed=3)
        length = int(alone.lengths_B)
        assert together.lengths_B[row] == length
        assert together.stopped_B[row] == alone.stopped_B[0]
        torch.testing.assert_close(together.mel_BTM[row, :length], alone.mel_BTM[0, :length], rtol=0, atol=1e-10)
        torch.testing.assert_close(together.gate_BT[row, :length], alone.gate_BT[0, :length], rtol=0, atol=1e-10)
        assert not together.mel_BTM[row, length:].any()
        assert not alone.mel_BTM[0, length:].any()


def test_synthesis_in_half_precision_has_named_types():
    model = network(reduction_factor=2).float().eval()
    symbols_BN, symbol_lengths_B, _, _ = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spoken = model.synthesise(symbols_BN, symbol_lengths_B, max_frames_B=torch.full((4,), 9), gate_threshold=1.0, seed=0)
    reference = model.synthesise(symbols_BN, symbol_lengths_B, max_frames_B=torch.full((4,), 9), gate_threshold=1.0, seed=0)
    assert spoken.mel_BTM.dtype == spoken.alignment_BSN.dtype == torch.float32
    torch.testing.assert_close(spoken.mel_BTM, reference.mel_BTM, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=requires_cuda)])
def test_a_gpu_gives_what_the_cpu_gives(device, precision):
    reference = network(reduction_factor=2)
    twin = network(reduction_factor=2).to(device)
    if precision != torch.float64:
        reference, twin = reference.float(), twin.float()
    symbols_BN, symbol_lengths_B, mel_BTM, mel_lengths_B = inputs()
    mel_BTM = mel_BTM.to(next(reference.parameters()).dtype)
    tolerance = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.1}[precision]
    total(reference(symbols_BN, symbol_lengths_B, mel_BTM, mel_lengths_B)).backward()
    with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        output = twin(symbols_BN.to(device), symbol_lengths_B.to(device), mel_BTM.to(device), mel_lengths_B.to(device))
    total(output).backward()
    for (name, one), (_, other) in zip(reference.named_parameters(), twin.named_parameters(), strict=True):
        error = (other.grad.cpu() - one.grad).norm() / one.grad.norm()
        assert error < tolerance, f"gradient of {name}"
    spoken = [
        model.eval().synthesise(
            symbols_BN.to(where), symbol_lengths_B.to(where), max_frames_B=torch.full((4,), 9).to(where), gate_threshold=1.0, seed=0
        )
        for model, where in ((reference, "cpu"), (twin, device))
    ]
    torch.testing.assert_close(spoken[1].mel_BTM.cpu(), spoken[0].mel_BTM, rtol=max(tolerance, 1e-3), atol=max(tolerance, 1e-3))
