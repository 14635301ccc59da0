"""Gradients of the loop with each mechanism; tests/model/test_decoder.py compares values and gradients with the textbook's."""

import pytest
import torch
from torch.autograd import gradcheck

from tests.model.sizes import MECHANISMS, model_config
from tts.model.attention.choice import new_attention
from tts.model.attention.mechanism import Operands
from tts.model.attention_loop import attention_loop
from tts.model.packing import packing


def loop_on(mechanism: str, *, steps: list[int], symbol_lengths: list[int], dtype: torch.dtype):
    """A function of the leaves alone that runs the loop, and the leaves by name. In any type they are bf16 numbers: only arithmetic differs."""
    config = model_config(attention_mechanism=mechanism)
    torch.manual_seed(0)
    attention = new_attention(config)
    order = packing(torch.tensor(steps), max(steps))
    batch, gates, width = len(symbol_lengths), 4 * config.attention_lstm, config.attention_lstm + config.encoder_lstm
    made = attention.operands(torch.randn(batch, max(symbol_lengths), config.encoder_lstm), torch.tensor(symbol_lengths))
    leaves = {
        "x": torch.randn(sum(steps), config.prenet),
        "input": 0.3 * torch.randn(gates, config.prenet),
        "recurrent": 0.3 * torch.randn(gates, width),
        "bias": 0.3 * torch.randn(gates),
        "memory": made.memory_BNE,
        "query": made.query_QH,
        **{f"utterances {i}": tensor for i, tensor in enumerate(made.utterances)},
        **{f"weights {i}": tensor for i, tensor in enumerate(made.weights)},
    }
    leaves = {name: leaf.detach().bfloat16().to(dtype).requires_grad_() for name, leaf in leaves.items()}

    def run(x_ZP, input_GP, recurrent_GF, bias_G, memory_BNE, query_QH, *own):
        at = Operands(memory_BNE, made.valid_BN, query_QH, own[: len(made.utterances)], own[len(made.utterances) :])
        return attention_loop(attention, at, order, x_ZP, input_GP, recurrent_GF, bias_G, None, 1.0)

    return run, leaves


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_every_gradient_equals_finite_differences(mechanism):
    run, leaves = loop_on(mechanism, steps=[4, 3, 1], symbol_lengths=[6, 1, 4], dtype=torch.float64)
    assert gradcheck(run, tuple(leaves.values()), fast_mode=True)


@pytest.mark.parametrize("mechanism", ["location", "dynamic_convolution"])
def test_half_precision_gradients_do_not_lose_steps_on_the_way(mechanism):
    """Summed in bf16, whose 8 bits swallow what is 256 times smaller, 600 steps are off by 4 % (keys) to 20 % (score).

    Forward attention adds to the same sums, but cannot show it: rounding alone turns its gradients here by 10 %, in any arithmetic.
    """
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        run, leaves = loop_on(mechanism, steps=[600, 500], symbol_lengths=[6, 4], dtype=dtype)
        _, weights_ZN = run(*leaves.values())
        own = {name: leaf for name, leaf in leaves.items() if name.startswith(("utterances", "weights"))}
        gradients.append(dict(zip(own, torch.autograd.grad((weights_ZN * torch.arange(6)).sum(), list(own.values())), strict=True)))
    exact, half = gradients
    for name, gradient in exact.items():
        assert (half[name].float() - gradient).norm() < 0.025 * gradient.norm(), name
