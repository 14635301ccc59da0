"""Steps of the attention loop, forward and back, in tensors that are there already.

attention_loop.py makes all steps with them, chunk.py a few at a time: a CPU and a CUDA graph compute from one description. Nothing here waits
for the device, draws a random number or keeps a tensor of its own: a graph may replay it.

Shape letters as in attention_loop.py.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tts.model.attention.mechanism import Attention, Moment, MomentGradients, Operands, OwnGradients
from tts.model.packing import Step
from tts.model.recurrent import RepeatedProduct, cell, cell_backward


class Recurrence(NamedTuple):
    """What is the same at each step."""

    attention: Attention
    at: Operands
    recurrent_GF: Tensor
    """Acts on [h, context]."""
    keep_scale: float
    """What cells of h that dropout keeps are multiplied by."""


class Tape(NamedTuple):
    """What is kept of all steps. States begin with B rows for the time before the first step."""

    gates_ZG: Tensor
    """At first the prenet's share of the pre-activations, biases included; a step overwrites its own with activated gates."""
    weights_ZN: Tensor
    queries_ZQ: Tensor
    states_ZF: Tensor
    """[h, context]."""
    cells_ZH: Tensor
    carried: tuple[Tensor, ...]
    """What the mechanism carries from step to step."""
    kept_ZH: Tensor | None
    """Dropout mask of h; None for none."""

    @property
    def by_row(self) -> tuple[Tensor, ...]:
        """Tensors of Z rows that steps write."""
        return self.gates_ZG, self.weights_ZN, self.queries_ZQ

    @property
    def by_state(self) -> tuple[Tensor, ...]:
        """Tensors of B + Z rows."""
        return self.states_ZF, self.cells_ZH, *self.carried


class TapeGradients(NamedTuple):
    """Gradients on the way back, from the last step to the first."""

    weights_ZN: Tensor
    """At the weights as such, from outside the loop."""
    queries_ZQ: Tensor
    """Written."""
    states_ZF: Tensor
    """B + Z rows: at first what comes from outside, after a step all of it."""
    cell_BH: Tensor
    """At the cell state after the step that is next on the way back; zero for utterances that have ended by then."""
    carried: tuple[Tensor, ...]
    """B rows each: the same, at what the mechanism carries."""
    sums: OwnGradients


def new_tape(recurrence: Recurrence, batch: int, gates_ZG: Tensor, kept_ZH: Tensor | None) -> Tape:
    """A tape before the first step."""
    at, rows, hidden = recurrence.at, len(gates_ZG), gates_ZG.shape[1] // 4
    float_type = torch.promote_types(gates_ZG.dtype, torch.float32)
    return Tape(
        gates_ZG=gates_ZG,
        weights_ZN=gates_ZG.new_empty(rows, at.valid_BN.shape[1], dtype=float_type),
        queries_ZQ=gates_ZG.new_empty(rows, len(at.query_QH)),
        states_ZF=gates_ZG.new_zeros(batch + rows, recurrence.recurrent_GF.shape[1]),
        cells_ZH=gates_ZG.new_zeros(batch + rows, hidden, dtype=float_type),
        carried=tuple(torch.cat((first, first.new_zeros(rows, *first.shape[1:]))) for first in recurrence.attention.first_state(at)),
        kept_ZH=kept_ZH,
    )


def new_gradients(at: Operands, tape: Tape, d_states_ZF: Tensor, d_weights_ZN: Tensor) -> TapeGradients:
    """Before the last step, from the gradients (Z rows each) that come from outside the loop."""
    batch, float_type = len(at.valid_BN), tape.cells_ZH.dtype
    return TapeGradients(
        weights_ZN=d_weights_ZN,
        queries_ZQ=torch.empty_like(tape.queries_ZQ),
        states_ZF=torch.cat((torch.zeros_like(tape.states_ZF[:batch]), d_states_ZF)),
        cell_BH=torch.zeros_like(tape.cells_ZH[:batch]),
        carried=tuple(torch.zeros_like(state[:batch]) for state in tape.carried),
        sums=OwnGradients(*(tuple(torch.zeros_like(operand, dtype=float_type) for operand in some) for some in (at.utterances, at.weights))),
    )


