"""An LSTM over packed sequences, on a CPU faster than torch's: see recurrent.py.

Weight gradients are products over many steps. Kept for the backward pass are gates, cell states and h.

Shape letters: Z rows (packing.py), I inputs, H LSTM width, G = 4 H gates in torch's order.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tts.model.packing import Packing
from tts.model.recurrent import GateGradients, RepeatedProduct, cell, cell_backward


def lstm_loop(packing: Packing, x_ZI: Tensor, input_GI: Tensor, recurrent_GH: Tensor, bias_G: Tensor) -> Tensor:
    """Outputs h (Z, H) of each step, from a state of zeros. Z is at least 1."""
    with torch.autocast(x_ZI.device.type, enabled=False):
        h_ZH: Tensor = _LstmLoop.apply(packing, x_ZI, input_GI, recurrent_GH, bias_G)
    return h_ZH


class _LstmLoop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packing: Packing, x_ZI: Tensor, input_GI: Tensor, recurrent_GH: Tensor, bias_G: Tensor) -> Tensor:
        rows, hidden = len(x_ZI), recurrent_GH.shape[1]
        gates_ZG = functional.linear(x_ZI, input_GI, bias_G)
        cells_ZH = x_ZI.new_zeros(packing.batch + rows, hidden, dtype=torch.promote_types(x_ZI.dtype, torch.float32))
        states_ZH = x_ZI.new_zeros(packing.batch + rows, hidden)
        recurrent = RepeatedProduct(recurrent_GH)
        for step in packing.schedule():
            gates_BG = gates_ZG[step.rows]
            pre_BG = recurrent.plus(states_ZH[step.before], gates_BG)
            cell(pre_BG, gates_BG, cells_ZH[step.before], cells_ZH[step.after], states_ZH[step.after])
        ctx.packing = packing
        ctx.save_for_backward(x_ZI, input_GI, recurrent_GH, gates_ZG, cells_ZH, states_ZH)
        return states_ZH[packing.batch :]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_h_ZH: Tensor) -> tuple[Tensor | None, ...]:
        x_ZI, input_GI, recurrent_GH, gates_ZG, cells_ZH, states_ZH = ctx.saved_tensors
        packing: Packing = ctx.packing
        gradients = GateGradients(x_ZI, input_GI, states_ZH, packing.before_Z)
        back = RepeatedProduct(recurrent_GH.t())
        # Of utterances that have ended, zero: their last step gets nothing from a later one.
        d_cell_BH, d_after_BH = torch.zeros_like(cells_ZH[: packing.batch]), torch.zeros_like(d_h_ZH[: packing.batch])
        for step in reversed(packing.schedule()):
            d_gates_BG = gradients.of_step(step.rows)
            d_h_BH = d_after_BH[: step.size].add_(d_h_ZH[step.rows])
            cell_backward(d_gates_BG, gates_ZG[step.rows], cells_ZH[step.before], cells_ZH[step.after], d_h_BH, d_cell_BH[: step.size])
            d_h_BH.copy_(back(d_gates_BG))
        gradients.multiply()
        return None, gradients.d_x_ZI, gradients.d_input_GI, gradients.d_recurrent_GF, gradients.d_bias_G
