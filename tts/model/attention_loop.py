"""Attention LSTM and attention over a teacher-forced sequence: the only part of the decoder that must run step by step.

One autograd function with its backward pass written out (backpropagation through time). Against autograd over single steps:
- the prenet's share of the gate pre-activations, biases included, is one matrix product before the loop; a step adds one `addmm` on
  [h, context];
- weight gradients are one product after the backward loop, where autograd adds a rank-B update to a matrix of 29 MB at every step;
- kept for the backward pass are gates, cell states, [h, context] and attention weights; the tanh inside the energies (B * N * A cells
  a step, more than all of these) is computed again.
tests/model/textbook.py holds the plain loop; outputs and gradients agree to 1e-10 in float64.

Shape letters: B batch, N symbols, S decoder steps, P prenet width, H attention LSTM width, E memory width, A attention width,
K location kernel; G = 4 H gates in torch's order (input, forget, cell, output).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tts.model.attention import AttentionOperands, attention_weights, context, hidden_energies, location_columns


def attention_loop(
    x_SBP: Tensor, input_GP: Tensor, recurrent_GF: Tensor, bias_G: Tensor, kept_SBH: Tensor | None, keep_scale: float, at: AttentionOperands
) -> tuple[Tensor, Tensor]:
    """States (S, B, H + E), which are [h, context] after each step, and attention weights (S, B, N) in float32 (float64 stays).

    `recurrent_GF` acts on F = H + E inputs. `kept_SBH` is the dropout mask of h (recurrent, as in NVIDIA/tacotron2), None for none,
    and `keep_scale` what kept cells are multiplied by. S is at least 1.
    """
    with torch.autocast(x_SBP.device.type, enabled=False):
        states_SBF, weights_SBN = _AttentionLoop.apply(x_SBP, input_GP, recurrent_GF, bias_G, kept_SBH, keep_scale, *at)
    return states_SBF, weights_SBN


class _AttentionLoop(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_SBP: Tensor, input_GP: Tensor, recurrent_GF: Tensor, bias_G: Tensor, kept_SBH: Tensor | None, keep_scale: float, *operands: Tensor
    ) -> tuple[Tensor, Tensor]:
        at = AttentionOperands(*operands)
        steps, batch, _ = x_SBP.shape
        hidden, symbols, kernel = bias_G.shape[0] // 4, at.valid_BN.shape[1], at.location_AC.shape[1] // 2
        float_type = torch.promote_types(x_SBP.dtype, torch.float32)
        gates_SBG = functional.linear(x_SBP, input_GP, bias_G)
        states = x_SBP.new_zeros(steps + 1, batch, recurrent_GF.shape[1])
        cells = x_SBP.new_zeros(steps + 1, batch, hidden, dtype=float_type)
        weights_SBN = x_SBP.new_empty(steps, batch, symbols, dtype=float_type)
        locations = x_SBP.new_zeros(steps + 1, batch, 2, symbols + kernel - 1, dtype=float_type)
        inside = slice(kernel // 2, kernel // 2 + symbols)
        for step in range(steps):
            gates_BG = gates_SBG[step].addmm_(states[step], recurrent_GF.t())
            h_BH = states[step + 1, :, :hidden]
            h_BH.copy_(_cell(gates_BG, cells[step], cells[step + 1]))
            if kept_SBH is not None:
                h_BH.mul_(kept_SBH[step]).mul_(keep_scale)
            columns = location_columns(locations[step], kernel)
            weights_BN = attention_weights(at, hidden_energies(at, h_BH, columns))
            states[step + 1, :, hidden:] = context(at, weights_BN)
            weights_SBN[step] = weights_BN
            locations[step + 1, :, 0, inside] = weights_BN
            torch.add(locations[step, :, 1, inside], weights_BN, out=locations[step + 1, :, 1, inside])
        ctx.keep_scale = keep_scale
        ctx.save_for_backward(x_SBP, input_GP, recurrent_GF, kept_SBH, *operands, gates_SBG, states, cells, weights_SBN, locations)
        return states[1:], weights_SBN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_states_SBF: Tensor, d_weights_SBN: Tensor) -> tuple[Tensor | None, ...]:
        x_SBP, input_GP, recurrent_GF, kept_SBH, *rest = ctx.saved_tensors
        at = AttentionOperands(*rest[:6])
        gates_SBG, states, cells, weights_SBN, locations = rest[6:]
        steps, hidden = gates_SBG.shape[0], gates_SBG.shape[2] // 4
        d_gates_SBG = torch.empty_like(gates_SBG)
        d_states = torch.empty_like(d_states_SBF)
        attention = _AttentionBackward(at, steps, cells.dtype)
        d_state_BF = torch.zeros_like(states[0])
        d_cell_BH = torch.zeros_like(cells[0])
        for step in reversed(range(steps)):
            d_state_BF = torch.add(d_state_BF, d_states_SBF[step], out=d_states[step])
            d_h_BH = d_state_BF[:, :hidden] + attention.step(
                step, states[step + 1, :, :hidden], locations[step], weights_SBN[step], d_state_BF[:, hidden:], d_weights_SBN[step]
            )
            if kept_SBH is not None:
                d_h_BH.mul_(kept_SBH[step]).mul_(ctx.keep_scale)
            d_cell_BH = _cell_backward(d_gates_SBG[step], gates_SBG[step], cells[step], cells[step + 1], d_h_BH, d_cell_BH)
            d_state_BF = torch.mm(d_gates_SBG[step], recurrent_GF)
        d_gates = d_gates_SBG.flatten(0, 1)
        return (
            torch.mm(d_gates, input_GP).view_as(x_SBP),
            torch.mm(d_gates.t(), x_SBP.flatten(0, 1)),
            torch.mm(d_gates.t(), states[:-1].flatten(0, 1)),
            d_gates.sum(0),
            None,
            None,
            torch.bmm(weights_SBN.permute(1, 2, 0).to(d_states.dtype), d_states[:, :, hidden:].transpose(0, 1)),
            attention.d_keys_BNA,
            None,
            torch.mm(attention.d_query_SBA.flatten(0, 1).t(), states[1:, :, :hidden].flatten(0, 1)),
            attention.d_location_AC,
            attention.d_score_A,
        )


def _cell(gates_BG: Tensor, before_BH: Tensor, after_BH: Tensor) -> Tensor:
    """LSTM cell: activates the gates in place, writes the new cell state to `after_BH`, returns h (B, H)."""
    hidden = before_BH.shape[1]
    gates_BG[:, : 2 * hidden].sigmoid_()
    gates_BG[:, 2 * hidden : 3 * hidden].tanh_()
    gates_BG[:, 3 * hidden :].sigmoid_()
    input_BH, forget_BH, candidate_BH, output_BH = gates_BG.chunk(4, dim=1)
    torch.mul(before_BH, forget_BH, out=after_BH)
    after_BH.add_(input_BH * candidate_BH)
    return torch.tanh(after_BH).mul_(output_BH)


def _cell_backward(d_gates_BG: Tensor, gates_BG: Tensor, before_BH: Tensor, after_BH: Tensor, d_h_BH: Tensor, d_cell_BH: Tensor) -> Tensor:
    """Writes the gradient at the gates' pre-activations to `d_gates_BG`; returns the one at the cell state before (B, H)."""
    hidden = before_BH.shape[1]
    input_BH, forget_BH, candidate_BH, output_BH = gates_BG.chunk(4, dim=1)
    squashed_BH = torch.tanh(after_BH)
    d_cell_BH = d_cell_BH + d_h_BH * output_BH * (1 - squashed_BH.square())
    d_gates_BG[:, :hidden] = d_cell_BH * candidate_BH * input_BH * (1 - input_BH)
    d_gates_BG[:, hidden : 2 * hidden] = d_cell_BH * before_BH * forget_BH * (1 - forget_BH)
    d_gates_BG[:, 2 * hidden : 3 * hidden] = d_cell_BH * input_BH * (1 - candidate_BH.square())
    d_gates_BG[:, 3 * hidden :] = d_h_BH * squashed_BH * output_BH * (1 - output_BH)
    return d_cell_BH * forget_BH


