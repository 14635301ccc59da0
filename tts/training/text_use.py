"""Whether a network reads its text: how much worse it foretells recordings when it is given the texts of others.

A voice whose transcripts belong to other recordings can learn to foretell frames from the frames before, and an attention that guidance draws
diagonal looks healthy; but then the text of another recording serves it as well as the right one.

Shape letters: B batch, N symbols, T frames, M mels.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tts.data.batch import Batch, length_mask
from tts.model.output import Tacotron2Output


def with_other_texts(batch: Batch) -> Batch:
    """Each recording with the text of the next one, the last with that of the first."""
    return replace(batch, symbols_BN=batch.symbols_BN.roll(-1, 0), symbol_lengths_B=batch.symbol_lengths_B.roll(-1, 0))


def mel_losses(output: Tacotron2Output, batch: Batch) -> Tensor:
    """(B,) float32: each utterance's squared error after the postnet, a mean over its true cells; NaN where it has no frame."""
    mask_BT = length_mask(batch.mel_lengths_B, batch.mel_BTM.shape[1])
    error_BT = (output.mel_post_BTM[:, : batch.mel_BTM.shape[1]].float() - batch.mel_BTM).square().mean(2)
    return torch.where(mask_BT, error_BT, 0.0).sum(1) / batch.mel_lengths_B


def other_text_losses(batch: Batch, forward: Callable[[Batch], Tacotron2Output]) -> Tensor:
    """(B,) float32 as `mel_losses`, of what the network makes of the recordings with each other's texts; NaN where a text stays what it was."""
    exchanged = with_other_texts(batch)
    same_B = (exchanged.symbols_BN == batch.symbols_BN).all(1)
    return torch.where(same_B, torch.nan, mel_losses(forward(exchanged), exchanged))
