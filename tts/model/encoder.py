"""Symbols into the memory that attention reads (Shen et al. 2018, section 2.2).

Embedding, convolutions, bidirectional LSTM. Differs from NVIDIA/tacotron2: padding reaches neither a convolution, a batch
statistic nor the LSTM, and batches need no sorting.

Shape letters: B batch, N symbols, C channels, E memory width, L true symbols of all utterances and zeros between (row.py).
"""

import math

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tts.config import ModelConfig
from tts.model.convolution import ConvolutionBlock
from tts.model.row import row


class Encoder(nn.Module):
    """Embedding, convolutions, BiLSTM."""

    def __init__(self, config: ModelConfig, *, symbols: int) -> None:
        super().__init__()
        width = config.symbol_embedding
        self.reach = config.encoder_kernel // 2
        self.embedding = nn.Embedding(symbols, width, padding_idx=0)
        self.convolutions = nn.ModuleList(
            ConvolutionBlock(width, width, kernel=config.encoder_kernel, activation="relu", dropout=config.encoder_dropout)
            for _ in range(config.encoder_convolutions)
        )
        self.lstm = nn.LSTM(width, config.encoder_lstm // 2, batch_first=True, bidirectional=True)
        # NVIDIA/tacotron2: variance 2 / (fan in + fan out), drawn uniformly. The padding symbol stays zero.
        bound = math.sqrt(6.0 / (symbols + width))
        nn.init.uniform_(self.embedding.weight[1:], -bound, bound)

    def forward(self, symbols_BN: Tensor, symbol_lengths_B: Tensor) -> Tensor:
        """(B, N, E) memory, zero where padded. Every length is at least 1 and at most N."""
        symbols = row(symbol_lengths_B, self.reach)
        x_1CL = symbols.join(self.embedding(symbols_BN))
        for block in self.convolutions:
            x_1CL = block(x_1CL, symbols.valid_11L)
        x_BNC = symbols.split(x_1CL, *symbols_BN.shape)
        # Packed, or the backward direction would start in the padding. Packing needs the lengths on the host: one transfer a batch.
        packed = pack_padded_sequence(x_BNC, symbol_lengths_B.cpu(), batch_first=True, enforce_sorted=False)
        memory_BNE, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=symbols_BN.shape[1])
        return memory_BNE
