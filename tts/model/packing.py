"""Steps of utterances of different lengths, one below the other, with nothing between: what torch calls a packed sequence.

Rows are ordered by step, and within a step by falling length, so that a step's rows are the first so many of the step before. Whatever acts
on each row alone (linear layers, dropout) then works on true steps only, and a recurrent step on the utterances that still run.

Shape letters: B batch, S decoder steps, Z rows: the sum of all utterances' steps.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Step(NamedTuple):
    """Where a step finds its rows, in tensors that begin with B rows for the time before the first step."""

    before: slice
    """Of the step before, those that still run."""
    after: slice
    rows: slice
    """As `after`, in tensors without such a beginning."""

    @property
    def size(self) -> int:
        """Utterances that still run."""
        return len(range(self.rows.stop)[self.rows])


@dataclass(frozen=True)
class Packing:
    """The order of a batch's steps."""

    batch: int
    steps: int
    """Of the tensors that are packed: at least as many as the longest utterance has."""
    order_B: Tensor
    """Utterances, the longest first."""
    sizes: tuple[int, ...]
    """Utterances that still run, step by step; never 0."""
    index_Z: Tensor
    """Of each row, its place among the batch's B * S."""
    before_Z: Tensor
    """Of each row, the row of the step before, in tensors that begin with B rows for the time before the first step."""

    def pack(self, x_BS: Tensor) -> Tensor:
        """(B, S, ...) into (Z, ...)."""
        return x_BS.flatten(0, 1).index_select(0, self.index_Z)

    def unpack(self, x_Z: Tensor) -> Tensor:
        """(Z, ...) into (B, S, ...), zero past an utterance's end."""
        empty = x_Z.new_zeros(self.batch * self.steps, *x_Z.shape[1:])
        return empty.index_copy(0, self.index_Z, x_Z).view(self.batch, self.steps, *x_Z.shape[1:])

    def spread(self, x_Z: Tensor, rows_Z: Tensor) -> Tensor:
        """All rows of this packing, zero but for those named."""
        return x_Z.new_zeros(len(self.index_Z), *x_Z.shape[1:]).index_copy(0, rows_Z, x_Z)

    def rows_among(self, batch: int) -> Tensor:
        """(Z): of each row, its place in a dense packing of `batch` utterances, which are these in this order and perhaps others after them."""
        place_B = torch.empty_like(self.order_B)
        place_B[self.order_B] = torch.arange(self.batch, device=self.order_B.device)
        return self.index_Z % self.steps * batch + place_B[self.index_Z // self.steps]

    def schedule(self) -> list[Step]:
        """All steps, first to last."""
        start, before, steps = 0, 0, []
        for size in self.sizes:
            after = self.batch + start
            steps.append(Step(slice(before, before + size), slice(after, after + size), slice(start, start + size)))
            before, start = after, start + size
        return steps


def packing(step_lengths_B: Tensor, steps: int) -> Packing:
    """The packing of utterances of these lengths, in any order. Takes the lengths to the host: one wait for the device."""
    lengths = step_lengths_B.cpu()
    falling = lengths.sort(descending=True, stable=True)
    running_SB = falling.values > torch.arange(steps)[:, None]
    step_Z, place_Z = running_SB.nonzero(as_tuple=True)
    sizes_S = running_SB.sum(1)
    starts_S = sizes_S.cumsum(0) - sizes_S
    # The beginning of B rows stands for step -1.
    starts_S = torch.cat((torch.zeros(1, dtype=torch.int64), len(lengths) + starts_S))
    device = step_lengths_B.device
    return Packing(
        batch=len(lengths),
        steps=steps,
        order_B=falling.indices.to(device),
        sizes=tuple(size for size in sizes_S.tolist() if size),
        index_Z=(falling.indices[place_Z] * steps + step_Z).to(device),
        before_Z=(starts_S[step_Z] + place_Z).to(device),
    )


def dense_packing(batch: int, steps: int, device: torch.device) -> Packing:
    """The packing of utterances that all have so many steps, in the order in which they are."""
    rows_Z = torch.arange(batch * steps, device=device)
    index_Z = rows_Z.view(batch, steps).t().flatten()
    return Packing(batch, steps, order_B=rows_Z[:batch], sizes=(batch,) * steps, index_Z=index_Z, before_Z=rows_Z)
