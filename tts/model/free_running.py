"""The decoder on its own: each step reads the last frame that it wrote itself.

Utterances of a batch stop one by one: at the first frame whose gate fires, which is their last frame, or at their maximum. They then leave
the batch, which goes on with the others; rows do not influence each other.

Each LSTM is one product a step, on inputs that lie side by side, and so are all projections, with weights laid out for it once (recurrent.py).
The prenet's masks are drawn for many steps at once.

Shape letters: B utterances that still speak, N symbols, T frames, S decoder steps, r reduction factor, M mels, P prenet width, H attention
LSTM width, E memory width, F = H + E, D decoder LSTM width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tts.data.batch import length_mask
from tts.model.attention.mechanism import Moment
from tts.model.attention.stepwise import Reading
from tts.model.decoder import Decoder
from tts.model.frames import frames_of_steps
from tts.model.prenet import spoken
from tts.model.recurrent import RepeatedProduct, cell

MASKS_AT_ONCE = 64
"""Steps whose masks are drawn together. The generator goes on from the last of them, wherever synthesis ends."""


@dataclass(frozen=True)
class FreeRun:
    """What the decoder said, before the postnet; zero past each utterance's length."""

    mel_BTM: Tensor
    gate_BT: Tensor
    """Probabilities."""
    alignment_BSN: Tensor
    lengths_B: Tensor
    stopped_B: Tensor
    """False where the maximum ended the utterance."""
    heard_BSF: Tensor
    """What the projections read, for a recogniser; without steps where none listens."""


@torch.no_grad()
def free_run(
    decoder: Decoder,
    memory_BNE: Tensor,
    symbol_lengths_B: Tensor,
    *,
    max_frames_B: Tensor,
    gate_threshold: float,
    generator: torch.Generator | None = None,
    listened: bool = False,
    monotonic: bool = False,
) -> FreeRun:
    """Runs until every utterance's gate fires (probability above `gate_threshold`) or its maximum (at least 1) is reached.

    `generator`, on the CPU, draws the prenet's dropout; None draws from torch's global one. `monotonic` lets attention only stay or move on
    by one symbol (attention/stepwise.py).
    """
    steps = _Steps(decoder, memory_BNE, symbol_lengths_B, generator, monotonic=monotonic)
    factor = decoder.reduction_factor
    lengths, stopped = max_frames_B.tolist(), [False] * len(max_frames_B)
    speaking, places, said = list(range(len(lengths))), list[tuple[int, int]](), list[tuple[Tensor, ...]]()
    while speaking:
        mel_BRM, gate_BR, weights_BN, z_BF = steps.next()
        step = len(said)
        for utterance, probabilities in zip(speaking, gate_BR.tolist(), strict=True):
            ends = [step * factor + frame for frame, probability in enumerate(probabilities, 1) if probability > gate_threshold]
            if ends and ends[0] <= lengths[utterance]:
                lengths[utterance], stopped[utterance] = ends[0], True
        places += [(utterance, step) for utterance in speaking]
        said.append((mel_BRM, gate_BR, weights_BN, z_BF if listened else z_BF[:, :0]))
        going_on = [row for row, utterance in enumerate(speaking) if lengths[utterance] > len(said) * factor]
        if len(going_on) < len(speaking):
            speaking = [speaking[row] for row in going_on]
            steps.keep(torch.tensor(going_on, dtype=torch.int64, device=memory_BNE.device))
    mel_BSRM, gate_BSR, alignment_BSN, heard_BSF = (_side_by_side(list(parts), places, len(lengths)) for parts in zip(*said, strict=True))
    lengths_B = torch.tensor(lengths, device=max_frames_B.device)
    invalid_BT = ~length_mask(lengths_B, len(said) * factor)  # frames past the end in an utterance's last step
    return FreeRun(
        mel_BTM=frames_of_steps(mel_BSRM).masked_fill(invalid_BT[:, :, None], 0),
        gate_BT=gate_BSR.flatten(1).masked_fill(invalid_BT, 0),
        alignment_BSN=alignment_BSN,
        lengths_B=lengths_B,
        stopped_B=torch.tensor(stopped, device=max_frames_B.device),
        heard_BSF=heard_BSF if listened else heard_BSF.new_zeros(len(lengths), 0, decoder.mel.in_features),
    )


def _side_by_side(parts: list[Tensor], places: list[tuple[int, int]], batch: int) -> Tensor:
    """(batch, S, ...), zero where nothing was said: each row of the steps' parts at its (utterance, step)."""
    rows = torch.cat(parts)
    whole = rows.new_zeros(batch, len(parts), *rows.shape[1:])
    utterances, steps = torch.tensor(places, device=rows.device).unbind(1)
    whole[utterances, steps] = rows
    return whole


