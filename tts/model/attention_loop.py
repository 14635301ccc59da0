"""Attention LSTM and attention over a teacher-forced sequence: the only part of the decoder that must run step by step.

One autograd function with its backward pass written out (backpropagation through time). Against autograd over single steps:
- the prenet's share of the gate pre-activations, biases included, is one matrix product before the loop; a step adds one `addmm` on
  [h, context];
- weight gradients are one product after the backward loop, where autograd adds a rank-B update to a matrix of 29 MB at every step;
- kept for the backward pass are gates, cell states, [h, context], attention weights and the mechanism's states.
tests/model/textbook.py holds the plain loop; outputs and gradients agree to 1e-10 in float64.

Shape letters: B batch, N symbols, S decoder steps, P prenet width, H attention LSTM width, E memory width, Q width of the projected query;
G = 4 H gates in torch's order (input, forget, cell, output), F = H + E.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tts.model.attention.mechanism import Attention, Operands, OwnGradients


def attention_loop(
    attention: Attention,
    at: Operands,
    x_SBP: Tensor,
    input_GP: Tensor,
    recurrent_GF: Tensor,
    bias_G: Tensor,
    kept_SBH: Tensor | None,
    keep_scale: float,
) -> tuple[Tensor, Tensor]:
    """States (S, B, F), which are [h, context] after each step, and attention weights (S, B, N) in float32 (float64 stays).

    `recurrent_GF` acts on [h, context]. `kept_SBH` is the dropout mask of h (recurrent, as in NVIDIA/tacotron2), None for none,
    and `keep_scale` what kept cells are multiplied by. S is at least 1.
    """
    with torch.autocast(x_SBP.device.type, enabled=False):
        states_SBF, weights_SBN = _AttentionLoop.apply(
            attention, len(at.utterances), x_SBP, input_GP, recurrent_GF, bias_G, kept_SBH, keep_scale, *_flat(at)
        )
    return states_SBF, weights_SBN


def _flat(at: Operands) -> tuple[Tensor, ...]:
    return (at.memory_BNE, at.valid_BN, at.query_QH, *at.utterances, *at.weights)


def _operands(flat: tuple[Tensor, ...], utterances: int) -> Operands:
    memory_BNE, valid_BN, query_QH, *own = flat
    return Operands(memory_BNE, valid_BN, query_QH, tuple(own[:utterances]), tuple(own[utterances:]))


class _AttentionLoop(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        attention: Attention,
        utterances: int,
        x_SBP: Tensor,
        input_GP: Tensor,
        recurrent_GF: Tensor,
        bias_G: Tensor,
        kept_SBH: Tensor | None,
        keep_scale: float,
        *operands: Tensor,
    ) -> tuple[Tensor, Tensor]:
        at = _operands(operands, utterances)
        (steps, batch, _), symbols, hidden = x_SBP.shape, at.valid_BN.shape[1], bias_G.shape[0] // 4
        float_type = torch.promote_types(x_SBP.dtype, torch.float32)
        gates_SBG = functional.linear(x_SBP, input_GP, bias_G)
        states = x_SBP.new_zeros(steps + 1, batch, recurrent_GF.shape[1])
        cells = x_SBP.new_zeros(steps + 1, batch, hidden, dtype=float_type)
        weights_SBN = x_SBP.new_empty(steps, batch, symbols, dtype=float_type)
        queries_SBQ = x_SBP.new_empty(steps, batch, at.query_QH.shape[0])
        # Of step s: the state before it at s, the state after it at s + 1.
        kept = tuple(torch.cat((first[None], first.new_zeros(steps, *first.shape))) for first in attention.first_state(at))
        for step in range(steps):
            gates_BG = gates_SBG[step].addmm_(states[step], recurrent_GF.t())
            h_BH, context_BE = states[step + 1, :, :hidden], states[step + 1, :, hidden:]
            h_BH.copy_(_cell(gates_BG, cells[step], cells[step + 1]))
            if kept_SBH is not None:
                h_BH.mul_(kept_SBH[step]).mul_(keep_scale)
            torch.mm(h_BH, at.query_QH.t(), out=queries_SBQ[step])
            before, after = tuple(state[step] for state in kept), tuple(state[step + 1] for state in kept)
            attention.step(at, before, after, states[step], queries_SBQ[step], weights_SBN[step])
            context_BE.copy_(torch.bmm(weights_SBN[step].to(x_SBP.dtype)[:, None], at.memory_BNE)[:, 0])
        ctx.attention, ctx.utterances, ctx.keep_scale = attention, utterances, keep_scale
        ctx.save_for_backward(x_SBP, input_GP, recurrent_GF, kept_SBH, gates_SBG, states, cells, weights_SBN, queries_SBQ, *operands, *kept)
        return states[1:], weights_SBN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_states_SBF: Tensor, d_weights_SBN: Tensor) -> tuple[Tensor | None, ...]:
        x_SBP, input_GP, recurrent_GF, kept_SBH, gates_SBG, states, cells, weights_SBN, queries_SBQ, *rest = ctx.saved_tensors
        attention: Attention = ctx.attention
        own = len(ctx.needs_input_grad) - 8
        at, kept = _operands(tuple(rest[:own]), ctx.utterances), rest[own:]
        steps, hidden = gates_SBG.shape[0], gates_SBG.shape[2] // 4
        d_gates_SBG = torch.empty_like(gates_SBG)
        d_queries_SBQ = torch.empty_like(queries_SBQ)
        # Of the state before step s at s: what comes from outside, then all of it.
        d_states = torch.cat((torch.zeros_like(states[:1]), d_states_SBF))
        d_cell_BH = torch.zeros_like(cells[0])
        sums = OwnGradients(
            *(tuple(torch.zeros_like(operand, dtype=cells.dtype) for operand in operands) for operands in (at.utterances, at.weights))
        )
        d_kept = tuple(torch.zeros_like(state[0]) for state in kept)
        for step in reversed(range(steps)):
            d_h_BH, d_context_BE = d_states[step + 1, :, :hidden], d_states[step + 1, :, hidden:]
            d_weights_BN = d_weights_SBN[step] + torch.bmm(at.memory_BNE, d_context_BE[:, :, None])[:, :, 0]
            before, after = tuple(state[step] for state in kept), tuple(state[step + 1] for state in kept)
            d_queries_SBQ[step] = attention.step_backward(
                at, sums, before, after, states[step], queries_SBQ[step], weights_SBN[step], d_weights_BN, d_kept, d_states[step]
            )
            d_h_BH = d_h_BH + torch.mm(d_queries_SBQ[step], at.query_QH)
            if kept_SBH is not None:
                d_h_BH.mul_(kept_SBH[step]).mul_(ctx.keep_scale)
            d_cell_BH = _cell_backward(d_gates_SBG[step], gates_SBG[step], cells[step], cells[step + 1], d_h_BH, d_cell_BH)
            d_states[step].addmm_(d_gates_SBG[step], recurrent_GF)
        d_gates = d_gates_SBG.flatten(0, 1)
        return (
            None,
            None,
            torch.mm(d_gates, input_GP).view_as(x_SBP),
            torch.mm(d_gates.t(), x_SBP.flatten(0, 1)),
            torch.mm(d_gates.t(), states[:-1].flatten(0, 1)),
            d_gates.sum(0),
            None,
            None,
            torch.bmm(weights_SBN.permute(1, 2, 0).to(d_states.dtype), d_states[1:, :, hidden:].transpose(0, 1)),
            None,
            torch.mm(d_queries_SBQ.flatten(0, 1).t(), states[1:, :, :hidden].flatten(0, 1)),
            *sums.utterances,
            *sums.weights,
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
