"""A weak recogniser that listens to the decoder (Liu et al. 2019, arXiv:1909.01145): what it can spell, the decoder has said.

It reads what the mel projection reads, [decoder LSTM's output, context], and knows neither steps before nor after: a text that it can spell is in the
decoder's states themselves, not in what a strong recogniser guesses. It has a class for each symbol of the table, though only spoken ones
are ever to be spelled, and the blank as the last. In float32 whatever the autocast type.

Shape letters: B batch, N symbols, S decoder steps, F width of what it reads, C = V + 1 classes, V symbols of the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts.config import ModelConfig
from tts.data.batch import length_mask
from tts.model.gradient_bound import GradientBound


@dataclass(frozen=True)
class Recognition:
    """What the recogniser heard, and what there was to hear."""

    logits_BSC: Tensor
    """float32 (float64 stays); the blank is the last class."""
    labels_BN: Tensor
    """int64: each text's spoken symbols, in order, at the row's beginning."""
    label_lengths_B: Tensor
    """int64, spoken symbols."""


class Recogniser(nn.Module):
    """Linear, ReLU, dropout, linear."""

    spoken_V: Tensor

    def __init__(self, config: ModelConfig, *, inputs: int, symbols: int) -> None:
        super().__init__()
        self.bound = GradientBound()
        self.hidden = nn.Linear(inputs, config.recogniser)
        self.dropout = nn.Dropout(config.recogniser_dropout)
        self.classes = nn.Linear(config.recogniser, symbols + 1)
        self.register_buffer("spoken_V", torch.arange(symbols) > 1)

    def listen_for(self, spoken: Sequence[int]) -> None:
        """Sets the numbers of the symbols that have a sound; before, all but padding and the end of sequence count as such."""
        self.spoken_V.zero_()
        self.spoken_V[list(spoken)] = True

    def forward(self, heard_BSF: Tensor) -> Tensor:
        """Logits (B, S, C)."""
        with torch.autocast(heard_BSF.device.type, enabled=False):
            logits_BSC: Tensor = self.classes(self.dropout(torch.relu(self.hidden(heard_BSF))))
        return logits_BSC

    def recognise(self, heard_BSF: Tensor, symbols_BN: Tensor, symbol_lengths_B: Tensor) -> Recognition:
        """Logits beside the labels of the texts."""
        spoken_BN = self.spoken_V[symbols_BN] & length_mask(symbol_lengths_B, symbols_BN.shape[1])
        labels_BN = symbols_BN.gather(1, spoken_BN.logical_not().byte().argsort(dim=1, stable=True))
        return Recognition(self(heard_BSF), labels_BN, spoken_BN.sum(1))
