"""Forward attention with a transition agent (Zhang, Ling & Dai 2018, arXiv:1807.06736, algorithm 2): stay, or move on by one symbol.

    paths[n] = (1 - u) a[n] + u a[n - 1],   weights[n] = y[n] max(paths[n], floor) / (sum over all symbols)
    y = softmax of location-sensitive energies (location.py),   u = sigmoid(w . [query, context] + b)

a is the weights of the step before, at first all on the first symbol: they are the forward variable of a text that is read in order, and
what the energies' location channels and the context are made of. u is the chance that the agent moves on; it reads query and context of the
step before, as the paper's does, in one layer, as in ESPnet and Coqui. The paper's agent has a hidden layer and reads the decoder's last
output, too: the query already holds it, through prenet and attention LSTM. Before the first step the agent reads zeros, so that the
paper's u = 0.5 is where b starts. Nobody leaves the last symbol: with no path left, the floor would send attention anywhere in the text.

Both factors are kept apart from underflow by the form in prior.py. The paper has no floor; ESPnet puts 1e-6 under the product.

Shape letters as in location.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tts.config import ModelConfig
from tts.model.attention.location import LocationAttention
from tts.model.attention.mechanism import Moment, MomentGradients, Operands, masked_softmax, softmax_backward
from tts.model.attention.prior import prior_backward, start_at_first_symbol, under_prior


class ForwardAttention(LocationAttention):
    """Own operands: those of location-sensitive attention, then the agent's weight (F) and bias (1)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.transition = nn.Linear(config.attention_lstm + config.encoder_lstm, 1)
        nn.init.xavier_uniform_(self.transition.weight, gain=nn.init.calculate_gain("sigmoid"))
        nn.init.zeros_(self.transition.bias)

    def operands(self, memory_BNE: Tensor, symbol_lengths_B: Tensor) -> Operands:
        """See `Attention`."""
        at = super().operands(memory_BNE, symbol_lengths_B)
        like = at.query_QH.dtype
        return at._replace(weights=(*at.weights, self.transition.weight[0].to(like), self.transition.bias.to(like)))

    def first_state(self, at: Operands) -> tuple[Tensor, ...]:
        """Both location channels (B, 2, L)."""
        (location_B2L,) = super().first_state(at)
        start_at_first_symbol(location_B2L[:, 0, self._inside(at.valid_BN.shape[1])])
        return (location_B2L,)

    def step(self, at: Operands, now: Moment) -> None:
        """See `Attention`."""
        paths_BN = self._paths(self._previous(now.state[0]), self._moves(at, now.before_BF))
        masked_softmax(under_prior(self._energies(at, now), paths_BN), at.valid_BN, now.weights_BN)
        self._carry(now)

    def step_backward(self, at: Operands, now: Moment, d_now: MomentGradients) -> Tensor:
        """See `Attention`."""
        d_energies_BN = softmax_backward(now.weights_BN, self._at_weights(now, d_now))
        d_query_BA = self._energies_backward(at, now, d_now, d_energies_BN)
        previous_BN, moves_BN = self._previous(now.state[0]), self._moves(at, now.before_BF)
        d_paths_BN = prior_backward(self._paths(previous_BN, moves_BN), d_energies_BN)
        # What moves is lost to its symbol and won by the next one.
        d_moved_BN = functional.pad(d_paths_BN, (-1, 1)).sub_(d_paths_BN).mul_(moves_BN)
        self._previous(d_now.state[0]).add_(d_paths_BN).add_(d_moved_BN)
        d_logit_B = (d_moved_BN * previous_BN * (1 - moves_BN)).sum(1)
        d_now.sums.weights[2].addmv_(now.before_BF.to(d_logit_B.dtype).t(), d_logit_B)
        d_now.sums.weights[3].add_(d_logit_B.sum())
        d_now.before_BF.addr_(d_logit_B.to(now.before_BF.dtype), at.weights[2])
        return d_query_BA

    def _previous(self, location_B2L: Tensor) -> Tensor:
        """(B, N): the weights of the step before."""
        return location_B2L[:, 0, self._inside(location_B2L.shape[2] - self.kernel + 1)]

    def _moves(self, at: Operands, before_BF: Tensor) -> Tensor:
        """The chance (B, N) that the agent moves on from each symbol, in float32 (float64 stays): u, and 0 where no symbol follows."""
        *_, transition_F, bias_1 = at.weights
        logits_B = torch.addmv(bias_1, before_BF, transition_F)
        moves_B1 = torch.sigmoid(logits_B.to(torch.promote_types(logits_B.dtype, torch.float32)))[:, None]
        return functional.pad(at.valid_BN[:, 1:], (0, 1)) * moves_B1

    def _paths(self, previous_BN: Tensor, moves_BN: Tensor) -> Tensor:
        moved_BN = previous_BN * moves_BN
        return functional.pad(moved_BN, (1, -1)).add_(previous_BN).sub_(moved_BN)
