import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tts.losses.mel import mel_loss

MELS = 3


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    extra=st.integers(0, 3),
    kind=st.sampled_from(["mse", "l1"]),
    seed=st.integers(0, 99),
)
def test_equals_the_mean_over_valid_cells(lengths, extra, kind, seed):
    """Also when the prediction is longer than the target, and when rows or the whole batch are padding."""
    random = np.random.default_rng(seed)
    predicted, target = random.normal(size=(len(lengths), 6 + extra, MELS)), random.normal(size=(len(lengths), 6, MELS))
    cells = [predicted[row, t, m] - target[row, t, m] for row, length in enumerate(lengths) for t in range(length) for m in range(MELS)]
    expected = np.mean([cell**2 if kind == "mse" else abs(cell) for cell in cells]) if cells else 0.0
    loss = mel_loss(torch.tensor(predicted), torch.tensor(target), torch.tensor(lengths), kind)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["mse", "l1"])
def test_half_precision_is_summed_in_float32(half, kind):
    """In float16 the squares alone would overflow, and the sum of 500 of them."""
    predicted_BTM = torch.full((1, 500, MELS), 300.0, dtype=half, requires_grad=True)
    loss = mel_loss(predicted_BTM, torch.zeros(1, 500, MELS), torch.tensor([500]), kind)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(predicted_BTM[0, 0, 0].item() ** (2 if kind == "mse" else 1), rel=1e-5)
    assert predicted_BTM.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["mse", "l1"])
def test_extreme_padding_is_not_seen(kind):
    huge = torch.finfo(torch.float32).max
    predicted_BTM = torch.tensor([[[1.0], [huge]], [[huge], [-huge]]], requires_grad=True)
    target_BTM = torch.tensor([[[3.0], [-huge]], [[-huge], [huge]]])
    loss = mel_loss(predicted_BTM, target_BTM, torch.tensor([1, 0]), kind)
    loss.backward()
    assert loss.item() == (4.0 if kind == "mse" else 2.0)
    assert predicted_BTM.grad.flatten().tolist() == [-4.0 if kind == "mse" else -1.0, 0.0, 0.0, 0.0]
