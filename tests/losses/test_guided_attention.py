import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tts.config import GuidedAttentionConfig
from tts.losses.guided_attention import guided_attention_loss, guided_attention_weight


@given(
    lengths=st.lists(st.tuples(st.integers(1, 7), st.integers(0, 9)), min_size=1, max_size=4),
    sigma=st.sampled_from([0.1, 0.2, 0.4]),
    seed=st.integers(0, 99),
)
def test_equals_the_formula_with_each_utterances_own_lengths(lengths, sigma, seed):
    alignment = np.random.default_rng(seed).dirichlet(np.ones(7), size=(len(lengths), 9))
    cost = 0.0
    for row, (symbols, steps) in enumerate(lengths):
        for s in range(steps):
            for n in range(symbols):
                cost += (1 - np.exp(-((n / symbols - s / steps) ** 2) / (2 * sigma**2))) * alignment[row, s, n]
    symbol_lengths, step_lengths = (torch.tensor(column) for column in zip(*lengths, strict=True))
    loss = guided_attention_loss(torch.tensor(alignment), symbol_lengths, step_lengths, sigma)
    assert loss.item() == pytest.approx(cost / max(sum(step_lengths.tolist()), 1), abs=1e-12)


def attention(shape: str, steps: int, symbols: int) -> torch.Tensor:
    """(1, S, N): one of the ways in which attention can go."""
    alignment_SN = torch.zeros(steps, symbols)
    if shape == "uniform":
        alignment_SN += 1 / symbols
    else:
        places = {"diagonal": torch.arange(steps) * symbols // steps, "first": 0, "last": symbols - 1, "middle": symbols // 2}
        alignment_SN[torch.arange(steps), places[shape]] = 1
    return alignment_SN[None]


# By the formula in NumPy, for 80 symbols and 400 steps. Stuck in the middle costs less than uniform: the penalty knows no better.
COSTS = {
    0.2: {"diagonal": 0.0005, "uniform": 0.579, "last": 0.738, "first": 0.748, "middle": 0.505},
    0.4: {"diagonal": 0.0001, "uniform": 0.316, "last": 0.494, "first": 0.504, "middle": 0.209},
}


@pytest.mark.parametrize("sigma", COSTS)
def test_diagonal_costs_less_than_uniform_and_uniform_less_than_stuck_at_an_end(sigma):
    lengths = (torch.tensor([80]), torch.tensor([400]))
    cost = {shape: guided_attention_loss(attention(shape, 400, 80), *lengths, sigma).item() for shape in COSTS[sigma]}
    for shape, expected in COSTS[sigma].items():
        assert cost[shape] == pytest.approx(expected, abs=6e-4), shape
    assert cost["diagonal"] < cost["uniform"] < cost["last"] < cost["first"]


@pytest.mark.parametrize("shape", ["diagonal", "uniform", "first", "last"])
def test_the_cost_does_not_grow_with_length(shape):
    """Four times the text and the speech: the same penalty a step, whereas a mean over cells would shrink to a quarter."""
    short = guided_attention_loss(attention(shape, 100, 20), torch.tensor([20]), torch.tensor([100]), 0.2).item()
    long = guided_attention_loss(attention(shape, 400, 80), torch.tensor([80]), torch.tensor([400]), 0.2).item()
    assert long == pytest.approx(short, abs=0.05)


def test_padding_is_not_seen():
    alignment_BSN = torch.rand(2, 5, 4, requires_grad=True)
    symbol_lengths_B, step_lengths_B = torch.tensor([4, 2]), torch.tensor([3, 5])
    noisy_BSN = alignment_BSN.detach().clone()
    noisy_BSN[0, 3:] = float("inf")
    noisy_BSN[1, :, 2:] = 1e30
    loss = guided_attention_loss(alignment_BSN, symbol_lengths_B, step_lengths_B, 0.2)
    assert torch.equal(loss, guided_attention_loss(noisy_BSN, symbol_lengths_B, step_lengths_B, 0.2))
    loss.backward()
    assert not alignment_BSN.grad[0, 3:].any()
    assert not alignment_BSN.grad[1, :, 2:].any()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(half):
    alignment_BSN = attention("uniform", 3000, 128).to(half)
    loss = guided_attention_loss(alignment_BSN, torch.tensor([128]), torch.tensor([3000]), 0.2)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.579, abs=1e-3)


def test_one_symbol_and_one_step_cost_nothing():
    assert guided_attention_loss(torch.ones(1, 1, 1), torch.tensor([1]), torch.tensor([1]), 0.2).item() == 0


def test_the_weight_holds_then_falls_linearly_then_stays():
    config = GuidedAttentionConfig(weight=8.0, hold_steps=100, decay_steps=200, final_share=0.25)
    weights = {step: guided_attention_weight(config, step) for step in (0, 100, 101, 200, 300, 10**6)}
    assert weights == pytest.approx({0: 8.0, 100: 8.0, 101: 7.97, 200: 5.0, 300: 2.0, 10**6: 2.0})
