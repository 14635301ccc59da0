"""Precision of the backward pass; tests/model/test_decoder.py compares its values with the textbook's."""

import pytest
import torch

from tests.model.sizes import model_config
from tts.model.attention import LocationAttention
from tts.model.attention_loop import attention_loop

STEPS, BATCH, SYMBOLS = 600, 2, 6
SUMMED = ("keys_BNA", "location_AC", "score_A")


def gradients(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """At what every step reads. Operands are bf16 numbers in either type, so that only the arithmetic differs."""
    config = model_config()
    torch.manual_seed(0)
    attention = LocationAttention(config)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape).bfloat16().to(dtype)

    gates, width = 4 * config.attention_lstm, config.attention_lstm + config.encoder_lstm
    x_SBP, input_GP = random(STEPS, BATCH, config.prenet), 0.3 * random(gates, config.prenet)
    recurrent_GF, bias_G = 0.3 * random(gates, width), 0.3 * random(gates)
    at = attention.operands(torch.randn(BATCH, SYMBOLS, config.encoder_lstm), torch.tensor([SYMBOLS, 4]))
    at = type(at)(*(tensor.detach().bfloat16().to(dtype) if tensor.is_floating_point() else tensor for tensor in at))
    leaves = [getattr(at, name).requires_grad_() for name in SUMMED]
    _, weights_SBN = attention_loop(x_SBP, input_GP, recurrent_GF, bias_G, None, 1.0, at)
    return dict(zip(SUMMED, torch.autograd.grad((weights_SBN * torch.arange(SYMBOLS)).sum(), leaves), strict=True))


@pytest.mark.parametrize("name", SUMMED)
def test_half_precision_gradients_do_not_lose_steps_on_the_way(name):
    """Summed in bf16, whose 8 bits swallow what is 256 times smaller, 600 steps are off by 4 % (keys) to 20 % (score)."""
    exact, half = gradients(torch.float32)[name], gradients(torch.bfloat16)[name].float()
    assert (half - exact).norm() < 0.025 * exact.norm()
