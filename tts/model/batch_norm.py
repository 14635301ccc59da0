"""Batch normalisation whose statistics see valid cells only.

Ioffe & Szegedy 2015 (arXiv:1502.03167). torch's own layer counts padding, so that an utterance's values depend on the lengths of
those beside it. Parameters, buffers and their names are nn.BatchNorm1d's; without padding the two agree.

Shape letters: B batch, C channels, L positions (symbols or frames).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

MOMENTUM = 0.1
"""Share of a batch in the running statistics (torch's default)."""


class MaskedBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm1d on (B, C, L) with a mask."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    over_ranks: Callable[[Tensor], Tensor] | None = None
    """Adds a tensor up over the processes that share a batch, its gradient too: statistics are then those of the whole batch. All of
    them have to call the layer equally often, with no row where they have none."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=MOMENTUM)

    def forward(self, x_BCL: Tensor, valid_B1L: Tensor) -> Tensor:  # type: ignore[override]
        """(B, C, L), in the parameters' precision. `valid_B1L` is bool; cells outside it carry no meaning in the result.

        A batch with a single valid cell is normalised to the bias (torch's layer refuses it): its variance is 0.
        """
        x_BCL = x_BCL.to(self.weight.dtype)  # statistics in float32 whatever the autocast type
        if self.training:
            count = valid_B1L.sum().to(x_BCL.dtype)
            sum_C = x_BCL.masked_fill(~valid_B1L, 0).sum((0, 2))
            if self.over_ranks:
                sums = self.over_ranks(torch.cat((sum_C, count[None])))
                sum_C, count = sums[:-1], sums[-1].detach()
            count = count.clamp(min=1)
            mean_C1 = sum_C.div(count)[:, None]
            # Only the centred values are kept for the backward pass: as much memory as torch's layer.
            centred_BCL = (x_BCL - mean_C1).masked_fill(~valid_B1L, 0)
            squares_C = centred_BCL.square().sum((0, 2))
            if self.over_ranks:
                squares_C = self.over_ranks(squares_C)
            variance_C1 = squares_C.div(count)[:, None]
            self._remember(mean_C1[:, 0].detach(), variance_C1[:, 0].detach(), count)
        else:
            centred_BCL = x_BCL - self.running_mean[:, None]
            variance_C1 = self.running_var[:, None]
        scale_C1 = self.weight[:, None] * torch.rsqrt(variance_C1 + self.eps)
        return centred_BCL * scale_C1 + self.bias[:, None]

    @torch.no_grad()
    def _remember(self, mean_C: Tensor, variance_C: Tensor, count: Tensor) -> None:
        unbiased_C = variance_C * (count / (count - 1).clamp(min=1))
        self.running_mean.lerp_(mean_C, MOMENTUM)
        self.running_var.lerp_(unbiased_C, MOMENTUM)
        self.num_batches_tracked.add_(1)
