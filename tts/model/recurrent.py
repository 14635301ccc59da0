"""What both of the decoder's LSTMs do at a step, forward and back, without autograd: see attention_loop.py and lstm_loop.py.

Shape letters: B batch, H LSTM width, G = 4 H gates in torch's order (input, forget, cell, output), Z rows of many steps (packing.py),
I, O a product's inputs and outputs.
"""

import torch
from torch import Tensor
from torch.nn import functional

ROWS_AT_ONCE = 1024
"""Rows of gate gradients that are kept until they are multiplied: enough for a fast product, few beside the gates of all steps."""


class RepeatedProduct:
    """x @ weight.t() at hundreds of steps, each with few rows.

    Most of such a product is reading the weight. On a CPU it is brought once into the layout that oneDNN's kernels read (torch's own
    inductor does this to frozen weights): 16 rows with 4096 x 1536 weights take 2.3 ms instead of 4.0 on one core of an EPYC 9004.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        self.weight_OI, self.bias_O = weight_OI, bias_O
        self.packed: Tensor | None = None
        has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        if weight_OI.device.type == "cpu" and weight_OI.dtype == torch.float32 and has_onednn:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach().contiguous(), 16)  # noqa: SLF001

    def __call__(self, x_BI: Tensor) -> Tensor:
        """(B, O), the bias added if there is one."""
        if self.packed is None:
            return functional.linear(x_BI, self.weight_OI, self.bias_O)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x_BI, self.packed, self.bias_O, "none", [], "")  # noqa: SLF001
        return product

    def plus(self, x_BI: Tensor, summand_BO: Tensor) -> Tensor:
        """(B, O): the product and a summand, without the bias."""
        if self.packed is None:
            return torch.addmm(summand_BO, x_BI, self.weight_OI.t())
        total: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x_BI, summand_BO, self.packed, None, "add")  # noqa: SLF001
        return total


def tanh(x: Tensor, out: Tensor | None = None) -> Tensor:
    """As 2 sigmoid(2 x) - 1 where that is as exact: torch's tanh takes six times as long as its sigmoid on a CPU."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return torch.tanh(x, out=out)
    return torch.mul(x, 2, out=out).sigmoid_().mul_(2).sub_(1)


def cell(pre_BG: Tensor, gates_BG: Tensor, before_BH: Tensor, after_BH: Tensor, h_BH: Tensor) -> None:
    """LSTM cell: from pre-activations to activated gates, to the new cell state and to h, each written where it is to be kept."""
    hidden = before_BH.shape[1]
    torch.sigmoid(pre_BG[:, : 2 * hidden], out=gates_BG[:, : 2 * hidden])
    tanh(pre_BG[:, 2 * hidden : 3 * hidden], out=gates_BG[:, 2 * hidden : 3 * hidden])
    torch.sigmoid(pre_BG[:, 3 * hidden :], out=gates_BG[:, 3 * hidden :])
    input_BH, forget_BH, candidate_BH, output_BH = gates_BG.chunk(4, dim=1)
    torch.mul(before_BH, forget_BH, out=after_BH)
    after_BH.addcmul_(input_BH, candidate_BH)
    torch.mul(tanh(after_BH), output_BH, out=h_BH)


def cell_backward(d_gates_BG: Tensor, gates_BG: Tensor, before_BH: Tensor, after_BH: Tensor, d_h_BH: Tensor, d_cell_BH: Tensor) -> None:
    """Writes the gradient at the gates' pre-activations; turns `d_cell_BH`, at the cell state after, into that at the one before."""
    sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
    input_BH, forget_BH, candidate_BH, output_BH = gates_BG.chunk(4, dim=1)
    d_input_BH, d_forget_BH, d_candidate_BH, d_output_BH = d_gates_BG.chunk(4, dim=1)
    squashed_BH = tanh(after_BH)
    sigmoid_backward.grad_input(d_h_BH * squashed_BH, output_BH, grad_input=d_output_BH)
    d_cell_BH.add_(tanh_backward(d_h_BH * output_BH, squashed_BH))
    sigmoid_backward.grad_input(d_cell_BH * candidate_BH, input_BH, grad_input=d_input_BH)
    sigmoid_backward.grad_input(d_cell_BH * before_BH, forget_BH, grad_input=d_forget_BH)
    tanh_backward.grad_input(d_cell_BH * input_BH, candidate_BH, grad_input=d_candidate_BH)
    d_cell_BH.mul_(forget_BH)


class GateGradients:
    """Gate gradients of step after step, last step first, and what they come to for the LSTM's input, weights and bias.

    They are kept until there are enough for fast products; sums over all steps are float32 (float64 stays).
    """

    def __init__(self, x_ZI: Tensor, input_GI: Tensor, states_ZF: Tensor, before_Z: Tensor, at_once: int = ROWS_AT_ONCE) -> None:
        """`before_Z` says for each row which of `states_ZF` the recurrent weights saw. `at_once`: rows that are kept, no fewer than a step's."""
        (self.x_ZI, self.input_GI, self.states_ZF, self.before_Z) = x_ZI, input_GI, states_ZF, before_Z
        gates, rows = len(input_GI), len(x_ZI)
        float_type = torch.promote_types(x_ZI.dtype, torch.float32)
        self.d_x_ZI = torch.empty_like(x_ZI)
        self.d_input_GI = torch.zeros_like(input_GI, dtype=float_type)
        self.d_recurrent_GF = input_GI.new_zeros(gates, states_ZF.shape[1], dtype=float_type)
        self.d_bias_G = input_GI.new_zeros(gates, dtype=float_type)
        self.kept = x_ZI.new_empty(min(rows, at_once), gates)
        self.first, self.last = rows, rows

    def of_step(self, rows: slice) -> Tensor:
        """(B, G): where the step that has these rows writes its gradients."""
        if self.last - rows.start > len(self.kept):
            self.multiply()
        self.first = rows.start
        offset = self.last - len(self.kept)
        return self.kept[rows.start - offset : rows.stop - offset]

    def multiply(self) -> None:
        """Empties what is kept into the sums. To be called after the first step, too."""
        rows = slice(self.first, self.last)
        d_gates_ZG = self.kept[len(self.kept) - (self.last - self.first) :]
        torch.mm(d_gates_ZG, self.input_GI, out=self.d_x_ZI[rows])
        _add_product(self.d_input_GI, d_gates_ZG.t(), self.x_ZI[rows])
        _add_product(self.d_recurrent_GF, d_gates_ZG.t(), self.states_ZF.index_select(0, self.before_Z[rows]))
        self.d_bias_G.add_(d_gates_ZG.sum(0))
        self.last = self.first


def _add_product(total: Tensor, one: Tensor, other: Tensor) -> None:
    if total.dtype == one.dtype:
        total.addmm_(one, other)
    else:
        total.add_(torch.mm(one, other))
