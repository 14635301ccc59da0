"""Style tokens against their formulas written out, and that a style is an utterance's own."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.sizes import MELS, SYMBOLS, WITHOUT_DROPOUT, model_config
from tts.data.batch import length_mask
from tts.model.style import LEAST_SHARE, StyleTokens
from tts.model.tacotron2 import Tacotron2

HEADS, TOKENS, WIDTH = 2, 3, 8
KNOBS = {"style_tokens": TOKENS, "style_heads": HEADS, "style_width": WIDTH}


def bank() -> StyleTokens:
    """As after some training."""
    torch.manual_seed(0)
    tokens = StyleTokens(model_config(**KNOBS), mels=MELS).double().eval()
    for norm in tokens.reference.norms:
        torch.nn.init.uniform_(norm.running_mean, -0.1, 0.1)
        torch.nn.init.uniform_(norm.running_var, 0.01, 0.05)
    torch.nn.init.normal_(tokens.query.weight, std=10)
    return tokens


def weights_by_hand(tokens: StyleTokens, mel_TM: torch.Tensor) -> torch.Tensor:
    """(H, K) of one reference: cell by cell, without a mask."""
    x_CTF = mel_TM[None]
    for convolution, norm in zip(tokens.reference.convolutions, tokens.reference.norms, strict=True):
        padded = torch.nn.functional.pad(x_CTF, (1, 1, 1, 1))
        frames, bands = math.ceil(x_CTF.shape[1] / 2), math.ceil(x_CTF.shape[2] / 2)
        y_CTF = torch.stack(
            [
                torch.stack([(padded[:, 2 * t : 2 * t + 3, 2 * f : 2 * f + 3] * convolution.weight).sum((1, 2, 3)) for f in range(bands)], 1)
                for t in range(frames)
            ],
            1,
        )
        scaled = (y_CTF - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
        x_CTF = (scaled * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
    gru = tokens.reference.gru
    state = torch.zeros(WIDTH // 2).double()
    for step in range(x_CTF.shape[1]):
        inputs = gru.weight_ih_l0 @ x_CTF[:, step].flatten() + gru.bias_ih_l0
        hidden = gru.weight_hh_l0 @ state + gru.bias_hh_l0
        (ir, iz, ig), (hr, hz, hg) = inputs.chunk(3), hidden.chunk(3)
        reset, update = torch.sigmoid(ir + hr), torch.sigmoid(iz + hz)
        state = (1 - update) * torch.tanh(ig + reset * hg) + update * state
    query, keys = tokens.query.weight @ state, torch.tanh(tokens.tokens) @ tokens.key.weight.T
    size = WIDTH // HEADS
    rows = []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        energies = torch.stack([query[part] @ keys[token, part] / math.sqrt(size) for token in range(TOKENS)])
        rows.append(energies.exp() / energies.exp().sum())
    return torch.stack(rows)


@pytest.mark.parametrize("frames", [1, 2, 17])
def test_weights_equal_the_formulas(frames):
    tokens, mel_TM = bank(), torch.randn(frames, MELS, generator=torch.Generator().manual_seed(frames)).double()
    with torch.no_grad():
        ours = tokens.weights(mel_TM[None], torch.tensor([frames]))[0]
        torch.testing.assert_close(ours, weights_by_hand(tokens, mel_TM), rtol=0, atol=1e-10)
    assert ours.std() > 1e-3, "the reference must have a say"


def test_a_style_mixes_the_tokens_values():
    tokens, weights_BHK = bank(), torch.rand(2, HEADS, TOKENS).double()
    values = torch.tanh(tokens.tokens) @ tokens.value.weight.T
    size = WIDTH // HEADS
    for row in range(2):
        style = torch.cat([weights_BHK[row, head] @ values[:, head * size : (head + 1) * size] for head in range(HEADS)])
        torch.testing.assert_close(tokens(weights_BHK)[row], tokens.projection.weight @ style, rtol=0, atol=1e-12)


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4), more=st.integers(0, 70), seed=st.integers(0, 99))
def test_a_style_does_not_depend_on_what_an_utterance_is_batched_with(lengths, more, seed):
    tokens, frames = bank(), max(lengths) + more
    mel_BTM = torch.randn(len(lengths), frames, MELS, generator=torch.Generator().manual_seed(seed)).double()
    lengths_B = torch.tensor(lengths)
    noisy_BTM = torch.where(length_mask(lengths_B, frames)[:, :, None], mel_BTM, 1e3)
    with torch.no_grad():
        together = tokens.weights(noisy_BTM, lengths_B)
        for row, length in enumerate(lengths):
            alone = tokens.weights(mel_BTM[row : row + 1, :length], lengths_B[row : row + 1])
            torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-10)


def test_in_training_padding_reaches_neither_the_statistics_nor_the_gradients():
    tokens, twin = bank().train(), bank().train()
    lengths_B = torch.tensor([9, 130, 1])  # of more than 64 frames the GRU has a second step
    mel_BTM = torch.randn(3, 130, MELS).double()
    wide_BTM = torch.nn.functional.pad(mel_BTM, (0, 0, 0, 13)).masked_fill(~length_mask(lengths_B, 143)[:, :, None], 50.0)
    for one, mel in ((tokens, mel_BTM), (twin, wide_BTM)):
        (one(one.weights(mel, lengths_B)).square() * torch.arange(1, 7)).sum().backward()
    for (name, one), (_, other) in zip(tokens.named_parameters(), twin.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-10, msg=lambda text, name=name: f"gradient of {name}: {text}")
        assert one.grad.abs().max() > 0, name
    for one, other in zip(tokens.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4])
def test_extreme_references_give_distributions(value):
    tokens = bank().float()
    for frames in (0, 1, 65):
        weights_BHK = tokens.weights(torch.full((2, frames, MELS), value), torch.tensor([frames, 0]))
        torch.testing.assert_close(weights_BHK.sum(2), torch.ones(2, HEADS))


def test_the_mean_is_that_of_the_first_batches_and_then_fades():
    tokens = bank()
    assert torch.equal(tokens.mean_HK, torch.full((HEADS, TOKENS), 1 / TOKENS).double())
    seen = torch.rand(150, HEADS, TOKENS, generator=torch.Generator().manual_seed(0)).double()
    for number, weights_HK in enumerate(seen, start=1):
        tokens.remember(weights_HK)
        if number <= 100:
            torch.testing.assert_close(tokens.mean_HK, seen[:number].mean(0))
    expected = seen[:100].mean(0)
    for weights_HK in seen[100:]:
        expected = (1 - LEAST_SHARE) * expected + LEAST_SHARE * weights_HK
    torch.testing.assert_close(tokens.mean_HK, expected)


def network(**knobs) -> Tacotron2:
    torch.manual_seed(0)
    model = Tacotron2(model_config(**(WITHOUT_DROPOUT | KNOBS | knobs)), symbols=SYMBOLS, mels=MELS).double()
    model.normalise_by(torch.linspace(-6, -4, MELS), torch.linspace(1, 2, MELS))
    return model


def test_a_network_trains_by_each_utterances_own_style():
    model = network().eval()
    symbols_BN, lengths_B, mel_lengths_B = torch.tensor([[3, 4, 5], [6, 1, 0]]), torch.tensor([3, 2]), torch.tensor([9, 5])
    mel_BTM = torch.randn(2, 9, MELS).double() - 5
    output = model(symbols_BN, lengths_B, mel_BTM, mel_lengths_B)
    assert output.style_BHK.shape == (2, HEADS, TOKENS)
    torch.testing.assert_close(output.style_BHK, model.style_of(mel_BTM, mel_lengths_B))
    for row, frames in enumerate(mel_lengths_B.tolist()):
        one = slice(row, row + 1)
        alone = model(symbols_BN[one, : lengths_B[row]], lengths_B[one], mel_BTM[one, :frames], mel_lengths_B[one])
        torch.testing.assert_close(output.mel_post_BTM[row, :frames], alone.mel_post_BTM[0, :frames], rtol=0, atol=1e-10)


def test_a_network_speaks_in_the_style_given_or_the_mean():
    model = network().eval()
    arguments = (torch.tensor([[3, 4, 5]]), torch.tensor([3]))
    limits = {"max_frames_B": torch.tensor([5]), "gate_threshold": 1.0, "seed": 0}
    mean = model.synthesise(*arguments, **limits)
    assert torch.equal(mean.style_BHK[0], model.style.mean_HK)
    given = torch.zeros(1, HEADS, TOKENS).double()
    given[:, :, 1] = 30
    other = model.synthesise(*arguments, **limits, style_BHK=given)
    assert torch.equal(other.style_BHK, given)
    assert (other.mel_BTM - mean.mel_BTM).abs().max() > 1e-3


def test_without_tokens_there_is_no_style():
    model = network(style_tokens=0)
    assert not [name for name in model.state_dict() if name.startswith("style.")]
    assert model(torch.tensor([[3]]), torch.tensor([1]), torch.zeros(1, 4, MELS).double(), torch.tensor([4])).style_BHK is None
    with pytest.raises(ValueError, match="the network has no style tokens"):
        model.style_of(torch.zeros(1, 4, MELS).double(), torch.tensor([4]))
