"""Dynamic convolution attention (Battenberg et al. 2020, arXiv:1910.10288, section 2.3): where to look next, from where one looked last.

    e[n] = v . tanh(U f[n] + T g[n] + b) + log(max(P * a, 1e-6)),   weights = softmax(e)
    f = F * a,   g = G(q) * a,   G(q) = V tanh(W q + c)

a is the previous weights, at first all on the first symbol. The static filters F are learned, the dynamic filters G are made of the query
at each step; the prior filter P is fixed and causal: its taps are the chances of moving 0, 1, ... symbols forward, beta-binomial with
alpha 0.1 and beta 0.9 (a tenth of its reach in the mean). Nothing looks at the memory, so nothing depends on what is said or on how long it
is: text longer than any in training is read as surely. The floor, which the paper's text does not give, is that of the public
implementations.

Static and dynamic filters have one length here (21 in the paper): their taps are then the same columns, and one product a step.

The state is a, with the zeros that the filters read at either end. As in location.py a step has 2 v . sigmoid(2 (...)) in place of v . tanh(...),
the factors in the operands, and the sigmoid is computed again by the backward pass.

Shape letters as in mechanism.py, and A attention width, K filter length, J = F static + D dynamic filters, R prior length,
L = N + the zeros; Q = A.
"""

from math import exp, lgamma
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tts.config import ModelConfig
from tts.data.batch import length_mask
from tts.model.attention.mechanism import Attention, Moment, MomentGradients, Operands, masked_softmax, softmax_backward
from tts.model.attention.prior import prior_backward, start_at_first_symbol, under_prior
from tts.model.attention.taps import overlapping_sum


def beta_binomial(trials: int, alpha: float, beta: float) -> list[float]:
    """Probability of 0, 1, ... `trials` successes."""

    def log_beta(a: float, b: float) -> float:
        return lgamma(a) + lgamma(b) - lgamma(a + b)

    def log_choices(k: int) -> float:
        return lgamma(trials + 1) - lgamma(k + 1) - lgamma(trials - k + 1)

    return [exp(log_choices(k) + log_beta(k + alpha, trials - k + beta) - log_beta(alpha, beta)) for k in range(trials + 1)]


