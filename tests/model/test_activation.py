import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tts.model.activation import activate

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "linear": lambda x: x}


@given(activation=st.sampled_from(sorted(ACTIVATIONS)), dropout=st.sampled_from([0.0, 0.1, 0.5]), masked=st.booleans(), seed=st.integers(0, 99))
def test_results_and_gradients_are_those_of_autograd_under_the_same_mask(activation, dropout, masked, seed):
    torch.manual_seed(seed)
    x = torch.randn(2, 3, 5).double().requires_grad_()
    valid = torch.rand(2, 1, 5) < 0.7 if masked else None
    y = activate(x, activation, dropout, valid)
    kept = torch.ones_like(x) if dropout == 0 else (y != 0).double()
    if activation == "relu":  # a zero may be one that was kept: its gradient is zero all the same
        kept = torch.where(x <= 0, 1.0, kept)
    expected = ACTIVATIONS[activation](x) * kept / (1 - dropout)
    if valid is not None:
        expected = expected * valid
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    upstream = torch.randn_like(y)
    (mine,), (theirs,) = (torch.autograd.grad(result, [x], upstream) for result in (y, expected))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_the_share_that_is_dropped_is_that_which_was_asked_for():
    torch.manual_seed(0)
    y = activate(torch.ones(100, 1000), "linear", 0.3)
    assert (y == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert y.max().item() == pytest.approx(1 / 0.7)


def test_what_is_not_valid_is_zero_whatever_it_was():
    x = torch.tensor([[torch.nan, torch.inf, 1.0]], requires_grad=True)
    for activation in ACTIVATIONS:
        y = activate(x, activation, 0.0, torch.tensor([False, False, True]))
        assert torch.equal(y[0, :2], torch.zeros(2))
        (d_x,) = torch.autograd.grad(y.sum(), [x])
        assert torch.equal(d_x[0, :2], torch.zeros(2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays(dtype):
    x = torch.randn(4, 8).to(dtype).requires_grad_()
    y = activate(x, "tanh", 0.5)
    assert y.dtype == dtype
    assert torch.autograd.grad(y.sum(), [x])[0].isfinite().all()
