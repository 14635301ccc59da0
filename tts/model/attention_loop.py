"""Attention LSTM and attention over a teacher-forced sequence: the only part of the decoder that must run step by step.

One autograd function with its backward pass written out (backpropagation through time). Against autograd over single steps:
- the prenet's share of the gate pre-activations, biases included, is one matrix product before the loop; a step adds one product of
  [h, context], with weights laid out for it once (recurrent.py);
- weight gradients are products over many steps, where autograd adds a rank-B update to a matrix of 29 MB at every step;
- a step works on the utterances that still run (packing.py);
- kept for the backward pass are gates, cell states, [h, context], attention weights and the mechanism's states.
tests/model/textbook.py holds the plain loop; outputs and gradients agree to 1e-10 in float64.

Shape letters: B batch, N symbols, Z rows (packing.py), P prenet width, H attention LSTM width, E memory width, Q width of the projected query;
G = 4 H gates in torch's order (input, forget, cell, output), F = H + E.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tts.model.attention.mechanism import Attention, Moment, MomentGradients, Operands, OwnGradients
from tts.model.packing import Packing, Step
from tts.model.recurrent import GateGradients, RepeatedProduct, cell, cell_backward


def attention_loop(
    attention: Attention,
    at: Operands,
    packing: Packing,
    x_ZP: Tensor,
    input_GP: Tensor,
    recurrent_GF: Tensor,
    bias_G: Tensor,
    kept_ZH: Tensor | None,
    keep_scale: float,
) -> tuple[Tensor, Tensor]:
    """States (Z, F), which are [h, context] after each step, and attention weights (Z, N) in float32 (float64 stays).

    Operands are in the packing's order. `recurrent_GF` acts on [h, context]. `kept_ZH` is the dropout mask of h (recurrent, as in
    NVIDIA/tacotron2), None for none, and `keep_scale` what kept cells are multiplied by. Z is at least 1.
    """
    with torch.autocast(x_ZP.device.type, enabled=False):
        states_ZF, weights_ZN = _AttentionLoop.apply(
            attention, packing, len(at.utterances), keep_scale, x_ZP, input_GP, recurrent_GF, bias_G, kept_ZH, *_flat(at)
        )
    return states_ZF, weights_ZN


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
        packing: Packing,
        utterances: int,
        keep_scale: float,
        x_ZP: Tensor,
        input_GP: Tensor,
        recurrent_GF: Tensor,
        bias_G: Tensor,
        kept_ZH: Tensor | None,
        *operands: Tensor,
    ) -> tuple[Tensor, Tensor]:
        at = _operands(operands, utterances)
        batch, rows, hidden = packing.batch, len(x_ZP), len(bias_G) // 4
        float_type = torch.promote_types(x_ZP.dtype, torch.float32)
        gates_ZG = functional.linear(x_ZP, input_GP, bias_G)
        states_ZF = x_ZP.new_zeros(batch + rows, recurrent_GF.shape[1])
        cells_ZH = x_ZP.new_zeros(batch + rows, hidden, dtype=float_type)
        weights_ZN = x_ZP.new_empty(rows, at.valid_BN.shape[1], dtype=float_type)
        queries_ZQ = x_ZP.new_empty(rows, len(at.query_QH))
        kept = tuple(torch.cat((first, first.new_zeros(rows, *first.shape[1:]))) for first in attention.first_state(at))
        recurrent, project = RepeatedProduct(recurrent_GF), RepeatedProduct(at.query_QH)
        running = at
        for step in packing.schedule():
            if step.size < len(running.valid_BN):
                running = at.rows(slice(step.size))
            before_BF, after_BF = states_ZF[step.before], states_ZF[step.after]
            h_BH, context_BE = after_BF[:, :hidden], after_BF[:, hidden:]
            gates_BG, query_BQ, weights_BN = gates_ZG[step.rows], queries_ZQ[step.rows], weights_ZN[step.rows]
            cell(recurrent.plus(before_BF, gates_BG), gates_BG, cells_ZH[step.before], cells_ZH[step.after], h_BH)
            if kept_ZH is not None:
                h_BH.mul_(kept_ZH[step.rows]).mul_(keep_scale)
            query_BQ.copy_(project(h_BH))
            attention.step(running, _moment(step, kept, states_ZF, queries_ZQ, weights_ZN))
            context_BE.copy_(torch.bmm(weights_BN.to(x_ZP.dtype)[:, None], running.memory_BNE)[:, 0])
        ctx.attention, ctx.packing, ctx.utterances, ctx.keep_scale = attention, packing, utterances, keep_scale
        ctx.save_for_backward(x_ZP, input_GP, recurrent_GF, kept_ZH, gates_ZG, states_ZF, cells_ZH, weights_ZN, queries_ZQ, *operands, *kept)
        return states_ZF[batch:], weights_ZN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_states_ZF: Tensor, d_weights_ZN: Tensor) -> tuple[Tensor | None, ...]:
        x_ZP, input_GP, recurrent_GF, kept_ZH, gates_ZG, states_ZF, cells_ZH, weights_ZN, queries_ZQ, *rest = ctx.saved_tensors
        attention: Attention = ctx.attention
        packing: Packing = ctx.packing
        own = len(ctx.needs_input_grad) - 9
        at, kept = _operands(tuple(rest[:own]), ctx.utterances), rest[own:]
        batch, hidden = packing.batch, cells_ZH.shape[1]
        gradients = GateGradients(x_ZP, input_GP, states_ZF, packing.before_Z)
        back = RepeatedProduct(recurrent_GF.t())
        d_queries_ZQ = torch.empty_like(queries_ZQ)
        # What comes from outside, then all of it.
        d_states_ZF = torch.cat((torch.zeros_like(states_ZF[:batch]), d_states_ZF))
        # Of utterances that have ended, zero: their last step gets nothing from a later one.
        d_cell_BH = torch.zeros_like(cells_ZH[:batch])
        d_kept = tuple(torch.zeros_like(state[:batch]) for state in kept)
        sums = OwnGradients(*(tuple(torch.zeros_like(operand, dtype=cells_ZH.dtype) for operand in some) for some in (at.utterances, at.weights)))
        for step in reversed(packing.schedule()):
            size = slice(step.size)
            running, running_sums = at.rows(size), sums._replace(utterances=tuple(total[size] for total in sums.utterances))
            d_after_BF, d_gates_BG = d_states_ZF[step.after], gradients.of_step(step.rows)
            d_h_BH, d_context_BE = d_after_BF[:, :hidden], d_after_BF[:, hidden:]
            # With the memory on the left torch's product takes twelve times as long on a CPU.
            d_weights_BN = d_weights_ZN[step.rows] + torch.bmm(d_context_BE[:, None], running.memory_BNE.transpose(1, 2))[:, 0]
            now = _moment(step, kept, states_ZF, queries_ZQ, weights_ZN)
            d_now = MomentGradients(running_sums, d_weights_BN, tuple(state[size] for state in d_kept), d_states_ZF[step.before])
            d_query_BQ = d_queries_ZQ[step.rows].copy_(attention.step_backward(running, now, d_now))
            d_h_BH = torch.addmm(d_h_BH, d_query_BQ, at.query_QH)
            if kept_ZH is not None:
                d_h_BH.mul_(kept_ZH[step.rows]).mul_(ctx.keep_scale)
            cell_backward(d_gates_BG, gates_ZG[step.rows], cells_ZH[step.before], cells_ZH[step.after], d_h_BH, d_cell_BH[size])
            d_states_ZF[step.before].add_(back(d_gates_BG))
        gradients.multiply()
        return (
            *(None, None, None, None),
            gradients.d_x_ZI,
            gradients.d_input_GI,
            gradients.d_recurrent_GF,
            gradients.d_bias_G,
            None,
            _memory_gradient(packing, weights_ZN, d_states_ZF[batch:, hidden:]),
            None,
            torch.mm(d_queries_ZQ.t(), states_ZF[batch:, :hidden]),
            *sums.utterances,
            *sums.weights,
        )


def _moment(step: Step, kept: Sequence[Tensor], states_ZF: Tensor, queries_ZQ: Tensor, weights_ZN: Tensor) -> Moment:
    """A step's place in what is kept of all steps."""
    before, after = tuple(state[step.before] for state in kept), tuple(state[step.after] for state in kept)
    return Moment(before, states_ZF[step.before], queries_ZQ[step.rows], after, weights_ZN[step.rows])


def _memory_gradient(packing: Packing, weights_ZN: Tensor, d_context_ZE: Tensor) -> Tensor:
    """(B, N, E) in the packing's order: each utterance's weights times the gradients at its contexts."""
    weights_BSN, d_context_BSE = packing.unpack(weights_ZN.to(d_context_ZE.dtype)), packing.unpack(d_context_ZE)
    return torch.bmm(weights_BSN.transpose(1, 2), d_context_BSE)[packing.order_B]
