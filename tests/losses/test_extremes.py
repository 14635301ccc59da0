"""No loss returns NaN for finite input, in any precision: one frame, one symbol, rows of padding, more symbols than frames, extreme values.

A loss and its gradients are finite wherever sums of its terms are numbers of float32. Beyond, which is squares of 1e19 or logits of 1e38, a loss is
infinite: the update is skipped and the term named (tts/training/anomaly.py). Nothing is clamped to look well: a network that says such
a thing cannot be led back by a gradient of a made-up size. CTC alone is bounded, since its gradient would be NaN long before its value is.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tts.losses.consistency import attention_consistency_loss
from tts.losses.gate import gate_loss
from tts.losses.guided_attention import guided_attention_loss
from tts.losses.mel import mel_loss
from tts.losses.mutual_information import mutual_information_loss
from tts.model.recogniser import Recognition

MELS, CLASSES = 3, 6
TYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=4)
"""Symbols and frames of each utterance, at odds with one another as they come; no frame is a row of padding."""


def values(shape, dtype, size, seed):
    """Of both signs and all magnitudes up to `size` or the type's largest number, many of them that very number."""
    largest = min(size, torch.finfo(dtype).max)
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double() * 2
    return (drawn.clamp(-1, 1) * largest).to(dtype).requires_grad_()


def columns(lengths):
    return tuple(torch.tensor(column) for column in zip(*lengths, strict=True))


def check(loss, inputs, *, finite=True):
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    assert not loss.isnan()
    assert loss >= 0
    for tensor in inputs:
        assert tensor.grad.dtype == tensor.dtype
        assert not tensor.grad.isnan().any()
        assert tensor.grad.isfinite().all() or not finite
    assert loss.isfinite() or not finite


@given(
    lengths=LENGTHS, dtype=TYPES, kind=st.sampled_from(["mse", "l1"]), size=st.sampled_from([0.0, 1.0, 1e4, 1e18, torch.inf]), seed=st.integers(0, 9)
)
def test_mel(lengths, dtype, kind, size, seed):
    predicted_BTM, target_BTM = (values((len(lengths), 9, MELS), dtype, size, seed + place) for place in (0, 1))
    target_BTM = target_BTM.detach().float()
    # In float16 it is the gradient at the largest mels that no longer fits, which is what the scaler is for.
    finite = size <= 1e4 or (size < torch.inf and dtype != torch.float16)
    loss = mel_loss(predicted_BTM, target_BTM, columns(lengths)[1], kind)
    check(loss, [predicted_BTM], finite=finite)
    assert loss.isfinite() or dtype != torch.float16


@given(
    lengths=LENGTHS,
    dtype=TYPES,
    factor=st.integers(1, 8),
    weight=st.sampled_from([0.2, 1.0, 20.0]),
    size=st.sampled_from([0.0, 1.0, 1e4, 1e35, torch.inf]),
    seed=st.integers(0, 9),
)
def test_gate(lengths, dtype, factor, weight, size, seed):
    logits_BT = values((len(lengths), -(-9 // factor) * factor), dtype, size, seed)
    loss = gate_loss(logits_BT, columns(lengths)[1], reduction_factor=factor, positive_weight=weight)
    check(loss, [logits_BT], finite=size < torch.inf or dtype == torch.float16)
    assert logits_BT.grad.isfinite().all(), "a logit's gradient is at most its weight, whatever the loss"


def alignment(rows, steps, dtype, sharp, seed):
    """Distributions over nine symbols, from almost even to one symbol alone."""
    energies = torch.randn(rows, steps, 9, generator=torch.Generator().manual_seed(seed)) * sharp
    return energies.softmax(2).to(dtype).requires_grad_()


@given(lengths=LENGTHS, dtype=TYPES, sigma=st.sampled_from([1e-3, 0.2, 1e3]), sharp=st.sampled_from([1e-3, 1.0, 1e5]), seed=st.integers(0, 9))
def test_guided_attention(lengths, dtype, sigma, sharp, seed):
    alignment_BSN = alignment(len(lengths), 9, dtype, sharp, seed)
    check(guided_attention_loss(alignment_BSN, *columns(lengths), sigma), [alignment_BSN])


@given(
    lengths=LENGTHS,
    dtype=TYPES,
    factors=st.tuples(st.integers(1, 5), st.integers(2, 12)),
    sharp=st.sampled_from([1e-3, 1.0, 1e5]),
    seed=st.integers(0, 9),
)
def test_consistency(lengths, dtype, factors, sharp, seed):
    both = [alignment(len(lengths), -(-9 // factor), dtype, sharp, seed + place) for place, factor in enumerate(factors)]
    loss = attention_consistency_loss(*both, *columns(lengths), reduction_factors=factors)
    check(loss, both)
    assert loss <= 1 + 1e-2


@given(lengths=LENGTHS, dtype=TYPES, size=st.sampled_from([0.0, 1.0, 1e4, torch.inf]), seed=st.integers(0, 9))
def test_mutual_information(lengths, dtype, size, seed):
    """Up to the type's largest number: the one loss whose value is bounded."""
    logits_BSC = values((len(lengths), 9, CLASSES), dtype, size, seed)
    symbols_B, steps_B = columns(lengths)
    labels_BN = torch.randint(0, CLASSES - 1, (len(lengths), 9), generator=torch.Generator().manual_seed(seed))
    check(mutual_information_loss(Recognition(logits_BSC.float(), labels_BN, symbols_B - 1), steps_B), [logits_BSC])


@pytest.mark.parametrize("kind", ["mse", "l1"])
def test_what_no_float32_can_hold_is_infinite_and_not_a_number_that_looks_well(kind):
    predicted_BTM = torch.full((1, 4, MELS), 3e38, requires_grad=True)
    loss = mel_loss(predicted_BTM, -predicted_BTM.detach(), torch.tensor([4]), kind)
    assert loss == torch.inf
