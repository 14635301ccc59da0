"""Double decoder consistency: two decoders with different reduction factors should read the text alike (Gölge 2020, erogol.com).

The decoder of larger factor, the coarse one, has fewer steps to align and does so early; the one that speaks is drawn along. Coqui's
implementation stretches the coarse alignment to the other's number of steps, so that it is out of step wherever its factor does not divide the
number of frames, and averages over cells, padding included. Here both are brought to frames, of which each step writes its r, and compared over
true frames only, by the total variation distance of the two distributions: 0 where they are equal, 1 where they have no symbol in common,
whatever the length of the text. The gradient reaches both attentions.

Shape letters: B batch, N symbols, T frames, S decoder steps, r reduction factor.
"""

import torch
from torch import Tensor

from tts.data.batch import length_mask


def attention_consistency_loss(
    alignment_BSN: Tensor,
    coarse_alignment_BSN: Tensor,
    symbol_lengths_B: Tensor,
    mel_lengths_B: Tensor,
    *,
    reduction_factors: tuple[int, int],
    all_lengths_B: Tensor | None = None,
) -> Tensor:
    """Mean over true frames: scalar between 0 and 1 in float32 (float64 stays); 0 if there is no frame.

    The alignments have S of their own, one for each of the factors; either may reach beyond the last true frame. With `all_lengths_B`, the
    mean's share that comes from these rows of a larger batch: shares add up to its mean.
    """
    float_type = torch.promote_types(alignment_BSN.dtype, torch.float32)
    fine_BTN, coarse_BTN = (
        _by_frame(alignment.to(float_type), factor)
        for alignment, factor in zip((alignment_BSN, coarse_alignment_BSN), reduction_factors, strict=True)
    )
    frames = min(fine_BTN.shape[1], coarse_BTN.shape[1])
    valid_BTN = length_mask(mel_lengths_B, frames)[:, :, None] & length_mask(symbol_lengths_B, fine_BTN.shape[2])[:, None]
    distance_BTN = (fine_BTN[:, :frames] - coarse_BTN[:, :frames]).masked_fill(~valid_BTN, 0).abs()
    averaged_B = mel_lengths_B if all_lengths_B is None else all_lengths_B
    return distance_BTN.sum() / 2 / averaged_B.sum().clamp(min=1)


def _by_frame(alignment_BSN: Tensor, reduction_factor: int) -> Tensor:
    """(B, S r, N): each step's row for each frame that the step writes."""
    return alignment_BSN[:, :, None].expand(-1, -1, reduction_factor, -1).flatten(1, 2)
