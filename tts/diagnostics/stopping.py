"""Whether a text was said to its end before the stop gate opened: alignment and gate together.

Shape letters: B batch, S decoder steps, N symbols, T = S r frames, r frames a step.
"""

import torch
from torch import Tensor

from tts.data.batch import length_mask
from tts.diagnostics.attention import END_SYMBOLS, attention_measures
from tts.diagnostics.gate import THRESHOLD, gate_measures


def stopping_measures(
    alignment_BSN: Tensor, gate_probabilities_BT: Tensor, symbol_lengths_B: Tensor, step_lengths_B: Tensor, mel_lengths_B: Tensor
) -> dict[str, Tensor]:
    """Measures of each utterance's end, float32 (B,); `valid` is bool, and every other entry of an invalid utterance is NaN.

    end_reached_before_stop: 1 where attention came to one of the last END_SYMBOLS symbols in the step whose gate opens first, or before it, else 0.
    A gate that never opens leaves all of the utterance to come there.

    Invalid is what `attention_measures` or `gate_measures` call so. Padding may hold anything. Raises ValueError when a length exceeds its
    tensor, or T is no multiple of S.
    """
    steps, frames = alignment_BSN.shape[1], gate_probabilities_BT.shape[1]
    if frames % max(1, steps):
        raise ValueError(f"{frames} frames of a gate are no multiple of an alignment's {steps} steps")
    valid_B = (
        attention_measures(alignment_BSN, symbol_lengths_B, step_lengths_B)["valid"] & gate_measures(gate_probabilities_BT, mel_lengths_B)["valid"]
    )
    if not steps or not alignment_BSN.shape[2]:
        return {"end_reached_before_stop": torch.full_like(valid_B, torch.nan, dtype=torch.float32), "valid": valid_B}
    index_S = torch.arange(steps, device=alignment_BSN.device)
    open_BT = (gate_probabilities_BT.detach().float() > THRESHOLD) & length_mask(mel_lengths_B, frames)
    open_BS = open_BT.view(len(valid_B), steps, frames // steps).any(2)
    stop_B = torch.where(open_BS, index_S, steps).amin(1)
    spoken_BS = length_mask(step_lengths_B, steps) & (index_S <= stop_B[:, None])
    symbol_BN = length_mask(symbol_lengths_B, alignment_BSN.shape[2])
    position_BS = torch.where(symbol_BN[:, None], alignment_BSN.detach().float(), 0.0).argmax(2)
    reached_B = ((position_BS >= symbol_lengths_B[:, None] - END_SYMBOLS) & spoken_BS).any(1)
    return {"end_reached_before_stop": torch.where(valid_B, reached_B.float(), torch.nan), "valid": valid_B}
