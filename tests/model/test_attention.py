import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.sizes import model_config
from tts.model.attention.location import LocationAttention
from tts.model.attention.mechanism import Moment, Operands


def numpy_attention(attention, query_H, memory_NE, previous_N, cumulated_N):
    """Chorowski et al. 2015, eq. 8-9, for one utterance, symbol by symbol."""
    weight = {name: value.detach().numpy() for name, value in attention.named_parameters()}
    filters_F2K = weight["location_convolution.weight"]
    half = filters_F2K.shape[2] // 2
    padded_2L = np.pad(np.stack([previous_N, cumulated_N]), [(0, 0), (half, half)])
    energies = []
    for n, memory_E in enumerate(memory_NE):
        location_F = [(filters_2K * padded_2L[:, n : n + 2 * half + 1]).sum() for filters_2K in filters_F2K]
        hidden_A = weight["query.weight"] @ query_H + weight["memory.weight"] @ memory_E + weight["location_dense.weight"] @ location_F
        energies.append(weight["score.weight"][0] @ np.tanh(hidden_A))
    weights_N = np.exp(energies - np.max(energies))
    weights_N /= weights_N.sum()
    return weights_N


def one_step(attention: LocationAttention, at: Operands, query_BH: torch.Tensor, location_B2N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights, and the location channels after the step."""
    (before_B2L,) = attention.first_state(at)
    half, symbols = attention.kernel // 2, at.valid_BN.shape[1]
    before_B2L[:, :, half : half + symbols] = location_B2N
    after_B2L = torch.zeros_like(before_B2L)
    weights_BN = torch.empty(at.valid_BN.shape, dtype=before_B2L.dtype)
    query_BQ = query_BH.to(at.query_QH.dtype) @ at.query_QH.t()
    attention.step(at, Moment((before_B2L,), query_BH, query_BQ, (after_B2L,), weights_BN))
    return weights_BN, after_B2L[:, :, half : half + symbols]


@torch.no_grad()
@settings(deadline=None, max_examples=30)
@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=3), kernel=st.sampled_from([1, 3, 9]), seed=st.integers(0, 99))
def test_equals_the_formula_and_pays_no_heed_to_padding(lengths, kernel, seed):
    torch.manual_seed(seed)
    config = model_config(location_kernel=kernel)
    attention = LocationAttention(config).double()
    batch, symbols = len(lengths), 7
    memory_BNE = torch.randn(batch, symbols, config.encoder_lstm).double()
    query_BH = torch.randn(batch, config.attention_lstm).double()
    location_B2N = torch.rand(batch, 2, symbols).double()
    for row, length in enumerate(lengths):
        location_B2N[row, :, length:] = 0  # weights of padding are zero at every step
    at = attention.operands(memory_BNE, torch.tensor(lengths))
    weights_BN, after_B2N = one_step(attention, at, query_BH, location_B2N)
    torch.testing.assert_close(after_B2N, torch.stack((weights_BN, location_B2N[:, 1] + weights_BN), 1))
    for row, length in enumerate(lengths):
        location_2N = location_B2N[row, :, :length].numpy()
        expected_N = numpy_attention(attention, query_BH[row].numpy(), memory_BNE[row, :length].numpy(), *location_2N)
        np.testing.assert_allclose(weights_BN[row, :length], expected_N, rtol=0, atol=1e-12)
        assert not weights_BN[row, length:].any()


@torch.no_grad()
def test_half_precision_operands_give_float32_weights():
    attention = LocationAttention(model_config())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        at = attention.operands(torch.randn(2, 7, 6), torch.tensor([7, 3]))
        weights_BN, _ = one_step(attention, at, torch.randn(2, 10), torch.zeros(2, 2, 7))
    assert at.query_QH.dtype == torch.bfloat16
    assert weights_BN.dtype == torch.float32
    torch.testing.assert_close(weights_BN.sum(1), torch.ones(2))


@torch.no_grad()
def test_a_row_with_nothing_valid_gives_finite_weights():
    attention = LocationAttention(model_config())
    at = attention.operands(torch.randn(2, 7, 6), torch.tensor([7, 0]))
    weights_BN, _ = one_step(attention, at, torch.randn(2, 10), torch.zeros(2, 2, 7))
    torch.testing.assert_close(weights_BN[1], torch.full((7,), 1 / 7))
