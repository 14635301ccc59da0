import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tts.model.row import row


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4), wider=st.integers(0, 2), reach=st.integers(0, 3), seed=st.integers(0, 99))
def test_a_convolution_over_the_row_is_that_over_each_utterance_alone(lengths, wider, reach, seed):
    torch.manual_seed(seed)
    batch, size = len(lengths), max(lengths) + wider
    x_BTC = torch.randn(batch, size, 2).double().requires_grad_()
    weight = torch.randn(3, 2, 2 * reach + 1).double()
    utterances = row(torch.tensor(lengths), reach)
    expected_BTC = torch.zeros(batch, size, 3).double()
    for utterance, length in enumerate(lengths):
        if length:
            alone_1CT = functional.conv1d(x_BTC[utterance, :length].t()[None], weight, padding=reach)
            expected_BTC = torch.index_put(expected_BTC, (torch.tensor(utterance), torch.arange(length)), alone_1CT[0].t())
    if utterances.valid_11L.numel() == 0:
        assert sum(lengths) == 0
        return
    joined_1CL = utterances.join(x_BTC)
    assert not joined_1CL.masked_select(~utterances.valid_11L).any()
    assert utterances.valid_11L.sum() == sum(lengths)
    y_BTC = utterances.split(functional.conv1d(joined_1CL, weight, padding=reach), batch, size)
    torch.testing.assert_close(y_BTC, expected_BTC, rtol=0, atol=1e-12)
    upstream = torch.randn_like(y_BTC)
    (mine,), (theirs,) = (torch.autograd.grad(result, [x_BTC], upstream) for result in (y_BTC, expected_BTC))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_no_more_zeros_than_keep_utterances_apart():
    assert row(torch.tensor([3, 0, 4]), 2).valid_11L.numel() == 3 + 2 + 0 + 2 + 4
    assert row(torch.tensor([0, 0]), 2).valid_11L.numel() == 0
