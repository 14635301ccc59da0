"""Utterances of different lengths one after another in a row, with zeros between: what convolutions run over.

A batch of rows as long as its longest utterance is a quarter padding where lengths are 50-100 %. Here there are only the zeros that keep
utterances apart: as many as a convolution reaches to either side, so that each utterance sees zeros past its ends, as alone.

Shape letters: B batch, T positions (frames or symbols) of the longest, C channels, Z true positions of all utterances, L = Z + zeros.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """Where each utterance is."""

    utterance_Z: Tensor
    position_Z: Tensor
    place_Z: Tensor
    """In the row."""
    valid_11L: Tensor
    """bool: what is not a zero between utterances. L is 0 where no utterance has a position."""

    def join(self, x_BTC: Tensor) -> Tensor:
        """(1, C, L)."""
        empty_LC = x_BTC.new_zeros(self.valid_11L.shape[2], x_BTC.shape[2])
        cells_ZC = x_BTC.flatten(0, 1).index_select(0, self._index(x_BTC.shape[1]))
        return empty_LC.index_copy(0, self.place_Z, cells_ZC).t()[None]

    def split(self, x_1CL: Tensor, batch: int, size: int) -> Tensor:
        """(B, T, C) with T of `size`, zero past each utterance's end: the inverse of `join`."""
        empty_XC = x_1CL.new_zeros(batch * size, x_1CL.shape[1])
        cells_ZC = x_1CL[0].t().index_select(0, self.place_Z)
        return empty_XC.index_copy(0, self._index(size), cells_ZC).view(batch, size, -1)

    def _index(self, size: int) -> Tensor:
        """Of each true position, its place among a batch's B * T."""
        return self.utterance_Z * size + self.position_Z


def row(lengths_B: Tensor, reach: int) -> Row:
    """The row of utterances of these lengths, `reach` zeros between any two. Takes the lengths to the host: one wait for the device."""
    lengths = lengths_B.cpu()
    utterance_Z = torch.repeat_interleave(lengths)
    starts_B = lengths.cumsum(0) - lengths
    position_Z = torch.arange(len(utterance_Z)) - starts_B[utterance_Z]
    place_Z = torch.arange(len(utterance_Z)) + reach * utterance_Z
    valid_11L = torch.zeros(1, 1, int(place_Z[-1]) + 1 if len(place_Z) else 0, dtype=torch.bool)
    valid_11L[:, :, place_Z] = True
    device = lengths_B.device
    return Row(utterance_Z.to(device), position_Z.to(device), place_Z.to(device), valid_11L.to(device))
