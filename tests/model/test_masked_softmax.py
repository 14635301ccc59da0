import torch
from hypothesis import given
from hypothesis import strategies as st

from tts.data.batch import length_mask
from tts.model.attention.mechanism import masked_softmax, softmax_backward


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    size=st.sampled_from([0.0, 1.0, 65504.0, 1e29]),
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
