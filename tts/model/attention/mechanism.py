"""What a mechanism of attention is to those who use it: the teacher-forced loop (attention_loop.py) and synthesis (free_running.py).

At each step a mechanism gets the query, which is the attention LSTM's output after that step, and what it left for itself at the step
before (its state); it answers with weights over the symbols. The context is the memory averaged by these weights; that, and all of its
gradients, is the caller's business. So is the projection of the query: a mechanism names one matrix `query_QH` and reads the product.

To write one, subclass `Attention`:
1. `operands`: everything that is the same at each step, made once a batch under autograd, so that parameters get their gradients from
   those of the operands. Products of the memory belong here, and products of weights (see the fused convolution in location.py).
2. `first_state`: what the first step reads, tensors with B first. What the backward pass would rather read than compute again is part of
   the state, too: the caller keeps the states of all steps.
3. `step`: one step, without autograd, into tensors that are there already.
4. `step_backward`: the gradient of `step`, by hand. tests/model/test_attention_loop.py compares every mechanism's with finite differences.

Then name it in `new_attention` (choice.py), and write its plain form into tests/model/textbook.py.

A batch shrinks while it is decoded: all tensors with B first are then views of the first rows, or have fewer rows. A CUDA graph may replay
a step with other numbers: no `.item()`, no branch on values, no new state outside the tensors given.

Types: operands are in the type that linear layers give (the autocast type under autocast); weights and states are float32 (float64 stays),
and so are the softmax and what sums over the steps.

Shape letters: B batch, N symbols, E memory width, H query width, Q width of the projected query, F = H + E.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Operands(NamedTuple):
    """What each step reads, fixed while a batch is decoded."""

    memory_BNE: Tensor
    valid_BN: Tensor
    """bool: the symbols that may get weight. Synthesis may narrow it from step to step."""
    query_QH: Tensor
    """Projects the query into what the mechanism reads of it."""
    utterances: tuple[Tensor, ...]
    """The mechanism's own that differ by utterance: B first."""
    weights: tuple[Tensor, ...]
    """The mechanism's own that all utterances share."""

    def rows(self, rows: slice | Tensor) -> "Operands":
        """Those of some utterances."""
        utterances = tuple(tensor[rows] for tensor in self.utterances)
        return self._replace(memory_BNE=self.memory_BNE[rows], valid_BN=self.valid_BN[rows], utterances=utterances)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Operands":
        """Each tensor changed."""
        utterances, weights = tuple(map(change, self.utterances)), tuple(map(change, self.weights))
        return Operands(change(self.memory_BNE), change(self.valid_BN), change(self.query_QH), utterances, weights)


class OwnGradients(NamedTuple):
    """Sums over the steps of the gradients at the mechanism's own operands: float32 (float64 stays), zero at first."""

    utterances: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]


class Moment(NamedTuple):
    """One step, in tensors of the caller's."""

    state: tuple[Tensor, ...]
    """What the step before left."""
    before_BF: Tensor
    """[query, context] of the step before, before any projection; zeros at first."""
    query_BQ: Tensor
    """Of this step, projected."""
    after: tuple[Tensor, ...]
    """Written by the step: what it leaves, each cell of it that is not always 0."""
    weights_BN: Tensor
    """Written by the step: a distribution over each row's valid symbols."""


class MomentGradients(NamedTuple):
    """Gradients at a `Moment`, and the sums that a step adds its own to."""

    sums: OwnGradients
    weights_BN: Tensor
    """At the weights as such: the caller's, to which that through the state is to be added. It may be overwritten."""
    state: tuple[Tensor, ...]
    """At what the step left; overwritten with that at what it read."""
    before_BF: Tensor
    """Added to, by a mechanism that reads `before_BF`."""


class Attention(nn.Module, ABC):
    """A mechanism's parameters and its step. See the module's docstring."""

    @abstractmethod
    def operands(self, memory_BNE: Tensor, symbol_lengths_B: Tensor) -> Operands:
        """What every step reads. Rows of the memory are zero past their lengths."""

    @abstractmethod
    def first_state(self, at: Operands) -> tuple[Tensor, ...]:
        """What the first step reads: tensors (B, ...) that the caller may keep."""

    @abstractmethod
    def step(self, at: Operands, now: Moment) -> None:
        """Writes the weights and the state after this step."""

    @abstractmethod
    def step_backward(self, at: Operands, now: Moment, d_now: MomentGradients) -> Tensor:
        """Gradient (B, Q) at the projected query of the step that `step` made of the same `now`."""


def masked_softmax(energies_BN: Tensor, valid_BN: Tensor, weights_BN: Tensor) -> None:
    """Writes to `weights_BN` a distribution over each row's valid symbols, in its type; uniform where nothing is valid."""
    # The lowest number is that of what is masked, finite for the rows where nothing else is; whatever is valid lies above it.
    lowest = torch.finfo(weights_BN.dtype).min
    above_lowest = lowest * (1 - torch.finfo(weights_BN.dtype).eps)
    masked_BN = energies_BN.to(weights_BN.dtype).clamp(min=above_lowest).masked_fill_(~valid_BN, lowest)
    torch.softmax(masked_BN, dim=1, out=weights_BN)


def softmax_backward(weights_BN: Tensor, d_weights_BN: Tensor) -> Tensor:
    """Gradient (B, N) at the energies; zero where the weight is."""
    return weights_BN * (d_weights_BN - (d_weights_BN * weights_BN).sum(1, keepdim=True))
