"""Location-sensitive attention (Chorowski et al. 2015, arXiv:1506.07503, eq. 8-9), as in Tacotron 2.

    e[n] = v . tanh(W_query q + W_memory m[n] + U f[n]),   f = F * [previous weights; cumulated weights],   weights = softmax(e)

As tanh(x) = 2 sigmoid(2 x) - 1 and a constant in e changes no weight, a step has 2 v . sigmoid(2 (...)), which takes a sixth of tanh's time on
a CPU; the factors are in the operands.

The memory is projected once an utterance. The location convolution F (2 channels to `location_filters`) and the dense layer U after it are
linear with nothing between, so they act as one convolution from 2 channels to `attention`: its weight is their product, made once a batch.

The state is both location channels, with the zeros that the convolution reads at either end. The sigmoid inside the energies (B * N * A
cells a step, more than all else) is not kept but computed again by the backward pass.

Shape letters as in mechanism.py, and A attention width, K location kernel, C = 2 K (previous weights' taps, then cumulated weights'),
L = N + K - 1; Q = A.
"""

import torch
from torch import Tensor, nn

from tts.config import ModelConfig
from tts.data.batch import length_mask
from tts.model.attention.mechanism import Attention, Moment, MomentGradients, Operands, masked_softmax, softmax_backward
from tts.model.attention.taps import overlapping_sum


class LocationAttention(Attention):
    """Own operands: the projected memory (B, N, A); the fused convolution (A, C) and the score (A).

    Weights are Xavier-uniform with NVIDIA/tacotron2's gains.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, kernel = config.attention, config.location_kernel
        self.kernel = kernel
        self.query = nn.Linear(config.attention_lstm, width, bias=False)
        self.memory = nn.Linear(config.encoder_lstm, width, bias=False)
        self.location_convolution = nn.Conv1d(2, config.location_filters, kernel, padding=kernel // 2, bias=False)
        self.location_dense = nn.Linear(config.location_filters, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)
        for layer in (self.query, self.memory, self.location_dense):
            nn.init.xavier_uniform_(layer.weight, gain=nn.init.calculate_gain("tanh"))
        for weight in (self.location_convolution.weight, self.score.weight):
            nn.init.xavier_uniform_(weight)

    def operands(self, memory_BNE: Tensor, symbol_lengths_B: Tensor) -> Operands:
        """See `Attention`."""
        keys_BNA = 2 * self.memory(memory_BNE)
        like = keys_BNA.dtype
        location_AC = 2 * self.location_dense.weight @ self.location_convolution.weight.flatten(1)
        return Operands(
            memory_BNE=memory_BNE.to(like),
            valid_BN=length_mask(symbol_lengths_B, memory_BNE.shape[1]),
            query_QH=2 * self.query.weight.to(like),
            utterances=(keys_BNA,),
            weights=(location_AC.to(like), 2 * self.score.weight[0].to(like)),
        )

    def first_state(self, at: Operands) -> tuple[Tensor, ...]:
        """Both location channels (B, 2, L)."""
        batch, symbols = at.valid_BN.shape
        float_type = torch.promote_types(at.memory_BNE.dtype, torch.float32)
        return (at.memory_BNE.new_zeros(batch, 2, symbols + self.kernel - 1, dtype=float_type),)

    def step(self, at: Operands, now: Moment) -> None:
        """See `Attention`."""
        masked_softmax(self._energies(at, now), at.valid_BN, now.weights_BN)
        self._carry(now)

    def step_backward(self, at: Operands, now: Moment, d_now: MomentGradients) -> Tensor:
        """See `Attention`."""
        return self._energies_backward(at, now, d_now, softmax_backward(now.weights_BN, self._at_weights(now, d_now)))

    def _carry(self, now: Moment) -> None:
        """The weights are the next step's first channel, and a summand of its second."""
        (location_B2L,), (after_B2L,), inside = now.state, now.after, self._inside(now.weights_BN.shape[1])
        after_B2L[:, 0, inside] = now.weights_BN
        torch.add(location_B2L[:, 1, inside], now.weights_BN, out=after_B2L[:, 1, inside])

    def _at_weights(self, now: Moment, d_now: MomentGradients) -> Tensor:
        """Gradient (B, N) at the weights, with that through the state after the step."""
        return d_now.weights_BN.add_(d_now.state[0][:, :, self._inside(now.weights_BN.shape[1])].sum(1))

    def _energies(self, at: Operands, now: Moment) -> Tensor:
        """(B, N) up to a constant, in the operands' type."""
        return torch.matmul(self._hidden(at, self._columns(now), now.query_BQ), at.weights[1])

    def _energies_backward(self, at: Operands, now: Moment, d_now: MomentGradients, d_energies_BN: Tensor) -> Tensor:
        """Gradient (B, A) at the projected query; turns that at the channels after the step into that before it."""
        (location_AC, score_A, *_), (d_location_B2L,) = at.weights, d_now.state
        (d_keys_BNA,), (d_location_AC, d_score_A, *_) = d_now.sums
        columns = self._columns(now)
        hidden_BNA = self._hidden(at, columns, now.query_BQ)
        d_energies_BN = d_energies_BN.to(hidden_BNA.dtype)
        d_score_A.add_(torch.mv(hidden_BNA.flatten(0, 1).t(), d_energies_BN.flatten()))
        d_sum_BNA = score_A * d_energies_BN[:, :, None]
        torch.ops.aten.sigmoid_backward.grad_input(d_sum_BNA, hidden_BNA, grad_input=d_sum_BNA)
        d_keys_BNA.add_(d_sum_BNA)
        d_location_AC.add_(torch.mm(d_sum_BNA.flatten(0, 1).t(), columns))
        taps_BCN = torch.matmul(location_AC.t(), d_sum_BNA.transpose(1, 2))
        d_channels_B2L = overlapping_sum(taps_BCN.view(2 * taps_BCN.shape[0], self.kernel, -1)).view_as(d_location_B2L)
        d_location_B2L[:, 0] = d_channels_B2L[:, 0]
        d_location_B2L[:, 1].add_(d_channels_B2L[:, 1])
        return d_sum_BNA.sum(1)

    def _inside(self, symbols: int) -> slice:
        return slice(self.kernel // 2, self.kernel // 2 + symbols)

    def _columns(self, now: Moment) -> Tensor:
        """(B * N, C): for each symbol the taps of both channels around it."""
        return now.state[0].unfold(2, self.kernel, 1).transpose(1, 2).flatten(0, 1).flatten(1).to(now.query_BQ.dtype)

    def _hidden(self, at: Operands, columns: Tensor, query_BA: Tensor) -> Tensor:
        """(B, N, A): the sigmoid inside the energies."""
        (keys_BNA,), (location_AC, *_) = at.utterances, at.weights
        hidden_BNA = torch.addmm(keys_BNA.reshape(-1, keys_BNA.shape[2]), columns, location_AC.t()).view(keys_BNA.shape)
        return hidden_BNA.add_(query_BA[:, None]).sigmoid_()
