"""Distance between predicted and recorded mel: mean over valid cells (Shen et al. 2018, section 2.2 uses the squared error).

Shape letters: B batch, T frames, M mels.
"""

from typing import Literal

import torch
from torch import Tensor

from tts.data.batch import length_mask
from tts.model.frames import pad_frames


def mel_loss(
    predicted_BTM: Tensor, target_BTM: Tensor, mel_lengths_B: Tensor, kind: Literal["mse", "l1"], *, all_lengths_B: Tensor | None = None
) -> Tensor:
    """Scalar in float32 (float64 stays); 0 if no cell is valid. The prediction may have more frames than the target.

    With `all_lengths_B`, the mean's share that comes from these rows of a larger batch: shares add up to its mean.
    """
    float_type = torch.promote_types(predicted_BTM.dtype, torch.float32)
    target_BTM = pad_frames(target_BTM, predicted_BTM.shape[1])
    invalid_BT1 = ~length_mask(mel_lengths_B, predicted_BTM.shape[1])[:, :, None]
    # Masked before it is squared: whatever stands in the padding, inf * 0 cannot arise.
    difference_BTM = (predicted_BTM.to(float_type) - target_BTM.to(float_type)).masked_fill(invalid_BT1, 0)
    distance_BTM = difference_BTM.square() if kind == "mse" else difference_BTM.abs()
    averaged_B = mel_lengths_B if all_lengths_B is None else all_lengths_B
    return distance_BTM.sum() / (averaged_B.sum() * predicted_BTM.shape[2]).clamp(min=1)
