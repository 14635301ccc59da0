"""Location-sensitive attention (Chorowski et al. 2015, arXiv:1506.07503, eq. 8-9), as in Tacotron 2.

    e[n] = v . tanh(W_query q + W_memory m[n] + U f[n]),   f = F * [previous weights; cumulated weights],   weights = softmax(e)

The query q is the attention LSTM's output after the step. The memory is projected once an utterance. The location convolution F
(2 channels to `location_filters`) and the dense layer U after it are linear with nothing between, so they act as one convolution from
2 channels to `attention`: its weight is their product, made once a batch.

Softmax and both location channels are float32 whatever the autocast type; masked energies are a finite number, so that a row with
nothing valid gives uniform weights, not NaN.

Shape letters: B batch, N symbols, E memory width, A attention width, H query width, K location kernel.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tts.config import ModelConfig
from tts.data.batch import length_mask

MASKED_ENERGY = -1e30


class AttentionOperands(NamedTuple):
    """What a step of attention reads: fixed while a batch is decoded."""

    memory_BNE: Tensor
    keys_BNA: Tensor
    """The projected memory."""
    valid_BN: Tensor
    query_AH: Tensor
    location_AC: Tensor
    """The fused location convolution, C = 2 K: previous weights' taps, then cumulated weights'."""
    score_A: Tensor


class LocationAttention(nn.Module):
    """Parameters of the attention; Xavier-uniform weights with NVIDIA/tacotron2's gains."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, kernel = config.attention, config.location_kernel
        self.query = nn.Linear(config.attention_lstm, width, bias=False)
        self.memory = nn.Linear(config.encoder_lstm, width, bias=False)
        self.location_convolution = nn.Conv1d(2, config.location_filters, kernel, padding=kernel // 2, bias=False)
        self.location_dense = nn.Linear(config.location_filters, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)
        for layer in (self.query, self.memory, self.location_dense):
            nn.init.xavier_uniform_(layer.weight, gain=nn.init.calculate_gain("tanh"))
        for weight in (self.location_convolution.weight, self.score.weight):
            nn.init.xavier_uniform_(weight)

    def operands(self, memory_BNE: Tensor, symbol_lengths_B: Tensor) -> AttentionOperands:
        """What every step reads, in the type that linear layers give here (the autocast type under autocast)."""
        keys_BNA = self.memory(memory_BNE)
        location_AC = self.location_dense.weight @ self.location_convolution.weight.flatten(1)
        return AttentionOperands(
            memory_BNE=memory_BNE.to(keys_BNA.dtype),
            keys_BNA=keys_BNA,
            valid_BN=length_mask(symbol_lengths_B, memory_BNE.shape[1]),
            query_AH=self.query.weight.to(keys_BNA.dtype),
            location_AC=location_AC.to(keys_BNA.dtype),
            score_A=self.score.weight[0].to(keys_BNA.dtype),
        )


def location_columns(location_B2L: Tensor, kernel: int) -> Tensor:
    """(B * N, 2 K): for each symbol the taps of both channels around it. L = N + K - 1, zeros at both ends."""
    return location_B2L.unfold(2, kernel, 1).transpose(1, 2).flatten(0, 1).flatten(1)


def hidden_energies(at: AttentionOperands, query_BH: Tensor, columns: Tensor) -> Tensor:
    """(B, N, A): the tanh inside the energies."""
    batch, symbols, width = at.keys_BNA.shape
    sum_BNA = torch.addmm(at.keys_BNA.reshape(-1, width), columns.to(at.keys_BNA.dtype), at.location_AC.t()).view(batch, symbols, width)
    return sum_BNA.add_(functional.linear(query_BH, at.query_AH)[:, None]).tanh_()


def attention_weights(at: AttentionOperands, hidden_BNA: Tensor) -> Tensor:
    """(B, N) in float32 (float64 stays): a distribution over each row's valid symbols."""
    energies_BN = torch.mv(hidden_BNA.flatten(0, 1), at.score_A).view(at.valid_BN.shape)
    energies_BN = energies_BN.to(torch.promote_types(energies_BN.dtype, torch.float32))
    return torch.softmax(energies_BN.masked_fill_(~at.valid_BN, MASKED_ENERGY), dim=1)


def context(at: AttentionOperands, weights_BN: Tensor) -> Tensor:
    """(B, E): the memory, averaged by the weights."""
    return torch.bmm(weights_BN.to(at.memory_BNE.dtype)[:, None], at.memory_BNE)[:, 0]
