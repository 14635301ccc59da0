"""The stop gate: binary cross-entropy, one logit a frame.

The label is 1 at an utterance's last frame and at the frames that fill its last decoder step, 0 before. Frames of steps after that are
not counted: synthesis never gets there, and the decoder could tell them by their constant input (NVIDIA/tacotron2 counts them; ESPnet does not).
So an utterance has 1 to r positive frames, and `positive_weight` is how their rarity is made up for.

Shape letters: B batch, T frames, r reduction factor.
"""

import torch
from torch import Tensor
from torch.nn import functional

from tts.data.batch import length_mask
from tts.model.frames import step_lengths


def gate_labels(mel_lengths_B: Tensor, size: int) -> Tensor:
    """(B, size) bool: True from each row's last frame on."""
    return ~length_mask(mel_lengths_B - 1, size)


def gate_loss(
    logits_BT: Tensor, mel_lengths_B: Tensor, *, reduction_factor: int, positive_weight: float, all_lengths_B: Tensor | None = None
) -> Tensor:
    """Mean over the frames of all decoder steps that hold a true frame: scalar in float32 (float64 stays); 0 if there are none.

    With `all_lengths_B`, the mean's share that comes from these rows of a larger batch: shares add up to its mean.
    """
    float_type = torch.promote_types(logits_BT.dtype, torch.float32)
    frames = logits_BT.shape[1]
    counted_BT = length_mask(step_lengths(mel_lengths_B, reduction_factor) * reduction_factor, frames)
    logits_BT = logits_BT.to(float_type).masked_fill(~counted_BT, 0)
    labels_BT = gate_labels(mel_lengths_B, frames).to(float_type)
    weight = logits_BT.new_tensor(positive_weight)
    costs_BT = functional.binary_cross_entropy_with_logits(logits_BT, labels_BT, pos_weight=weight, reduction="none")
    averaged = counted_BT.sum() if all_lengths_B is None else step_lengths(all_lengths_B, reduction_factor).sum() * reduction_factor
    return costs_BT.masked_fill(~counted_BT, 0).sum() / averaged.clamp(min=1)
