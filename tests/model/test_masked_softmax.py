import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tts.data.batch import length_mask
from tts.model.attention.mechanism import masked_softmax, softmax_backward


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    size=st.sampled_from([0.0, 1.0, 65504.0, 1e29, 1e38]),
    seed=st.integers(0, 99),
)
def test_energies_of_any_precision_and_size_give_distributions_in_float32(lengths, dtype, size, seed):
    """Also of a row of padding, and where the energies of the padding are the largest that there are."""
    generator = torch.Generator().manual_seed(seed)
    largest = torch.finfo(dtype).max
    energies_BN = (torch.randn(len(lengths), 6, generator=generator).double() * size).clamp(-largest, largest).to(dtype)
    valid_BN = length_mask(torch.tensor(lengths), 6)
    energies_BN = energies_BN.masked_fill(~valid_BN, largest)
    weights_BN = torch.empty(len(lengths), 6)
    masked_softmax(energies_BN, valid_BN, weights_BN)
    assert weights_BN.isfinite().all()
    torch.testing.assert_close(weights_BN.sum(1), torch.ones(len(lengths)))
    empty_B = torch.tensor(lengths) == 0
    assert not weights_BN[~valid_BN & ~empty_B[:, None]].any()
    for row, length in enumerate(lengths):
        if length:
            torch.testing.assert_close(weights_BN[row, :length].double(), energies_BN[row, :length].double().softmax(0), rtol=1e-5, atol=1e-7)
    gradient_BN = torch.randn(weights_BN.shape, generator=generator) * 1e30
    assert softmax_backward(weights_BN, gradient_BN).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("share", [1.0, 0.999, 0.5, 1e-8, 1e-30])
def test_nothing_leaks_onto_padding_however_low_the_energies_are(dtype, share):
    """Down to the lowest number that there is, where one or all of the valid energies are so low."""
    float_type = torch.promote_types(dtype, torch.float32)
    low = torch.finfo(dtype).min * share
    valid_BN = length_mask(torch.tensor([2, 2, 1]), 4)
    energies_BN = torch.tensor([[low, low, 0, 0], [low, low / 2, 0, 0], [low, 0, 0, 0]], dtype=torch.float64).to(dtype)
    weights_BN = torch.empty(3, 4, dtype=float_type)
    masked_softmax(energies_BN, valid_BN, weights_BN)
    expected_BN = torch.zeros(3, 4, dtype=float_type)
    for row, length in enumerate((2, 2, 1)):
        expected_BN[row, :length] = energies_BN[row, :length].to(float_type).softmax(0)
    assert torch.equal(weights_BN, expected_BN)


def test_a_row_of_padding_is_uniform():
    weights_BN = torch.empty(1, 4)
    masked_softmax(torch.tensor([[1e38, -1e38, 3.0, 0.0]]), torch.zeros(1, 4, dtype=torch.bool), weights_BN)
    assert torch.equal(weights_BN, torch.full((1, 4), 0.25))
