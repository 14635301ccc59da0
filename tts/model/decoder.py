"""The decoder (Shen et al. 2018, section 2.2): frames from memory, r at a step, teacher-forced.

Under teacher forcing only the attention LSTM and the attention run step by step (attention_loop.py). The prenet runs before that loop
and the decoder LSTM, the mel and the gate projections after it, each over all steps at once: nothing of theirs flows back into attention.
All of them work on the utterances' true steps only, packed (packing.py).
For the same reason the decoder LSTM's dropout acts on its output, where NVIDIA/tacotron2 drops the recurrent state as well; the attention
LSTM's is recurrent, as there. free_running.py speaks with the same weights.

Shape letters: B batch, N symbols, T = S r frames, S decoder steps, Z rows (packing.py), r reduction factor, M mels, P prenet width,
H attention LSTM width, E memory width, F = H + E, D decoder LSTM width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tts.config import ModelConfig
from tts.model.activation import Dropout
from tts.model.attention.choice import new_attention
from tts.model.attention_loop import attention_loop
from tts.model.cuda_graphs import LoopGraphs
from tts.model.frames import decoder_inputs, frames_of_steps, frames_per_step, step_lengths
from tts.model.gradient_bound import GradientBound
from tts.model.lstm_loop import lstm_loop
from tts.model.packing import Packing, packing
from tts.model.prenet import Prenet


@dataclass(frozen=True)
class DecoderOutput:
    """Steps past an utterance's end are zero; frames past its end in its last step carry no meaning."""

    mel_BTM: Tensor
    gate_logits_BT: Tensor
    alignment_BSN: Tensor
    """float32 (float64 stays)."""
    heard_BSF: Tensor | None = None
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
        self.graphs: LoopGraphs | None = None
        """Where there are any, what makes the attention loop's steps; results are the same."""
        memory, hidden = config.encoder_lstm, config.decoder_lstm
        self.prenet = Prenet(config, mels=mels)
        self.attention_lstm = nn.LSTMCell(config.prenet + memory, config.attention_lstm)
        self.attention = new_attention(config)
        self.attention_states = nn.Identity()  # a place for hooks to see what the loop gives
        self.decoder_lstm = nn.LSTM(config.attention_lstm + memory, hidden)
        self.decoder_dropout = Dropout(config.decoder_dropout)
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

    def forward(
        self,
        memory_BNE: Tensor,
        symbol_lengths_B: Tensor,
        mel_BTM: Tensor,
        mel_lengths_B: Tensor | None = None,
        listener: GradientBound | None = None,
    ) -> DecoderOutput:
        """Teacher-forced. T may be any number: the output has it rounded up to a multiple of r. Without lengths, all utterances have T frames.

        A `listener` hears what the projections read; how far its gradient reaches back is bounded by theirs.
        """
        inputs_BSM = decoder_inputs(mel_BTM, self.reduction_factor)
        batch, steps, _ = inputs_BSM.shape
        if mel_lengths_B is None:
            mel_lengths_B = torch.full_like(symbol_lengths_B, mel_BTM.shape[1])
        order = packing(step_lengths(mel_lengths_B, self.reduction_factor), steps)
        if not order.sizes:
            empty, frames = memory_BNE.new_zeros, steps * self.reduction_factor
            heard_BSF = empty(batch, steps, self.mel.in_features) if listener else None
            return DecoderOutput(empty(batch, frames, self.mels), empty(batch, frames), empty(batch, steps, memory_BNE.shape[1]), heard_BSF)
        states_ZF, weights_ZN = self._attend(order, self.prenet(order.pack(inputs_BSM)), memory_BNE, symbol_lengths_B)
        states_ZF = self.attention_states(states_ZF)
        hidden_ZD = self.decoder_dropout(self._decoder_lstm(order, states_ZF))
        z_ZF = torch.cat((hidden_ZD, states_ZF[:, self.attention_lstm.hidden_size :]), dim=1)
        z_ZF, heard_ZF = listener(z_ZF) if listener else (z_ZF, None)
        mel_ZRM, gate_logits_ZR = self.project(z_ZF)
        return DecoderOutput(
            mel_BTM=frames_of_steps(order.unpack(mel_ZRM)),
            gate_logits_BT=order.unpack(gate_logits_ZR).flatten(1),
            alignment_BSN=order.unpack(weights_ZN),
            heard_BSF=None if heard_ZF is None else order.unpack(heard_ZF),
        )

    def _attend(self, order: Packing, x_ZP: Tensor, memory_BNE: Tensor, symbol_lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        lstm, hidden = self.attention_lstm, self.attention_lstm.hidden_size
        prenet = x_ZP.shape[1]
        recurrent_GF = torch.cat((lstm.weight_hh, lstm.weight_ih[:, prenet:]), dim=1)
        kept_ZH, keep_scale = None, 1.0
        if self.training and self.attention_dropout > 0:
            kept_ZH = torch.rand((len(x_ZP), hidden), device=x_ZP.device) >= self.attention_dropout
            keep_scale = 1 / (1 - self.attention_dropout)
        like = x_ZP.dtype
        input_GP, bias_G = lstm.weight_ih[:, :prenet].to(like), (lstm.bias_ih + lstm.bias_hh).to(like)
        of_loop = (order, x_ZP, input_GP, recurrent_GF.to(like), bias_G, kept_ZH, keep_scale)
        memory_BNE, symbol_lengths_B = memory_BNE[order.order_B], symbol_lengths_B[order.order_B]
        if self.graphs:
            return self.graphs.attention_loop(self.attention, memory_BNE, symbol_lengths_B, *of_loop)
        return attention_loop(self.attention, self.attention.operands(memory_BNE, symbol_lengths_B), *of_loop)

    def _decoder_lstm(self, order: Packing, x_ZF: Tensor) -> Tensor:
        """(Z, D). cuDNN has all steps in one kernel; on a CPU our loop is the faster one."""
        lstm = self.decoder_lstm
        if x_ZF.is_cuda:
            hidden: PackedSequence = lstm(PackedSequence(x_ZF, torch.tensor(order.sizes)))[0]
            return hidden.data
        input_GF, recurrent_GD, one_G, other_G = (weight.to(x_ZF.dtype) for weight in lstm.all_weights[0])
        return lstm_loop(order, x_ZF, input_GF, recurrent_GD, one_G + other_G)

    def project(self, z_ZF: Tensor) -> tuple[Tensor, Tensor]:
        """Mel (Z, r, M) and gate logits (Z, r) from [decoder LSTM's output, context]."""
        early = self.reduction_factor - self._reduction_factors[0]
        mel_ZF = torch.cat([layer(z_ZF) for layer in (self.mel, *self.early_mel[:early])], dim=1)
        gate_logits_ZR = torch.cat([layer(z_ZF) for layer in (self.gate, *self.early_gate[:early])], dim=1)
        return mel_ZF.view(len(mel_ZF), self.reduction_factor, self.mels), gate_logits_ZR

    def projection(self) -> tuple[Tensor, Tensor]:
        """Weight (X, F) and bias (X) of `project` as one product: X = r M + r."""
        early = self.reduction_factor - self._reduction_factors[0]
        layers = (self.mel, *self.early_mel[:early], self.gate, *self.early_gate[:early])
        return torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