class DynamicConvolutionAttention(Attention):
    """Own operands: none that differ by utterance; those shared are `_Shared`.

    Weights are Xavier-uniform, with the gain of the tanh where one follows; biases start at zero.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, self.filter_length, self.prior_length = config.attention, config.filter_length, config.prior_length
        self.zeros_before = max(self.filter_length // 2, self.prior_length - 1)
        # The furthest move first, as the weights lie before a symbol.
        prior_R = torch.tensor(beta_binomial(self.prior_length - 1, 0.1, 0.9)).flip(0)
        self.register_buffer("prior_R", prior_R, persistent=False)
        self.query = nn.Linear(config.attention_lstm, width)
        self.filters = nn.Linear(width, config.dynamic_filters * self.filter_length, bias=False)
        self.static_convolution = nn.Conv1d(1, config.static_filters, self.filter_length, padding=self.filter_length // 2, bias=False)
        self.static_dense = nn.Linear(config.static_filters, width, bias=False)
        self.dynamic_dense = nn.Linear(config.dynamic_filters, width)
        self.score = nn.Linear(width, 1, bias=False)
        for layer in (self.query, self.static_dense, self.dynamic_dense):
            nn.init.xavier_uniform_(layer.weight, gain=nn.init.calculate_gain("tanh"))
        for weight in (self.filters.weight, self.static_convolution.weight, self.score.weight):
            nn.init.xavier_uniform_(weight)
        for bias in (self.query.bias, self.dynamic_dense.bias):
            nn.init.zeros_(bias)

    def operands(self, memory_BNE: Tensor, symbol_lengths_B: Tensor) -> Operands:
        """See `Attention`."""
        device = memory_BNE.device.type
        like = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else memory_BNE.dtype
        shared = (
            self.query.bias,
            self.filters.weight,
            self.static_convolution.weight[:, 0],
            2 * torch.cat((self.static_dense.weight, self.dynamic_dense.weight), 1),
            2 * self.dynamic_dense.bias,
            2 * self.score.weight[0],
        )
        return Operands(
            memory_BNE=memory_BNE.to(like),
            valid_BN=length_mask(symbol_lengths_B, memory_BNE.shape[1]),
            query_QH=self.query.weight.to(like),
            utterances=(),
            weights=tuple(tensor.to(like) for tensor in shared),
        )

    def first_state(self, at: Operands) -> tuple[Tensor, ...]:
        """The weights (B, L) before the first step."""
        batch, symbols = at.valid_BN.shape
        float_type = torch.promote_types(at.memory_BNE.dtype, torch.float32)
        weights_BL = at.memory_BNE.new_zeros(batch, self.zeros_before + symbols + self.filter_length // 2, dtype=float_type)
        start_at_first_symbol(weights_BL[:, self._inside(symbols)])
        return (weights_BL,)

    def step(self, at: Operands, now: Moment) -> None:
        """See `Attention`."""
        shared = _Shared(*at.weights)
        columns_BNK = self._columns(now)
        filters_BJK, _ = self._filters(shared, now.query_BQ)
        hidden_BNA = self._hidden(shared, torch.bmm(columns_BNK, filters_BJK.transpose(1, 2)))
        energies_BN = torch.matmul(hidden_BNA, shared.score_A)
        masked_softmax(under_prior(energies_BN, self._prior(now.state[0])), at.valid_BN, now.weights_BN)
        now.after[0][:, self._inside(now.weights_BN.shape[1])] = now.weights_BN

    def step_backward(self, at: Operands, now: Moment, d_now: MomentGradients) -> Tensor:
        """See `Attention`."""
        shared, total, (d_previous_BL,) = _Shared(*at.weights), _Shared(*d_now.sums.weights), d_now.state
        inside = self._inside(now.weights_BN.shape[1])
        columns_BNK = self._columns(now)
        filters_BJK, squashed_BA = self._filters(shared, now.query_BQ)
        filtered_BNJ = torch.bmm(columns_BNK, filters_BJK.transpose(1, 2))
        hidden_BNA = self._hidden(shared, filtered_BNJ)
        d_energies_BN = softmax_backward(now.weights_BN, d_now.weights_BN.add_(d_previous_BL[:, inside]))
        d_prior_BN = prior_backward(self._prior(now.state[0]), d_energies_BN)
        d_energies_BN = d_energies_BN.to(hidden_BNA.dtype)
        total.score_A.add_(torch.mv(hidden_BNA.flatten(0, 1).t(), d_energies_BN.flatten()))
        d_sum_BNA = shared.score_A * d_energies_BN[:, :, None]
        torch.ops.aten.sigmoid_backward.grad_input(d_sum_BNA, hidden_BNA, grad_input=d_sum_BNA)
        d_sum = d_sum_BNA.flatten(0, 1)
        total.bias_A.add_(d_sum.sum(0))
        total.dense_AJ.add_(torch.mm(d_sum.t(), filtered_BNJ.flatten(0, 1)))
        d_filtered_BNJ = torch.mm(d_sum, shared.dense_AJ).view_as(filtered_BNJ)
        d_filters_BJK = torch.bmm(d_filtered_BNJ.transpose(1, 2), columns_BNK)
        self._previous_backward(torch.bmm(d_filtered_BNJ, filters_BJK), d_prior_BN, d_previous_BL[:, inside])
        return self._filters_backward(shared, total, squashed_BA, d_filters_BJK)

    def _inside(self, symbols: int) -> slice:
        return slice(self.zeros_before, self.zeros_before + symbols)

    def _columns(self, now: Moment) -> Tensor:
        """(B, N, K): for each symbol the previous weights around it."""
        around_BL = now.state[0][:, self.zeros_before - self.filter_length // 2 :]
        return around_BL.unfold(1, self.filter_length, 1).to(now.query_BQ.dtype).contiguous()

    def _prior(self, previous_BL: Tensor) -> Tensor:
        """(B, N): the chance of each symbol to come next, by the prior filter alone."""
        symbols = previous_BL.shape[1] - self.zeros_before - self.filter_length // 2
        taps_BNR = previous_BL[:, self.zeros_before - self.prior_length + 1 :].unfold(1, self.prior_length, 1)[:, :symbols]
        return _product(taps_BNR, self.get_buffer("prior_R"))

    def _filters(self, shared: "_Shared", query_BA: Tensor) -> tuple[Tensor, Tensor]:
        """Static and dynamic filters (B, J, K), and the tanh (B, A) that the dynamic ones are made of."""
        batch, length = query_BA.shape[0], self.filter_length
        squashed_BA = (query_BA + shared.query_bias_A).tanh_()
        dynamic_BDK = torch.mm(squashed_BA, shared.filters_XA.t()).view(batch, -1, length)
        return torch.cat((shared.static_FK.expand(batch, -1, -1), dynamic_BDK), 1), squashed_BA

    def _filters_backward(self, shared: "_Shared", total: "_Shared", squashed_BA: Tensor, d_filters_BJK: Tensor) -> Tensor:
        """Gradient (B, A) at the projected query."""
        static = shared.static_FK.shape[0]
        total.static_FK.add_(d_filters_BJK[:, :static].sum(0))
        d_dynamic_BX = d_filters_BJK[:, static:].flatten(1)
        total.filters_XA.add_(torch.mm(d_dynamic_BX.t(), squashed_BA))
        d_query_BA = torch.mm(d_dynamic_BX, shared.filters_XA).mul_(1 - squashed_BA.square())
        total.query_bias_A.add_(d_query_BA.sum(0))
        return d_query_BA

    def _hidden(self, shared: "_Shared", filtered_BNJ: Tensor) -> Tensor:
        """(B, N, A): the sigmoid inside the energies."""
        batch, symbols, _ = filtered_BNJ.shape
        return torch.addmm(shared.bias_A, filtered_BNJ.flatten(0, 1), shared.dense_AJ.t()).sigmoid_().view(batch, symbols, -1)

    def _previous_backward(self, d_columns_BNK: Tensor, d_prior_BN: Tensor, d_previous_BN: Tensor) -> None:
        """Writes the gradient at the previous weights, which each tap of the filters and of the prior read moved by one more symbol."""
        overlapped_BL = overlapping_sum(d_columns_BNK.transpose(1, 2))
        inside = slice(self.filter_length // 2, self.filter_length // 2 + d_prior_BN.shape[1])
        taps_BNR = functional.pad(d_prior_BN, (0, self.prior_length - 1)).unfold(1, self.prior_length, 1)
        moved_BN = _product(taps_BNR, self.get_buffer("prior_R").flip(0))
        torch.add(moved_BN, overlapped_BL[:, inside], out=d_previous_BN)


def _product(taps_BNR: Tensor, filter_R: Tensor) -> Tensor:
    """(B, N), in the taps' type; `torch.mv` takes twice the time on so many short rows."""
    batch, symbols, _ = taps_BNR.shape
    return torch.mm(taps_BNR.reshape(batch * symbols, -1), filter_R.to(taps_BNR.dtype)[:, None]).view(batch, symbols)


class _Shared(NamedTuple):
    """Operands that all utterances share, or the sums of their gradients."""

    query_bias_A: Tensor
    filters_XA: Tensor
    """X = D K."""
    static_FK: Tensor
    dense_AJ: Tensor
    """Static filters' columns, then dynamic ones'."""
    bias_A: Tensor
    score_A: Tensor
