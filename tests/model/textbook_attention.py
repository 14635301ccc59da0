"""Attention mechanisms as their papers write them: one step after another, nothing fused, autograd for every gradient.

The oracles of tts/model/attention. Each reads the parameters of the module that it is compared with, and keeps what its paper carries from
step to step. A step takes the query and gives weights and context.

Shape letters as in tts/model/attention.
"""

import torch
from scipy.stats import betabinom
from torch import Tensor
from torch.nn import functional

from tts.model.attention.dynamic_convolution import DynamicConvolutionAttention
from tts.model.attention.forward import ForwardAttention
from tts.model.attention.location import LocationAttention
from tts.model.attention.mechanism import Attention

FLOOR = 1e-6


def first_symbol(invalid_BN: Tensor, like: Tensor) -> Tensor:
    """One-hot weights on the first symbol of each row."""
    weights_BN = like.new_zeros(invalid_BN.shape)
    weights_BN[:, 0] = 1
    return weights_BN


def moved(weights_BN: Tensor, symbols: int) -> Tensor:
    """Weights moved forward by so many symbols; what leaves the end is lost."""
    return torch.cat((torch.zeros_like(weights_BN[:, :symbols]), weights_BN), 1)[:, : weights_BN.shape[1]]


class Location:
    """Chorowski et al. 2015, as in NVIDIA/tacotron2: convolution, dense layer, tanh, score, mask, softmax."""

    def __init__(self, attention, memory_BNE: Tensor, invalid_BN: Tensor) -> None:
        self.attention, self.memory_BNE, self.invalid_BN = attention, memory_BNE, invalid_BN
        self.keys_BNA = attention.memory(memory_BNE)
        self.weights_BN = self.cumulated_BN = memory_BNE.new_zeros(invalid_BN.shape)

    def energies(self, query_BH: Tensor) -> Tensor:
        location_BFN = self.attention.location_convolution(torch.stack((self.weights_BN, self.cumulated_BN), dim=1))
        location_BNA = self.attention.location_dense(location_BFN.transpose(1, 2))
        return self.attention.score(torch.tanh(self.attention.query(query_BH)[:, None] + self.keys_BNA + location_BNA))[:, :, 0]

    def step(self, query_BH: Tensor) -> tuple[Tensor, Tensor]:
        return self.attend(torch.softmax(self.energies(query_BH).masked_fill(self.invalid_BN, float("-inf")), dim=1))

    def attend(self, weights_BN: Tensor) -> tuple[Tensor, Tensor]:
        self.weights_BN, self.cumulated_BN = weights_BN, self.cumulated_BN + weights_BN
        return weights_BN, torch.bmm(weights_BN[:, None], self.memory_BNE)[:, 0]


class Forward(Location):
    """Zhang, Ling & Dai 2018, algorithm 2 (with transition agent), its y from location-sensitive energies.

    The floor under the sum over paths is ours, and that the last symbol keeps what it has. The agent reads query and context; before the
    first step it reads zeros.
    """

    def __init__(self, attention, memory_BNE: Tensor, invalid_BN: Tensor) -> None:
        super().__init__(attention, memory_BNE, invalid_BN)
        self.weights_BN = first_symbol(invalid_BN, memory_BNE)
        self.moves_B1 = torch.sigmoid(attention.transition(memory_BNE.new_zeros(len(memory_BNE), attention.transition.in_features)))
        self.last_BN = functional.one_hot((~invalid_BN).sum(1) - 1, invalid_BN.shape[1])

    def step(self, query_BH: Tensor) -> tuple[Tensor, Tensor]:
        content_BN = torch.softmax(self.energies(query_BH).masked_fill(self.invalid_BN, float("-inf")), dim=1)
        paths_BN = (1 - self.moves_B1) * self.weights_BN + self.moves_B1 * (moved(self.weights_BN, 1) + self.last_BN * self.weights_BN)
        product_BN = torch.clamp(paths_BN, min=FLOOR) * content_BN
        weights_BN, context_BE = self.attend(product_BN / product_BN.sum(1, keepdim=True))
        self.moves_B1 = torch.sigmoid(self.attention.transition(torch.cat((query_BH, context_BE), 1)))
        return weights_BN, context_BE


class DynamicConvolution:
    """Battenberg et al. 2020, eq. 8-10: static and dynamic filters and the prior, all on the previous weights alone."""

    def __init__(self, attention, memory_BNE: Tensor, invalid_BN: Tensor) -> None:
        self.attention, self.memory_BNE, self.invalid_BN = attention, memory_BNE, invalid_BN
        self.weights_BN = first_symbol(invalid_BN, memory_BNE)
        self.prior = betabinom.pmf(range(attention.prior_length), attention.prior_length - 1, 0.1, 0.9).astype("float32")

    def step(self, query_BH: Tensor) -> tuple[Tensor, Tensor]:
        attention, previous_BN = self.attention, self.weights_BN
        static_BNA = attention.static_dense(attention.static_convolution(previous_BN[:, None]).transpose(1, 2))
        filters_BFK = attention.filters(torch.tanh(attention.query(query_BH))).unflatten(1, (-1, attention.filter_length))
        rows = [
            functional.conv1d(row_N[None], filters_FK[:, None], padding="same").t()
            for row_N, filters_FK in zip(previous_BN, filters_BFK, strict=True)
        ]
        dynamic_BNA = attention.dynamic_dense(torch.stack(rows))
        prior_BN = sum(probability * moved(previous_BN, symbols) for symbols, probability in enumerate(self.prior.tolist()))
        energies_BN = attention.score(torch.tanh(static_BNA + dynamic_BNA))[:, :, 0] + torch.log(torch.clamp(prior_BN, min=FLOOR))
        self.weights_BN = torch.softmax(energies_BN.masked_fill(self.invalid_BN, float("-inf")), dim=1)
        return self.weights_BN, torch.bmm(self.weights_BN[:, None], self.memory_BNE)[:, 0]


PLAIN = {LocationAttention: Location, DynamicConvolutionAttention: DynamicConvolution, ForwardAttention: Forward}


def plain_attention(attention: Attention, memory_BNE: Tensor, invalid_BN: Tensor) -> Location | DynamicConvolution:
    """The plain form of a mechanism, before the first step."""
    return PLAIN[type(attention)](attention, memory_BNE, invalid_BN)
