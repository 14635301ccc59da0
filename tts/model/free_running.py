"""The decoder on its own: each step reads the last frame that it wrote itself.

Utterances of a batch stop one by one: at the first frame whose gate fires, which is their last frame, or at their maximum. The batch goes
on until the last one stops; rows do not influence each other, so a finished utterance does not change.

Shape letters: B batch, N symbols, T frames, S decoder steps, r reduction factor, M mels, E memory width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tts.data.batch import length_mask
from tts.model.attention.stepwise import Reading
from tts.model.decoder import Decoder


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
    heard_SBF: Tensor
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
    steps = _Steps(decoder, memory_BNE, symbol_lengths_B, monotonic=monotonic)
    reduction_factor = decoder.reduction_factor
    lengths_B = max_frames_B.clone()
    stopped_B = torch.zeros_like(lengths_B, dtype=torch.bool)
    mels: list[Tensor] = []
    gates: list[Tensor] = []
    alignments: list[Tensor] = []
    heard = [memory_BNE.new_zeros(0, memory_BNE.shape[0], decoder.mel.in_features)]
    while bool((lengths_B > len(mels) * reduction_factor).any()):
        mel_BRM, gate_BR, weights_BN = steps.next(generator)
        fired_BR = gate_BR > gate_threshold
        end_B = len(mels) * reduction_factor + fired_BR.int().argmax(1) + 1  # argmax: the first that fired
        stops_B = fired_BR.any(1) & (end_B <= lengths_B)
        lengths_B = torch.where(stops_B, end_B, lengths_B)
        stopped_B = stopped_B | stops_B
        mels.append(mel_BRM)
        gates.append(gate_BR)
        alignments.append(weights_BN)
        if listened:
            heard.append(steps.z_BF[None])
    valid_BT = length_mask(lengths_B, len(mels) * reduction_factor)
    valid_BS = valid_BT[:, ::reduction_factor]
    return FreeRun(
        mel_BTM=torch.cat(mels, 1).masked_fill(~valid_BT[:, :, None], 0),
        gate_BT=torch.cat(gates, 1).masked_fill(~valid_BT, 0),
        alignment_BSN=torch.stack(alignments, 1).masked_fill(~valid_BS[:, :, None], 0),
        lengths_B=lengths_B,
        stopped_B=stopped_B,
        heard_SBF=torch.cat(heard),
    )


class _Steps:
    """The decoder's state between steps."""

    def __init__(self, decoder: Decoder, memory_BNE: Tensor, symbol_lengths_B: Tensor, *, monotonic: bool) -> None:
        self.decoder = decoder
        self.at = decoder.attention.operands(memory_BNE, symbol_lengths_B)
        self.reading = Reading(self.at.valid_BN) if monotonic else None
        batch, _, memory = memory_BNE.shape
        self.frame_BM = memory_BNE.new_zeros(batch, decoder.mels)
        self.lstm_state = (memory_BNE.new_zeros(batch, decoder.attention_lstm.hidden_size),) * 2
        self.decoder_state = (memory_BNE.new_zeros(batch, decoder.decoder_lstm.hidden_size),) * 2
        self.context_BE = memory_BNE.new_zeros(batch, memory)
        self.attention_state = decoder.attention.first_state(self.at)
        self.float_type = torch.promote_types(memory_BNE.dtype, torch.float32)

    def next(self, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Mel (B, r, M), gate probabilities (B, r) and attention weights (B, N) of the next step."""
        decoder, at = self.decoder, self.at
        x_BP = decoder.prenet.synthesise(self.frame_BM, generator)
        before_BF = torch.cat((self.lstm_state[0], self.context_BE), 1)
        self.lstm_state = decoder.attention_lstm(torch.cat((x_BP, self.context_BE), 1), self.lstm_state)
        h_BH = self.lstm_state[0]
        if self.reading:
            at = at._replace(valid_BN=self.reading.open_BN)
        weights_BN = torch.empty_like(at.valid_BN, dtype=self.float_type)
        after = tuple(torch.zeros_like(state) for state in self.attention_state)
        decoder.attention.step(at, self.attention_state, after, before_BF, functional.linear(h_BH, at.query_QH), weights_BN)
        self.attention_state = after
        if self.reading:
            self.reading.read(weights_BN)
        self.context_BE = torch.bmm(weights_BN.to(at.memory_BNE.dtype)[:, None], at.memory_BNE)[:, 0]
        self.decoder_state = decoder.decoder_cell(torch.cat((h_BH, self.context_BE), 1), self.decoder_state)
        self.z_BF = torch.cat((self.decoder_state[0], self.context_BE), 1)
        mel_BRM, gate_logits_BR = decoder.project(self.z_BF)
        self.frame_BM = mel_BRM[:, -1]
        return mel_BRM, torch.sigmoid(gate_logits_BR), weights_BN
