"""Guided attention: a penalty on attention far from the diagonal (Tachibana et al. 2017, arXiv:1710.08969, section 4).

W[s, n] = 1 - exp(-(n / N - s / S)^2 / (2 sigma^2)) with an utterance's own N symbols and S decoder steps. The loss is the penalty of an average
step, sum(W * A) / sum(S); ESPnet and Coqui average W * A over cells, so that theirs shrinks with the length of the text.

Shape letters: B batch, N symbols, S decoder steps.
"""

import torch
from torch import Tensor

from tts.config import GuidedAttentionConfig
from tts.data.batch import length_mask


def guided_attention_loss(
    alignment_BSN: Tensor, symbol_lengths_B: Tensor, step_lengths_B: Tensor, sigma: float, *, all_step_lengths_B: Tensor | None = None
) -> Tensor:
    """Scalar between 0 and 1 in float32 (float64 stays); 0 if there is no step.

    With `all_step_lengths_B`, the mean's share that comes from these rows of a larger batch: shares add up to its mean.
    """
    _, steps, symbols = alignment_BSN.shape
    float_type = torch.promote_types(alignment_BSN.dtype, torch.float32)
    step_BS1 = _positions(step_lengths_B, steps, float_type)[:, :, None]
    symbol_B1N = _positions(symbol_lengths_B, symbols, float_type)[:, None]
    penalty_BSN = -torch.expm1((symbol_B1N - step_BS1).square() / (-2 * sigma**2))
    invalid_BSN = ~(length_mask(step_lengths_B, steps)[:, :, None] & length_mask(symbol_lengths_B, symbols)[:, None])
    averaged_B = step_lengths_B if all_step_lengths_B is None else all_step_lengths_B
    return (penalty_BSN * alignment_BSN.to(float_type)).masked_fill(invalid_BSN, 0).sum() / averaged_B.sum().clamp(min=1)


def guided_attention_weight(config: GuidedAttentionConfig, step: int) -> float:
    """The term's weight at a step: full for `hold_steps`, then falling linearly to its final share within `decay_steps`."""
    faded = min(max((step - config.hold_steps) / config.decay_steps, 0.0), 1.0)
    return config.weight * (1.0 - faded * (1.0 - config.final_share))


def _positions(lengths_B: Tensor, size: int, float_type: torch.dtype) -> Tensor:
    """(B, size): positions as a share of each row's length."""
    return torch.arange(size, device=lengths_B.device, dtype=float_type) / lengths_B.clamp(min=1)[:, None].to(float_type)
