"""Attention LSTM and attention over a teacher-forced sequence: the only part of the decoder that must run step by step.

One autograd function with its backward pass written out (backpropagation through time). Against autograd over single steps:
- the prenet's share of the gate pre-activations, biases included, is one matrix product before the loop; a step adds one product of
  [h, context], with weights laid out for it once (recurrent.py);
- weight gradients are products over many steps, where autograd adds a rank-B update to a matrix of 29 MB at every step;
- a step works on the utterances that still run (packing.py);
- kept for the backward pass are gates, cell states, [h, context], attention weights and the mechanism's states.
The steps themselves are in attention_steps.py; cuda_graphs.py calls this loop with chunks of them that a GPU replays.
tests/model/textbook.py holds the plain loop; outputs and gradients agree to 1e-10 in float64.

Shape letters: B batch, N symbols, Z rows (packing.py), P prenet width, H attention LSTM width, E memory width, Q width of the projected query;
G = 4 H gates in torch's order (input, forget, cell, output), F = H + E.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tts.model.attention.mechanism import Attention, Operands
from tts.model.attention_steps import Recurrence, Tape, make_steps, make_steps_back, new_gradients, new_tape
from tts.model.chunk import Chunk
from tts.model.packing import Packing
from tts.model.recurrent import ROWS_AT_ONCE, GateGradients


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
    chunk: Chunk | None = None,
) -> tuple[Tensor, Tensor]:
    """States (Z, F), which are [h, context] after each step, and attention weights (Z, N) in float32 (float64 stays).

    Operands are in the packing's order. `recurrent_GF` acts on [h, context]. `kept_ZH` is the dropout mask of h (recurrent, as in
    NVIDIA/tacotron2), None for none, and `keep_scale` what kept cells are multiplied by. Z is at least 1.
    A `chunk` of this shape makes the steps, a few at a time; the packing must then be dense, and its steps a multiple of the chunk's.
    """
    fixed = _Fixed(attention, packing, chunk, len(at.utterances), keep_scale)
    with torch.autocast(x_ZP.device.type, enabled=False):
        states_ZF, weights_ZN = _AttentionLoop.apply(fixed, x_ZP, input_GP, recurrent_GF, bias_G, kept_ZH, *_flat(at))
    return states_ZF, weights_ZN


class _Fixed(NamedTuple):
    """What gets no gradient."""

    attention: Attention
    packing: Packing
    chunk: Chunk | None
    utterances: int
    """The mechanism's own operands that differ by utterance."""
    keep_scale: float

    def recurrence(self, flat: tuple[Tensor, ...], recurrent_GF: Tensor) -> Recurrence:
        """Operands as `_flat` gave them."""
        memory_BNE, valid_BN, query_QH, *own = flat
        at = Operands(memory_BNE, valid_BN, query_QH, tuple(own[: self.utterances]), tuple(own[self.utterances :]))
        return Recurrence(self.attention, at, recurrent_GF, self.keep_scale)


def _flat(at: Operands) -> tuple[Tensor, ...]:
    return (at.memory_BNE, at.valid_BN, at.query_QH, *at.utterances, *at.weights)


class _AttentionLoop(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        fixed: _Fixed,
        x_ZP: Tensor,
        input_GP: Tensor,
        recurrent_GF: Tensor,
        bias_G: Tensor,
        kept_ZH: Tensor | None,
        *operands: Tensor,
    ) -> tuple[Tensor, Tensor]:
        packing, recurrence = fixed.packing, fixed.recurrence(operands, recurrent_GF)
        tape = new_tape(recurrence, packing.batch, functional.linear(x_ZP, input_GP, bias_G), kept_ZH)
        if fixed.chunk is None:
            make_steps(recurrence, packing.schedule(), tape)
        else:
            fixed.chunk.make_steps(recurrence, tape)
        ctx.fixed = fixed
        ctx.save_for_backward(x_ZP, input_GP, recurrent_GF, kept_ZH, *tape.by_row, tape.states_ZF, tape.cells_ZH, *operands, *tape.carried)
        return tape.states_ZF[packing.batch :], tape.weights_ZN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_states_ZF: Tensor, d_weights_ZN: Tensor) -> tuple[Tensor | None, ...]:
        x_ZP, input_GP, recurrent_GF, kept_ZH, gates_ZG, weights_ZN, queries_ZQ, states_ZF, cells_ZH, *rest = ctx.saved_tensors
        fixed: _Fixed = ctx.fixed
        packing, chunk = fixed.packing, fixed.chunk
        own = len(ctx.needs_input_grad) - 6
        recurrence = fixed.recurrence(tuple(rest[:own]), recurrent_GF)
        batch, hidden = packing.batch, cells_ZH.shape[1]
        tape = Tape(gates_ZG, weights_ZN, queries_ZQ, states_ZF, cells_ZH, tuple(rest[own:]), kept_ZH)
        gradients = new_gradients(recurrence.at, tape, d_states_ZF, d_weights_ZN)
        of_gates = GateGradients(x_ZP, input_GP, states_ZF, packing.before_Z, max(ROWS_AT_ONCE, chunk.rows if chunk else 0))
        if chunk is None:
            make_steps_back(recurrence, packing.schedule(), tape, gradients, of_gates.of_step)
        else:
            chunk.make_steps_back(recurrence, tape, gradients, of_gates.of_step)
        of_gates.multiply()
        return (
            None,
            of_gates.d_x_ZI,
            of_gates.d_input_GI,
            of_gates.d_recurrent_GF,
            of_gates.d_bias_G,
            None,
            _memory_gradient(packing, weights_ZN, gradients.states_ZF[batch:, hidden:]),
            None,
            torch.mm(gradients.queries_ZQ.t(), states_ZF[batch:, :hidden]),
            *gradients.sums.utterances,
            *gradients.sums.weights,
        )


def _memory_gradient(packing: Packing, weights_ZN: Tensor, d_context_ZE: Tensor) -> Tensor:
    """(B, N, E) in the packing's order: each utterance's weights times the gradients at its contexts."""
    weights_BSN, d_context_BSE = packing.unpack(weights_ZN.to(d_context_ZE.dtype)), packing.unpack(d_context_ZE)
    return torch.bmm(weights_BSN.transpose(1, 2), d_context_BSE)[packing.order_B]