def make_steps(recurrence: Recurrence, schedule: Sequence[Step], tape: Tape) -> None:
    """Fills the tape, first step to last."""
    attention, at, recurrent_GF, keep_scale = recurrence
    hidden, dtype = tape.cells_ZH.shape[1], tape.gates_ZG.dtype
    recurrent, project = RepeatedProduct(recurrent_GF), RepeatedProduct(at.query_QH)
    running = at
    for step in schedule:
        if step.size < len(running.valid_BN):
            running = at.rows(slice(step.size))
        before_BF, after_BF = tape.states_ZF[step.before], tape.states_ZF[step.after]
        h_BH, context_BE = after_BF[:, :hidden], after_BF[:, hidden:]
        gates_BG, query_BQ, weights_BN = (tensor[step.rows] for tensor in (tape.gates_ZG, tape.queries_ZQ, tape.weights_ZN))
        cell(recurrent.plus(before_BF, gates_BG), gates_BG, tape.cells_ZH[step.before], tape.cells_ZH[step.after], h_BH)
        if tape.kept_ZH is not None:
            h_BH.mul_(tape.kept_ZH[step.rows]).mul_(keep_scale)
        query_BQ.copy_(project(h_BH))
        attention.step(running, _moment(step, tape))
        context_BE.copy_(torch.bmm(weights_BN.to(dtype)[:, None], running.memory_BNE)[:, 0])


def make_steps_back(
    recurrence: Recurrence, schedule: Sequence[Step], tape: Tape, gradients: TapeGradients, d_gates_of: Callable[[slice], Tensor]
) -> None:
    """Last step to first. `d_gates_of` says where the step with these rows writes the gradients at its gates' pre-activations."""
    attention, at, recurrent_GF, keep_scale = recurrence
    hidden = tape.cells_ZH.shape[1]
    back = RepeatedProduct(recurrent_GF.t())
    sums, d_states_ZF = gradients.sums, gradients.states_ZF
    for step in reversed(schedule):
        size = slice(step.size)
        running, running_sums = at.rows(size), sums._replace(utterances=tuple(total[size] for total in sums.utterances))
        d_after_BF, d_gates_BG = d_states_ZF[step.after], d_gates_of(step.rows)
        d_h_BH, d_context_BE = d_after_BF[:, :hidden], d_after_BF[:, hidden:]
        # With the memory on the left torch's product takes twelve times as long on a CPU.
        d_weights_BN = gradients.weights_ZN[step.rows] + torch.bmm(d_context_BE[:, None], running.memory_BNE.transpose(1, 2))[:, 0]
        d_now = MomentGradients(running_sums, d_weights_BN, tuple(state[size] for state in gradients.carried), d_states_ZF[step.before])
        d_query_BQ = gradients.queries_ZQ[step.rows].copy_(attention.step_backward(running, _moment(step, tape), d_now))
        d_h_BH = torch.addmm(d_h_BH, d_query_BQ, at.query_QH)
        if tape.kept_ZH is not None:
            d_h_BH.mul_(tape.kept_ZH[step.rows]).mul_(keep_scale)
        cell_backward(d_gates_BG, tape.gates_ZG[step.rows], tape.cells_ZH[step.before], tape.cells_ZH[step.after], d_h_BH, gradients.cell_BH[size])
        d_states_ZF[step.before].add_(back(d_gates_BG))


def _moment(step: Step, tape: Tape) -> Moment:
    """A step's place in what is kept of all steps."""
    before, after = tuple(state[step.before] for state in tape.carried), tuple(state[step.after] for state in tape.carried)
    return Moment(before, tape.states_ZF[step.before], tape.queries_ZQ[step.rows], after, tape.weights_ZN[step.rows])