class _AttentionBackward:
    """Attention's part of the backward pass: gradients that gather over the steps, and those that flow to the step before."""

    def __init__(self, at: AttentionOperands, steps: int, float_type: torch.dtype) -> None:
        batch, symbols, width = at.keys_BNA.shape
        self.at = at
        self.kernel = at.location_AC.shape[1] // 2
        # What sums over hundreds of steps sums in float32.
        self.d_keys_BNA = torch.zeros_like(at.keys_BNA, dtype=float_type)
        self.d_location_AC = torch.zeros_like(at.location_AC, dtype=float_type)
        self.d_score_A = torch.zeros_like(at.score_A, dtype=float_type)
        self.d_query_SBA = at.keys_BNA.new_empty(steps, batch, width)
        # At the weights of the step before: as its successor's first channel, and through the sum that is its second.
        self.d_previous_BN = at.keys_BNA.new_zeros(batch, symbols, dtype=float_type)
        self.d_cumulated_BN = torch.zeros_like(self.d_previous_BN)

    def step(self, step: int, query_BH: Tensor, location_B2L: Tensor, weights_BN: Tensor, d_context_BE: Tensor, d_weights_BN: Tensor) -> Tensor:
        """Gradient (B, H) at the query, from those at the context and the weights of this step."""
        at, (batch, symbols) = self.at, self.at.valid_BN.shape
        columns = location_columns(location_B2L, self.kernel).to(at.keys_BNA.dtype)
        hidden_BNA = hidden_energies(at, query_BH, columns)
        d_weights_BN = d_weights_BN + self.d_previous_BN + self.d_cumulated_BN + torch.bmm(at.memory_BNE, d_context_BE[:, :, None])[:, :, 0]
        d_energies_BN = weights_BN * (d_weights_BN - (d_weights_BN * weights_BN).sum(1, keepdim=True))
        d_energies = d_energies_BN.to(hidden_BNA.dtype).flatten()
        self.d_score_A.add_(torch.mv(hidden_BNA.flatten(0, 1).t(), d_energies))
        d_sum_BNA = hidden_BNA.square_().neg_().add_(1).mul_(at.score_A).mul_(d_energies.view(batch, symbols, 1))
        self.d_keys_BNA.add_(d_sum_BNA)
        d_sum = d_sum_BNA.flatten(0, 1)
        self.d_location_AC.add_(torch.mm(d_sum.t(), columns))
        # One row a tap: the overlapping sum of the taps is a fold.
        taps_BCN = torch.matmul(at.location_AC.t(), d_sum_BNA.transpose(1, 2))
        d_location_B2L = functional.fold(taps_BCN, (1, location_B2L.shape[2]), (1, self.kernel))[:, :, 0].to(weights_BN.dtype)
        inside = slice(self.kernel // 2, self.kernel // 2 + symbols)
        self.d_previous_BN = d_location_B2L[:, 0, inside]
        self.d_cumulated_BN = self.d_cumulated_BN + d_location_B2L[:, 1, inside]
        self.d_query_SBA[step] = d_sum_BNA.sum(1)
        return torch.mm(self.d_query_SBA[step], at.query_AH)
