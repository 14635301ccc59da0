"""A few steps of the attention loop between buffers of their own, made as often as an utterance needs them.

Where the steps are captured in a CUDA graph (cuda_graphs.py) their addresses, shapes and number are fixed. So what they read is copied in,
the steps are made, and what they wrote is copied out; the same backwards. All utterances take part in all steps: what a step makes of one
that has ended is finite and read by nobody, and as no gradient comes back to it from outside, all of its gradients are exactly zero.

Shape letters as in attention_loop.py, with B and N rounded up; Z = STEPS * B rows in a chunk.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tts.model.attention_steps import Recurrence, Tape, TapeGradients, make_steps, make_steps_back, new_gradients, new_tape
from tts.model.packing import dense_packing

STEPS = 16
"""Of a chunk. More cost memory, and steps past the end of the longest utterance; fewer cost copies."""

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Makes of a function one that does the same again, with what then lies in the same tensors."""


class Chunk:
    """Buffers for one shape of batch, and the steps between them."""

    @torch.no_grad()
    def __init__(self, like: Recurrence, *, masked: bool, capture: Capture) -> None:
        """For recurrences of the same mechanism whose operands have the shapes and types of `like`; `masked` where dropout acts on h."""
        batch, gates = len(like.at.valid_BN), len(like.recurrent_GF)
        new = like.recurrent_GF.new_zeros
        self.rows = STEPS * batch
        self._batch, self._capture = batch, capture
        self._own = Recurrence(like.attention, like.at.map(torch.zeros_like), torch.zeros_like(like.recurrent_GF), like.keep_scale)
        kept_ZH = new(self.rows, gates // 4, dtype=torch.bool) if masked else None
        self._tape = new_tape(self._own, batch, new(self.rows, gates), kept_ZH)
        self._d_gates_ZG = new(self.rows, gates)
        d_states_ZF, d_weights_ZN = torch.zeros_like(self._tape.states_ZF[batch:]), torch.zeros_like(self._tape.weights_ZN)
        self._gradients = new_gradients(self._own.at, self._tape, d_states_ZF, d_weights_ZN)
        # A mechanism's constants are read where they are now, so they must not go away.
        self._constants = tuple(like.attention.buffers())
        self._forward: Callable[[], None] | None = None
        self._back: Callable[[], None] | None = None

    @property
    def bytes(self) -> int:
        """Memory of the buffers."""
        tape, gradients = self._tape, self._gradients
        mask = () if tape.kept_ZH is None else (tape.kept_ZH,)
        ways_back = (*gradients[:4], *gradients.carried, *gradients.sums.utterances, *gradients.sums.weights, self._d_gates_ZG)
        return sum(tensor.nbytes for tensor in (*_fixed(self._own), *tape.by_row, *tape.by_state, *mask, *ways_back))

    @torch.no_grad()
    def prepare(self, *, back: bool) -> None:
        """Captures what is not yet captured. To be called before numbers that count lie in the buffers: capturing makes the steps once."""
        schedule = dense_packing(self._batch, STEPS, self._d_gates_ZG.device).schedule()
        if self._forward is None:
            self._forward = self._capture(partial(make_steps, self._own, schedule, self._tape))
        if back and self._back is None:
            self._back = self._capture(partial(make_steps_back, self._own, schedule, self._tape, self._gradients, self._d_gates_ZG.__getitem__))

    def make_steps(self, recurrence: Recurrence, tape: Tape) -> None:
        """Fills a tape of a dense packing, as attention_steps.make_steps does."""
        if self._forward is None:
            raise RuntimeError("the steps are not captured; call prepare() before make_steps()")
        own, batch = self._tape, self._batch
        _copy(_fixed(self._own), _fixed(recurrence))
        for rows in self._places(tape):
            states = slice(rows.start, rows.stop + batch)
            own.gates_ZG.copy_(tape.gates_ZG[rows])
            self._copy_mask(tape, rows)
            for mine, whole in zip(own.by_state, tape.by_state, strict=True):
                mine[:batch].copy_(whole[states][:batch])
            self._forward()
            _copy([whole[rows] for whole in tape.by_row], own.by_row)
            _copy([whole[states] for whole in tape.by_state], own.by_state)

    def make_steps_back(self, recurrence: Recurrence, tape: Tape, gradients: TapeGradients, d_gates_of: Callable[[slice], Tensor]) -> None:
        """As attention_steps.make_steps_back does, but for `gradients.cell_BH` and `.carried`; `d_gates_of` is asked for a chunk's rows."""
        if self._back is None:
            raise RuntimeError("the steps back are not captured; call prepare(back=True) before make_steps_back()")
        own, mine, batch = self._tape, self._gradients, self._batch
        _copy(_fixed(self._own), _fixed(recurrence))
        for total in (mine.cell_BH, *mine.carried, *mine.sums.utterances, *mine.sums.weights):
            total.zero_()
        for rows in reversed(self._places(tape)):
            states = slice(rows.start, rows.stop + batch)
            _copy(own.by_row, [whole[rows] for whole in tape.by_row])
            _copy(own.by_state, [whole[states] for whole in tape.by_state])
            self._copy_mask(tape, rows)
            mine.weights_ZN.copy_(gradients.weights_ZN[rows])
            mine.states_ZF.copy_(gradients.states_ZF[states])
            self._back()
            gradients.states_ZF[states].copy_(mine.states_ZF)
            gradients.queries_ZQ[rows].copy_(mine.queries_ZQ)
            d_gates_of(rows).copy_(self._d_gates_ZG)
        for totals, sums in zip(gradients.sums, mine.sums, strict=True):
            _copy(totals, sums)

    def _places(self, tape: Tape) -> list[slice]:
        """The rows of each chunk of a tape, first to last."""
        if len(tape.gates_ZG) % self.rows:
            raise ValueError(f"the tape has {len(tape.gates_ZG)} rows; expected a multiple of the chunk's {self.rows}")
        return [slice(start, start + self.rows) for start in range(0, len(tape.gates_ZG), self.rows)]

    def _copy_mask(self, tape: Tape, rows: slice) -> None:
        if self._tape.kept_ZH is not None and tape.kept_ZH is not None:
            self._tape.kept_ZH.copy_(tape.kept_ZH[rows])


def _fixed(recurrence: Recurrence) -> tuple[Tensor, ...]:
    at = recurrence.at
    return recurrence.recurrent_GF, at.memory_BNE, at.valid_BN, at.query_QH, *at.utterances, *at.weights


def _copy(into: "tuple[Tensor, ...] | list[Tensor]", source: "tuple[Tensor, ...] | list[Tensor]") -> None:
    for one, other in zip(into, source, strict=True):
        one.copy_(other)
