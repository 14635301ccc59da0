"""Whether the stop gate opens where the recording ends, measured per utterance on true lengths.

Shape letters: B batch, T frames.
"""

import torch
from torch import Tensor

from tts.data.batch import length_mask

THRESHOLD = 0.5
"""Probability above which the gate counts as open, whatever synthesis is configured to: measures stay comparable across runs."""


def gate_measures(gate_probabilities_BT: Tensor, mel_lengths_B: Tensor) -> dict[str, Tensor]:
    """Measures of each utterance's stop gate, float32 (B,); `valid` is bool, and every other entry of an invalid utterance is NaN.

    accuracy: share of true frames on the right side of THRESHOLD; the last frame should be open, those before it shut.
    balanced_accuracy: mean of the shares of shut frames before the last and of open last ones: 0.5 for a gate that is always shut, or always open.
    stop_error_frames: distance from the first open frame to the true last frame; infinite where no true frame is open.
    stopped: 1 where some true frame is open, else 0.
    on_time: 1 where the first open frame is at most a quarter of the recording from its last.

    An utterance without frames, or with a probability that is NaN or outside 0..1, is invalid. Padding may hold anything.
    Raises ValueError when a length exceeds the tensor.
    """
    T = gate_probabilities_BT.shape[1]
    if mel_lengths_B.numel() and int(mel_lengths_B.max()) > T:
        raise ValueError(f"mel length {int(mel_lengths_B.max())} exceeds the gate's {T}")
    frame_BT = length_mask(mel_lengths_B, T)
    gate_BT = torch.where(frame_BT, gate_probabilities_BT.detach().float(), 0.0)
    valid_B = ((gate_BT >= 0) & (gate_BT <= 1)).all(1) & (mel_lengths_B > 0)
    index_T = torch.arange(T, device=gate_BT.device)
    open_BT = (gate_BT > THRESHOLD) & frame_BT
    last_BT = index_T == mel_lengths_B[:, None] - 1
    stopped_B = open_BT.any(1)
    # The first open frame; T stands for none and is replaced below.
    first_B = torch.where(open_BT, index_T, T).amin(1) if T else torch.zeros_like(mel_lengths_B)
    error_B = (first_B - (mel_lengths_B - 1)).abs().float()
    measures = {
        "accuracy": ((open_BT == last_BT) & frame_BT).sum(1) / mel_lengths_B.clamp(min=1),
        "balanced_accuracy": _balanced(open_BT, frame_BT, last_BT),
        "stop_error_frames": torch.where(stopped_B, error_B, torch.inf),
        "stopped": stopped_B,
        "on_time": stopped_B & (error_B <= mel_lengths_B / 4),
    }
    return {name: torch.where(valid_B, value.float(), torch.nan) for name, value in measures.items()} | {"valid": valid_B}


def _balanced(open_BT: Tensor, frame_BT: Tensor, last_BT: Tensor) -> Tensor:
    stopped_B = (open_BT & last_BT).any(1).float()
    before_BT = frame_BT & ~last_BT
    count_B = before_BT.sum(1)
    shut_B = (before_BT & ~open_BT).sum(1) / count_B.clamp(min=1)
    # A single frame has none before it.
    return torch.where(count_B > 0, (stopped_B + shut_B) / 2, stopped_B)
