"""The decoder as a textbook writes it: one step after another, nothing hoisted, nothing fused, autograd for every gradient.

The oracle of tts/model/decoder.py and its opponent in tests/benchmarks/decoder.py. It reads the weights of the module that it is compared
with, so every parameter's gradient can be compared by name. Layout and order of operations follow NVIDIA/tacotron2's `Decoder.decode`;
dropout of the LSTMs follows ours: on h of the attention LSTM (recurrent) and on the decoder LSTM's output.

Shape letters as in tts/model/decoder.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.model.textbook_attention import plain_attention
from tts.data.batch import length_mask
from tts.model.decoder import Decoder, DecoderOutput
from tts.model.frames import step_lengths


def teacher_inputs(mel_BTM: Tensor, reduction_factor: int) -> list[Tensor]:
    """The frame that each step reads: zeros, then every r-th frame. By hand, frame by frame."""
    frames = mel_BTM.shape[1]
    inputs = [torch.zeros_like(mel_BTM[:, 0])] if frames else []
    start = reduction_factor
    while start < frames:
        inputs.append(mel_BTM[:, start - 1])
        start += reduction_factor
    return inputs


def decode(decoder: Decoder, memory_BNE: Tensor, symbol_lengths_B: Tensor, mel_BTM: Tensor, kept_SBH: Tensor | None = None) -> DecoderOutput:
    """Teacher-forced; T at least 1. `kept_SBH` is a dropout mask for the attention LSTM; without one, each step draws its own."""
    batch, symbols, _ = memory_BNE.shape
    zeros = memory_BNE.new_zeros
    attention_h = attention_c = zeros(batch, decoder.attention_lstm.hidden_size)
    decoder_h = decoder_c = zeros(batch, decoder.decoder_lstm.hidden_size)
    context_BE = torch.zeros_like(memory_BNE[:, 0])
    attention = plain_attention(decoder.attention, memory_BNE, ~length_mask(symbol_lengths_B, symbols))
    lstm = decoder.decoder_lstm
    mels, gates, alignments = [], [], []
    for step, frame_BM in enumerate(teacher_inputs(mel_BTM, decoder.reduction_factor)):
        x_BP = frame_BM
        for layer in decoder.prenet.layers:
            x_BP = functional.dropout(torch.relu(layer(x_BP)), decoder.prenet.dropout, decoder.training or decoder.prenet.dropout_at_inference)
        attention_h, attention_c = decoder.attention_lstm(torch.cat((x_BP, context_BE), 1), (attention_h, attention_c))
        if kept_SBH is None:
            attention_h = functional.dropout(attention_h, decoder.attention_dropout, decoder.training)
        else:
            attention_h = attention_h * kept_SBH[step] / (1 - decoder.attention_dropout)
        weights_BN, context_BE = attention.step(attention_h)
        decoder_h, decoder_c = torch.lstm_cell(
            torch.cat((attention_h, context_BE), 1), (decoder_h, decoder_c), lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0
        )
        z_BF = torch.cat((functional.dropout(decoder_h, decoder.decoder_dropout.dropout, decoder.training), context_BE), 1)
        mels += [*decoder.mel(z_BF).split(decoder.mels, dim=1), *(layer(z_BF) for layer in decoder.early_mel)][: decoder.reduction_factor]
        gates += [*decoder.gate(z_BF).split(1, dim=1), *(layer(z_BF) for layer in decoder.early_gate)][: decoder.reduction_factor]
        alignments.append(weights_BN)
    return DecoderOutput(torch.stack(mels, 1), torch.cat(gates, 1), torch.stack(alignments, 1))


@torch.no_grad()
def speak(decoder: Decoder, memory_BNE: Tensor, symbol_lengths_B: Tensor, frames: int, generator: torch.Generator | None = None) -> Tensor:
    """Mel (B, T, M) of the decoder on its own, r = 1, every utterance to the same length."""
    batch, symbols, _ = memory_BNE.shape
    zeros = memory_BNE.new_zeros
    attention_h = attention_c = zeros(batch, decoder.attention_lstm.hidden_size)
    decoder_h = decoder_c = zeros(batch, decoder.decoder_lstm.hidden_size)
    context_BE, frame_BM = torch.zeros_like(memory_BNE[:, 0]), zeros(batch, decoder.mels)
    attention = plain_attention(decoder.attention, memory_BNE, ~length_mask(symbol_lengths_B, symbols))
    lstm = decoder.decoder_lstm
    mels, gates = [], []
    for _ in range(frames):
        x_BP = decoder.prenet.synthesise(frame_BM, generator)
        attention_h, attention_c = decoder.attention_lstm(torch.cat((x_BP, context_BE), 1), (attention_h, attention_c))
        _, context_BE = attention.step(attention_h)
        decoder_h, decoder_c = torch.lstm_cell(
            torch.cat((attention_h, context_BE), 1), (decoder_h, decoder_c), lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0
        )
        z_BF = torch.cat((decoder_h, context_BE), 1)
        frame_BM = decoder.mel(z_BF)
        mels.append(frame_BM)
        gates.append(torch.sigmoid(decoder.gate(z_BF)))
    return torch.stack(mels, 1)


def until_the_end(output: DecoderOutput, mel_lengths_B: torch.Tensor) -> DecoderOutput:
    """The textbook goes on in the padding; ours is zero from the step after an utterance's last."""
    steps, factor = output.alignment_BSN.shape[1], output.reduction_factor
    running_BS = length_mask(step_lengths(mel_lengths_B, factor), steps)
    running_BT = running_BS.repeat_interleave(factor, dim=1)
    return DecoderOutput(
        output.mel_BTM.masked_fill(~running_BT[:, :, None], 0),
        output.gate_logits_BT.masked_fill(~running_BT, 0),
        output.alignment_BSN.masked_fill(~running_BS[:, :, None], 0),
    )


class TextbookDecoder(nn.Module):
    """Stands in for a Decoder whose weights it reads: `model.decoder = TextbookDecoder(model.decoder)`."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.plain = decoder

    def forward(
        self, memory_BNE: Tensor, symbol_lengths_B: Tensor, mel_BTM: Tensor, mel_lengths_B: Tensor | None = None, _listener: None = None
    ) -> DecoderOutput:
        """As a textbook has it, padding is decoded, too."""
        return decode(self.plain, memory_BNE, symbol_lengths_B, mel_BTM)