class _Steps:
    """The decoder's state between steps, of the utterances that still speak."""

    def __init__(self, decoder: Decoder, memory_BNE: Tensor, symbol_lengths_B: Tensor, generator: torch.Generator | None, *, monotonic: bool) -> None:
        self.decoder, self.generator = decoder, generator
        self.at = decoder.attention.operands(memory_BNE, symbol_lengths_B)
        self.reading = Reading(self.at.valid_BN) if monotonic else None
        first, batch, dtype = decoder.attention_lstm, len(memory_BNE), self.at.memory_BNE.dtype
        prenet = first.input_size - memory_BNE.shape[2]
        weights = torch.cat((first.weight_ih[:, :prenet], first.weight_hh, first.weight_ih[:, prenet:]), 1)
        self.first = RepeatedProduct(weights.to(dtype), (first.bias_ih + first.bias_hh).to(dtype))
        input_GF, recurrent_GD, one_G, other_G = decoder.decoder_lstm.all_weights[0]
        self.second = RepeatedProduct(torch.cat((input_GF, recurrent_GD), 1).to(dtype), (one_G + other_G).to(dtype))
        self.query = RepeatedProduct(self.at.query_QH)
        self.prenet = [RepeatedProduct(weight.to(dtype)) for weight in decoder.prenet.parameters()]
        self.projection = RepeatedProduct(*(tensor.to(dtype) for tensor in decoder.projection()))
        self.masks: Iterator[Tensor] = iter(())
        # [prenet's output, attention LSTM's, context, decoder LSTM's]
        widths = (prenet, first.hidden_size, memory_BNE.shape[2], decoder.decoder_lstm.hidden_size)
        self.x, self.h, self.context, self.d = (slice(sum(widths[:i]), sum(widths[: i + 1])) for i in range(4))
        self.before = slice(self.h.start, self.context.stop)
        self.rows = memory_BNE.new_zeros(batch, sum(widths), dtype=dtype)
        self.float_type = torch.promote_types(dtype, torch.float32)
        self.cells_BH = memory_BNE.new_zeros(batch, first.hidden_size, dtype=self.float_type)
        self.cells_BD = memory_BNE.new_zeros(batch, decoder.decoder_lstm.hidden_size, dtype=self.float_type)
        # This step's and the next one's: they change places.
        self.attention_states = [decoder.attention.first_state(self.at), decoder.attention.first_state(self.at)]
        self.frame_BM = memory_BNE.new_zeros(batch, decoder.mels)

    def keep(self, rows: Tensor) -> None:
        """From now on these rows only."""
        self.at = self.at.rows(rows)
        self.attention_states = [tuple(state[rows] for state in states) for states in self.attention_states]
        self.rows, self.frame_BM = self.rows[rows], self.frame_BM[rows]
        self.cells_BH, self.cells_BD = self.cells_BH[rows], self.cells_BD[rows]
        if self.reading:
            self.reading.keep(rows)

    def next(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mel (B, r, M), gate probabilities (B, r), attention weights (B, N) and what the projections read (B, D + E), of the next step."""
        rows, at = self.rows, self.at
        before_BF = rows[:, self.before].clone()
        rows[:, self.x] = spoken(self.frame_BM, self.prenet, self._mask())
        gates_BG = self.first(rows[:, : self.before.stop])
        cell(gates_BG, gates_BG, self.cells_BH, self.cells_BH, rows[:, self.h])
        if self.reading:
            at = at._replace(valid_BN=self.reading.open_BN)
        weights_BN = torch.empty_like(at.valid_BN, dtype=self.float_type)
        before, after = self.attention_states
        self.decoder.attention.step(at, Moment(before, before_BF, self.query(rows[:, self.h]), after, weights_BN))
        self.attention_states = [after, before]
        if self.reading:
            self.reading.read(weights_BN)
        rows[:, self.context] = torch.bmm(weights_BN.to(rows.dtype)[:, None], at.memory_BNE)[:, 0]
        gates_BG = self.second(rows[:, self.h.start :])
        cell(gates_BG, gates_BG, self.cells_BD, self.cells_BD, rows[:, self.d])
        z_BF = torch.cat((rows[:, self.d], rows[:, self.context]), 1)
        factor, mels = self.decoder.reduction_factor, self.decoder.mels
        mel_BX, gate_logits_BR = torch.split(self.projection(z_BF), [factor * mels, factor], 1)
        self.frame_BM = mel_BX[:, -mels:]
        return mel_BX.view(-1, factor, mels), torch.sigmoid(gate_logits_BR), weights_BN, z_BF

    def _mask(self) -> Tensor:
        """(layers, P) of the prenet's dropout."""
        mask_LP = next(self.masks, None)
        if mask_LP is None:
            self.masks = iter(self.decoder.prenet.masks(MASKS_AT_ONCE, self.generator).to(self.rows))
            mask_LP = next(self.masks)
        return mask_LP
