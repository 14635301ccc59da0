"""Activation and dropout as one operation that keeps, for its backward pass, what it returns and one byte a cell.

torch keeps the activation's result, the dropout's mask as floats and the dropout's result, each as large as the layer. The activation's
gradient can be had from the result alone, wherever it was not dropped.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Activation = Literal["relu", "tanh", "linear"]


def activate(x: Tensor, activation: Activation, dropout: float, valid: Tensor | None = None) -> Tensor:
    """The activation's result, zero where dropped or not `valid` (bool, broadcast to x), what is left of it scaled by 1 / (1 - dropout).

    Dropout, at least 0 and less than 1, draws from torch's global generator.
    """
    gone = None if valid is None else ~valid
    if dropout > 0:
        dropped = torch.rand_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) < dropout
        gone = dropped if gone is None else dropped.logical_or_(gone)
    y: Tensor = _Activate.apply(x, activation, gone, 1 / (1 - dropout))
    return y


class Dropout(nn.Module):
    """nn.Dropout that keeps a byte a cell."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """In eval mode x itself."""
        return activate(x, "linear", self.dropout) if self.training and self.dropout > 0 else x


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Activation, gone: Tensor | None, scale: float) -> Tensor:
        y = torch.relu(x) if activation == "relu" else torch.tanh(x) if activation == "tanh" else x.clone()
        if gone is not None:
            y.masked_fill_(gone, 0)
        if scale != 1:
            y.mul_(scale)
        ctx.activation, ctx.scale = activation, scale
        ctx.save_for_backward(None if activation == "linear" else y, gone)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        y, gone = ctx.saved_tensors
        scale: float = ctx.scale
        if ctx.activation == "relu":
            d_x = torch.ops.aten.threshold_backward(d_y, y, 0).mul_(scale)
        elif ctx.activation == "tanh":  # scale (1 - tanh(x)^2)
            d_x = (y * y).mul_(-1 / scale).add_(scale).mul_(d_y)
        else:
            d_x = d_y * scale
        if gone is not None:
            d_x.masked_fill_(gone, 0)
        return d_x, None, None, None
