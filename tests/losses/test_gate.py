import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tts.losses.gate import gate_labels, gate_loss


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    factor=st.integers(1, 8),
    weight=st.sampled_from([0.2, 1.0, 5.0]),
    seed=st.integers(0, 99),
)
def test_equals_cross_entropy_over_the_frames_of_true_steps(lengths, factor, weight, seed):
    frames = -(-9 // factor) * factor
    logits = np.random.default_rng(seed).normal(size=(len(lengths), frames), scale=3)
    probabilities = 1 / (1 + np.exp(-logits))
    costs = []
    for row, length in enumerate(lengths):
        for frame in range(-(-length // factor) * factor):
            if frame >= length - 1:
                costs.append(-weight * np.log(probabilities[row, frame]))
            else:
                costs.append(-np.log(1 - probabilities[row, frame]))
    loss = gate_loss(torch.tensor(logits), torch.tensor(lengths), reduction_factor=factor, positive_weight=weight)
    assert loss.item() == pytest.approx(np.mean(costs) if costs else 0.0, abs=1e-10)


def test_labels_start_at_the_last_frame():
    assert gate_labels(torch.tensor([1, 3, 4]), 4).int().tolist() == [[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]


def test_every_utterance_teaches_the_gate_to_stop_whatever_the_reduction_factor():
    """At least one frame with label 1 counts: its gradient pulls the logit up."""
    for factor in range(1, 9):
        for length in range(1, 20):
            logits_BT = torch.zeros(1, 24, requires_grad=True)
            gate_loss(logits_BT, torch.tensor([length]), reduction_factor=factor, positive_weight=1.0).backward()
            rising = logits_BT.grad[0] < 0
            assert rising[length - 1]
            assert not rising[: length - 1].any()
            assert not logits_BT.grad[0, -(-length // factor) * factor :].any()


@pytest.mark.parametrize(("half", "extreme"), [(torch.float16, 65504.0), (torch.bfloat16, 1e30)])
def test_half_precision_extremes_stay_finite(half, extreme):
    logits_BT = torch.tensor([[extreme, -extreme, extreme]], dtype=half, requires_grad=True)
    loss = gate_loss(logits_BT, torch.tensor([2]), reduction_factor=3, positive_weight=2.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(extreme, rel=1e-2)  # one third each of: extreme, 2 extreme, 0
    assert logits_BT.grad.isfinite().all()


def test_extreme_padding_is_not_seen():
    logits_BT = torch.tensor([[0.0, float("inf")], [float("-inf"), float("inf")]], requires_grad=True)
    loss = gate_loss(logits_BT, torch.tensor([1, 0]), reduction_factor=1, positive_weight=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2))
    assert logits_BT.grad.flatten().tolist() == [-0.5, 0.0, 0.0, 0.0]
