"""The decoder (Shen et al. 2018, section 2.2): frames from memory, r at a step, teacher-forced.

Under teacher forcing only the attention LSTM and the attention run step by step (attention_loop.py). The prenet runs before that loop
and the decoder LSTM, the mel and the gate projections after it, each over all steps at once: nothing of theirs flows back into attention.
For the same reason the decoder LSTM's dropout acts on its output, where NVIDIA/tacotron2 drops the recurrent state as well; the attention
LSTM's is recurrent, as there. free_running.py speaks with the same weights.

Shape letters: B batch, N symbols, T = S r frames, S decoder steps, r reduction factor, M mels, P prenet width, H attention LSTM width,
E memory width, D decoder LSTM width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts.config import ModelConfig
from tts.model.attention.choice import new_attention
from tts.model.attention_loop import attention_loop
from tts.model.frames import decoder_inputs, frames_of_steps, frames_per_step
from tts.model.gradient_bound import GradientBound
from tts.model.prenet import Prenet


@dataclass(frozen=True)
class DecoderOutput:
    """Cells past an utterance's true length carry no meaning."""

    mel_BTM: Tensor
    gate_logits_BT: Tensor
    alignment_BSN: Tensor
    """float32 (float64 stays)."""
    heard_SBF: Tensor | None = None
    """What the projections read, for a recogniser; None where none listens. F = D + E."""

    @property
    def reduction_factor(self) -> int:
        """Frames of a step; 1 where there is none."""
        return frames_per_step(self.mel_BTM, self.alignment_BSN)


class Decoder(nn.Module):
    """Prenet, attention LSTM, attention, decoder LSTM, projections."""

    def __init__(self, config: ModelConfig, *, mels: int) -> None:
        super().__init__()
        self.mels = mels
        self.reduction_factor = config.largest_reduction_factor
        self._reduction_factors = range(config.reduction_factor, config.largest_reduction_factor + 1)
        self.attention_dropout = config.attention_dropout
        memory, hidden = config.encoder_lstm, config.decoder_lstm
        self.prenet = Prenet(config, mels=mels)
        self.attention_lstm = nn.LSTMCell(config.prenet + memory, config.attention_lstm)
        self.attention = new_attention(config)
        self.decoder_lstm = nn.LSTM(config.attention_lstm + memory, hidden)
        self.decoder_dropout = nn.Dropout(config.decoder_dropout)
        self.mel = nn.Linear(hidden + memory, mels * config.reduction_factor)
        self.gate = nn.Linear(hidden + memory, config.reduction_factor)
        # Frames of a step that only larger factors have. Each has layers of its own: once out of use they get no gradient, so Adam lets them be,
        # where the idle rows of one layer would go on moving by its mean gradient and decay.
        self.early_mel = nn.ModuleList(nn.Linear(hidden + memory, mels) for _ in self._reduction_factors[1:])
        self.early_gate = nn.ModuleList(nn.Linear(hidden + memory, 1) for _ in self._reduction_factors[1:])
        # NVIDIA/tacotron2's gains; the LSTMs keep torch's uniform(-1 / sqrt(width), 1 / sqrt(width)).
        for layer in (self.mel, *self.early_mel):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.gate, *self.early_gate):
            nn.init.xavier_uniform_(layer.weight, gain=nn.init.calculate_gain("sigmoid"))

    def reduce_by(self, reduction_factor: int) -> None:
        """Sets the frames that a step writes from now on. Raises ValueError where the network has no frames or too many for it."""
        if reduction_factor not in self._reduction_factors:
            low, high = self._reduction_factors[0], self._reduction_factors[-1]
            raise ValueError(f"the decoder was built for {low} to {high} frames a step, got {reduction_factor}")
        self.reduction_factor = reduction_factor

    def forward(self, memory_BNE: Tensor, symbol_lengths_B: Tensor, mel_BTM: Tensor, listener: GradientBound | None = None) -> DecoderOutput:
        """Teacher-forced. T may be any number: the output has it rounded up to a multiple of r.

        A `listener` hears what the projections read; how far its gradient reaches back is bounded by theirs.
        """
        inputs_SBM = decoder_inputs(mel_BTM, self.reduction_factor).transpose(0, 1)
        steps, batch, _ = inputs_SBM.shape
        if steps == 0:  # nn.LSTM refuses an empty sequence
            empty = memory_BNE.new_zeros
            heard_SBF = empty(0, batch, self.mel.in_features) if listener else None
            return DecoderOutput(empty(batch, 0, self.mels), empty(batch, 0), empty(batch, 0, memory_BNE.shape[1]), heard_SBF)
        states_SBF, weights_SBN = self._attend(self.prenet(inputs_SBM), memory_BNE, symbol_lengths_B)
        hidden_SBD = self.decoder_dropout(self.decoder_lstm(states_SBF)[0])
        z_SBF = torch.cat((hidden_SBD, states_SBF[:, :, self.attention_lstm.hidden_size :]), dim=2)
        z_SBF, heard_SBF = listener(z_SBF) if listener else (z_SBF, None)
        mel_BTM, gate_logits_BT = self.project(z_SBF)
        return DecoderOutput(mel_BTM, gate_logits_BT, weights_SBN.transpose(0, 1), heard_SBF)

    def _attend(self, x_SBP: Tensor, memory_BNE: Tensor, symbol_lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        lstm, hidden = self.attention_lstm, self.attention_lstm.hidden_size
        prenet = x_SBP.shape[2]
        recurrent_GF = torch.cat((lstm.weight_hh, lstm.weight_ih[:, prenet:]), dim=1)
        kept_SBH, keep_scale = None, 1.0
        if self.training and self.attention_dropout > 0:
            kept_SBH = torch.rand((*x_SBP.shape[:2], hidden), device=x_SBP.device) >= self.attention_dropout
            keep_scale = 1 / (1 - self.attention_dropout)
        at = self.attention.operands(memory_BNE, symbol_lengths_B)
        like = x_SBP.dtype
        input_GP, bias_G = lstm.weight_ih[:, :prenet].to(like), (lstm.bias_ih + lstm.bias_hh).to(like)
        return attention_loop(self.attention, at, x_SBP, input_GP, recurrent_GF.to(like), bias_G, kept_SBH, keep_scale)

    def project(self, z_SBF: Tensor) -> tuple[Tensor, Tensor]:
        """Mel (B, T, M) and gate logits (B, T) of all steps, their frames in order, from [decoder LSTM's output, context]."""
        early = self.reduction_factor - self._reduction_factors[0]
        mel_SBF = torch.cat([layer(z_SBF) for layer in (self.mel, *self.early_mel[:early])], dim=2)
        gate_SBR = torch.cat([layer(z_SBF) for layer in (self.gate, *self.early_gate[:early])], dim=2)
        mel_BSRM = mel_SBF.transpose(0, 1).unflatten(2, (self.reduction_factor, self.mels))  # type: ignore[no-untyped-call]
        return frames_of_steps(mel_BSRM), gate_SBR.transpose(0, 1).flatten(1)

    def decoder_cell(self, input_BF: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step of the decoder LSTM, (h, c) to (h, c): for those who have the input of one step only."""
        return torch.lstm_cell(input_BF, state, *self.decoder_lstm.all_weights[0])
