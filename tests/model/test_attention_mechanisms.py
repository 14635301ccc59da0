"""What is particular to each mechanism; test_decoder.py compares all of them with their plain forms (textbook_attention.py)."""

import numpy as np
import pytest
import torch
from scipy.stats import betabinom
from torch.nn import functional

from tests.model.sizes import MECHANISMS, model_config
from tts.model.attention.choice import new_attention
from tts.model.attention.dynamic_convolution import beta_binomial
from tts.model.attention.mechanism import Attention, Moment
from tts.model.attention_loop import attention_loop
from tts.model.packing import packing


def mechanism_of(name: str, **knobs: int) -> Attention:
    torch.manual_seed(0)
    return new_attention(model_config(attention_mechanism=name, **knobs))


def read(attention: Attention, memory_BNE: torch.Tensor, lengths_B: torch.Tensor, queries_SBH: torch.Tensor) -> torch.Tensor:
    """Weights (S, B, N) of a mechanism that gets the queries given, whatever it attends to."""
    at = attention.operands(memory_BNE, lengths_B)
    state, weights = attention.first_state(at), []
    before_BF = torch.zeros(len(memory_BNE), queries_SBH.shape[2] + memory_BNE.shape[2])
    for query_BH in queries_SBH:
        weights_BN = torch.empty(at.valid_BN.shape)
        after = tuple(torch.zeros_like(tensor) for tensor in state)
        attention.step(at, Moment(state, before_BF, functional.linear(query_BH, at.query_QH), after, weights_BN))
        before_BF = torch.cat((query_BH, torch.bmm(weights_BN[:, None], memory_BNE)[:, 0]), 1)
        state = after
        weights.append(weights_BN)
    return torch.stack(weights)


@pytest.mark.parametrize("trials", [1, 3, 10, 50])
def test_the_prior_filter_is_beta_binomial(trials):
    np.testing.assert_allclose(beta_binomial(trials, 0.1, 0.9), betabinom.pmf(range(trials + 1), trials, 0.1, 0.9), rtol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_padding_gets_no_weight_and_changes_nothing(mechanism):
    attention, lengths_B = mechanism_of(mechanism), torch.tensor([9, 1, 4])
    memory_BNE, queries_SBH = torch.randn(3, 9, 6), torch.randn(40, 3, 10)
    for row, length in enumerate(lengths_B):
        memory_BNE[row, length:] = 0
    together = read(attention, memory_BNE, lengths_B, queries_SBH)
    for row, length in enumerate(lengths_B):
        one = slice(row, row + 1)
        assert not together[:, row, length:].any()
        torch.testing.assert_close(together[:, one, :length], read(attention, memory_BNE[one, :length], lengths_B[one], queries_SBH[:, one]))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_long_text_keeps_a_finite_distribution_and_finite_gradients(mechanism):
    """2,000 steps in float32 over 300 symbols."""
    attention, steps, lengths_B = mechanism_of(mechanism), 2000, torch.tensor([300, 7])
    leaves = [torch.randn(2, 300, 6), torch.randn(2 * steps, 4), torch.randn(40, 4), 0.3 * torch.randn(40, 16), torch.randn(40)]
    memory_BNE, *rest = [leaf.requires_grad_() for leaf in leaves]
    order = packing(torch.tensor([steps, steps]), steps)
    states_ZF, weights_ZN = attention_loop(attention, attention.operands(memory_BNE, lengths_B), order, *rest, None, 1.0)
    torch.testing.assert_close(weights_ZN.sum(1), torch.ones(2 * steps), rtol=0, atol=1e-5)
    assert not order.unpack(weights_ZN)[1, :, 7:].any()
    loss = (weights_ZN * torch.linspace(0, 1, 300)).sum() + states_ZF.square().sum()
    for gradient in torch.autograd.grad(loss, [*leaves, *attention.parameters()]):
        assert gradient.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_energies_hundreds_apart_keep_a_finite_distribution(mechanism):
    """Each product of two such probabilities underflows in float32."""
    attention, lengths_B = mechanism_of(mechanism), torch.tensor([30, 7])
    attention.score.weight.mul_(1e3)
    weights_SBN = read(attention, torch.randn(2, 30, 6), lengths_B, torch.randn(300, 2, 10))
    torch.testing.assert_close(weights_SBN.sum(2), torch.ones(300, 2))
    assert not weights_SBN[:, 1, 7:].any()


@torch.no_grad()
def test_dynamic_convolution_goes_by_its_prior_where_nothing_else_speaks():
    attention = mechanism_of("dynamic_convolution", prior_length=4)
    attention.score.weight.zero_()
    weights_SBN = read(attention, torch.randn(1, 8, 6), torch.tensor([8]), torch.randn(1, 1, 10))
    expected_N = np.pad(betabinom.pmf(range(4), 3, 0.1, 0.9), (0, 4))
    torch.testing.assert_close(weights_SBN[0, 0], torch.tensor(expected_N).float(), rtol=0, atol=1e-5)  # the floor, four times


@torch.no_grad()
def test_dynamic_convolution_does_not_look_at_the_memory():
    attention, lengths_B, queries_SBH = mechanism_of("dynamic_convolution"), torch.tensor([8]), torch.randn(20, 1, 10)
    one, other = (read(attention, torch.randn(1, 8, 6), lengths_B, queries_SBH) for _ in range(2))
    assert torch.equal(one, other)


@torch.no_grad()
@pytest.mark.parametrize("moved", [1, 6, 20])
def test_dynamic_convolution_is_the_same_anywhere_in_a_text(moved):
    """Weights around a symbol, and the same further on: so are the next weights."""
    attention = mechanism_of("dynamic_convolution")
    at = attention.operands(torch.zeros(1, 60, 6), torch.tensor([60]))
    query_BQ, weights = torch.randn(1, 8), []
    for start in (10, 10 + moved):
        (state_BL,) = attention.first_state(at)
        state_BL.zero_()[:, start : start + 3] = torch.tensor([0.2, 0.5, 0.3])
        weights_BN = torch.empty(1, 60)
        attention.step(at, Moment((state_BL,), torch.zeros(1, 16), query_BQ, (torch.zeros_like(state_BL),), weights_BN))
        weights.append(weights_BN)
    near, far = weights
    torch.testing.assert_close(far[:, moved + 5 : moved + 30], near[:, 5:30], rtol=1e-5, atol=1e-7)


@torch.no_grad()
@pytest.mark.parametrize(("bias", "expected"), [(-40.0, [0] * 12), (40.0, [1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7])])
def test_forward_attention_goes_where_its_agent_is_sure(bias, expected):
    """Stay: the first symbol for ever. Move: one symbol a step, up to the last one. The energies say nothing here."""
    attention = mechanism_of("forward")
    attention.score.weight.zero_()
    attention.transition.bias.fill_(bias)
    weights_SBN = read(attention, torch.randn(1, 8, 6), torch.tensor([8]), torch.randn(12, 1, 10))
    assert weights_SBN[:, 0].argmax(1).tolist() == expected


@torch.no_grad()
def test_forward_attention_leaves_no_symbol_out():
    """At most one symbol a step: further on there is no more than the floor under a distribution."""
    attention = mechanism_of("forward")
    weights_SBN = read(attention, torch.randn(2, 9, 6), torch.tensor([9, 9]), torch.randn(8, 2, 10))
    for step in range(7):
        assert weights_SBN[step, :, step + 2 :].sum(1).max() < 1e-4
