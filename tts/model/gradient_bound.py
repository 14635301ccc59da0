"""A branch whose gradient never outweighs that of the trunk it leaves.

Two gradients meet where a side task reads a layer of the main one. Liu et al. 2019 (arXiv:1909.01145) scale the side task's loss by a ratio of
gradients that they get from two more backward passes every ten iterations. Here the place where the two part sees both on the way back, in the one
backward pass that there is, and scales the side's down before they are added: exact at every step, without state, and at the cost of two norms.
What lies beyond, on the side itself, learns at its own pace.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GradientBound(nn.Module):
    """The place where the branch leaves."""

    share: float = math.inf
    """Of the trunk's gradient norm, how much the branch's may be at most."""
    over_ranks: Callable[[Tensor], Tensor] | None = None
    """Adds a tensor up over the processes that share a batch: norms are then those of the whole batch. All have to run the backward pass."""
    scale: Tensor | None = None
    """What the last backward pass multiplied the branch's gradient by: 1 where it was small enough."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`x` for the trunk, and in float32 (float64 stays) for the branch."""
        trunk, branch = _Part.apply(x, self)
        return trunk, branch

    def join(self, d_trunk: Tensor, d_branch: Tensor) -> Tensor:
        """The sum of the two gradients, the branch's scaled."""
        # Squares overflow only where the norm over all parameters does, too: then there is no update.
        squares = torch.stack([d_trunk.to(d_branch.dtype).square().sum(), d_branch.square().sum()])
        if self.over_ranks:
            squares = self.over_ranks(squares)
        trunk, branch = squares.sqrt()
        allowed = self.share * trunk
        self.scale = torch.where(branch > allowed, allowed / branch, 1.0)
        return d_trunk + (self.scale * d_branch).to(d_trunk.dtype)


class _Part(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: GradientBound) -> tuple[Tensor, Tensor]:
        ctx.bound = bound
        return x.view_as(x), x.to(torch.promote_types(x.dtype, torch.float32)).view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_trunk: Tensor, d_branch: Tensor) -> tuple[Tensor, None]:
        return ctx.bound.join(d_trunk, d_branch), None
