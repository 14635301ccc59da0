"""Tacotron 2 (Shen et al. 2018, arXiv:1712.05884): symbols into mel frames.

Details that the paper leaves open follow NVIDIA/tacotron2; each module says where it differs. Padding never influences a valid cell:
an utterance gives the same result alone and beside longer ones.

Inside, every mel band has mean 0 and deviation 1 (ESPnet's global mean and variance normalisation, here as buffers of the network, so that
what goes in and comes out stays a log mel). Log mels around -5 cost the untrained network hundreds of steps: after 300 steps of the demo
preset on its corpus the validation loss of the mel was 1.3 with and 5.9 without it.

For training there may be a second, coarse decoder, of a larger reduction factor (Gölge 2020, erogol.com; tts/losses/consistency.py). It reads the
memory of the one that speaks, not a detached copy as in Coqui's implementation: it aligns first, and until the other does, the encoder learns
from it what it can learn from nothing else. The postnet has no part in it, so that its batch statistics are those of what is spoken.
A recogniser may listen to the decoder that speaks (Liu et al. 2019; recogniser.py).

Shape letters: B batch, N symbols, T frames, S decoder steps, M mels.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from tts.config import ModelConfig
from tts.data.batch import length_mask
from tts.model.cuda_graphs import LoopGraphs
from tts.model.decoder import Decoder
from tts.model.encoder import Encoder
from tts.model.free_running import free_run
from tts.model.output import Synthesis, Tacotron2Output
from tts.model.postnet import Postnet
from tts.model.recogniser import Recogniser
from tts.model.speaker import SpeakerEmbedding
from tts.model.style import StyleTokens


class Tacotron2(nn.Module):
    """The whole network. Weights are drawn from torch's global generator."""

    def __init__(self, config: ModelConfig, *, symbols: int, mels: int, speakers: int = 1) -> None:
        super().__init__()
        # In the order of the forward pass, in which ranks add up batch statistics.
        self.style = StyleTokens(config, mels=mels) if config.style_tokens else None
        self.encoder = Encoder(config, symbols=symbols)
        self.decoder = Decoder(config, mels=mels)
        self.coarse_decoder = Decoder(_coarse(config), mels=mels) if config.coarse_reduction_factor else None
        inputs = self.decoder.mel.in_features
        self.recogniser = Recogniser(config, inputs=inputs, symbols=symbols) if config.recogniser else None
        self.frame_drop = config.frame_drop
        self.postnet = Postnet(config, mels=mels)
        self.speaker = SpeakerEmbedding(config, speakers=speakers) if config.speaker_embedding else None
        self.register_buffer("mel_mean_M", torch.zeros(mels))
        self.register_buffer("mel_deviation_M", torch.ones(mels))

    def normalise_by(self, mean_M: Tensor, deviation_M: Tensor) -> None:
        """Sets the corpus's mean and standard deviation of each band; a band that hardly varies keeps a deviation of 0.1."""
        self.get_buffer("mel_mean_M").copy_(mean_M)
        self.get_buffer("mel_deviation_M").copy_(deviation_M.clamp(min=0.1))

    def reduce_by(self, reduction_factor: int) -> None:
        """Sets the frames that a decoder step writes from now on: at first the most that there are. Raises ValueError."""
        self.decoder.reduce_by(reduction_factor)

    def capture_loops(self, new_graphs: Callable[[], LoopGraphs] = LoopGraphs) -> None:
        """From now on both decoders' attention loops are captured in CUDA graphs when they are teacher-forced; results are the same."""
        for decoder in (self.decoder, self.coarse_decoder):
            if decoder:
                decoder.graphs = new_graphs()

    def forget_loops(self) -> None:
        """Gives back what captured loops hold of the device's memory; they are captured anew."""
        for decoder in (self.decoder, self.coarse_decoder):
            if decoder and decoder.graphs:
                decoder.graphs.forget()

    def _inward(self, mel_BTM: Tensor) -> Tensor:
        return (mel_BTM - self.get_buffer("mel_mean_M")) / self.get_buffer("mel_deviation_M")

    def _outward(self, mel_BTM: Tensor) -> Tensor:
        return mel_BTM * self.get_buffer("mel_deviation_M") + self.get_buffer("mel_mean_M")

    @torch.no_grad()
    def style_of(self, mel_BTM: Tensor, mel_lengths_B: Tensor) -> Tensor:
        """(B, H, K) weights of the style tokens in recordings. Raises ValueError where the network has none."""
        if self.style is None:
            raise ValueError("the network has no style tokens")
        weights_BHK: Tensor = self.style.weights(self._inward(mel_BTM), mel_lengths_B)
        return weights_BHK

    def _memory(self, symbols_BN: Tensor, symbol_lengths_B: Tensor, speakers_B: Tensor | None, style_BHK: Tensor | None) -> Tensor:
        """(B, N, E) what attention reads, zero where padded."""
        memory_BNE: Tensor = self.encoder(symbols_BN, symbol_lengths_B)
        shifts_BE = []
        if self.speaker:
            if speakers_B is None:
                raise ValueError("the network tells speakers apart; give speakers_B, who says each utterance")
            shifts_BE.append(self.speaker(speakers_B))
        if self.style:
            shifts_BE.append(self.style(style_BHK))
        for shift_BE in shifts_BE:
            memory_BNE = memory_BNE + shift_BE[:, None]
        padding_BN = ~length_mask(symbol_lengths_B, memory_BNE.shape[1])
        return memory_BNE.masked_fill(padding_BN[:, :, None], 0) if shifts_BE else memory_BNE

    def forward(
        self, symbols_BN: Tensor, symbol_lengths_B: Tensor, mel_BTM: Tensor, mel_lengths_B: Tensor, speakers_B: Tensor | None = None
    ) -> Tacotron2Output:
        """Teacher-forced. Utterances in any order, any T; the output's T is rounded up to a multiple of the reduction factor.

        Each utterance's style is that of its own mel. Symbol lengths are at least 1. Who speaks must be said where the network has a speaker
        embedding, and counts only there. In training mode a share of the frames that the decoders read back may be the corpus's mean. In eval mode
        the prenet still drops out, from torch's global generator, where the configuration keeps it on at inference.
        """
        inward_BTM = self._inward(mel_BTM)
        style_BHK = self.style.weights(inward_BTM, mel_lengths_B) if self.style else None
        memory_BNE = self._memory(symbols_BN, symbol_lengths_B, speakers_B, style_BHK)
        arguments = memory_BNE, symbol_lengths_B, self._drop(inward_BTM), mel_lengths_B
        decoded = self.decoder(*arguments, self.recogniser.bound if self.recogniser else None)
        coarse = self.coarse_decoder(*arguments) if self.coarse_decoder else None
        recognition = None
        if self.recogniser and decoded.heard_BSF is not None:
            recognition = self.recogniser.recognise(decoded.heard_BSF, symbols_BN, symbol_lengths_B)
        return Tacotron2Output(
            mel_BTM=self._outward(decoded.mel_BTM),
            mel_post_BTM=self._outward(self.postnet(decoded.mel_BTM, mel_lengths_B)),
            gate_logits_BT=decoded.gate_logits_BT,
            alignment_BSN=decoded.alignment_BSN,
            style_BHK=style_BHK,
            coarse=coarse and replace(coarse, mel_BTM=self._outward(coarse.mel_BTM)),
            recognition=recognition,
        )

    def _drop(self, mel_BTM: Tensor) -> Tensor:
        """Frames replaced by the corpus's mean, which is 0 in here (Liu et al. 2019): less to copy, more to take from the text."""
        if not self.training or self.frame_drop == 0:
            return mel_BTM
        dropped_BT = torch.rand(mel_BTM.shape[:2], device=mel_BTM.device) < self.frame_drop
        return mel_BTM.masked_fill(dropped_BT[:, :, None], 0)

    @torch.no_grad()
    def synthesise(
        self,
        symbols_BN: Tensor,
        symbol_lengths_B: Tensor,
        speakers_B: Tensor | None = None,
        *,
        max_frames_B: Tensor,
        gate_threshold: float,
        style_BHK: Tensor | None = None,
        seed: int | None = None,
        monotonic_attention: bool = False,
    ) -> Synthesis:
        """Speaks each utterance until its gate's probability exceeds `gate_threshold` or it has `max_frames_B` (at least 1) frames.

        `style_BHK` weighs the style tokens, as `style_of` finds it in a recording; None is the mean of training. With a seed the result is the
        same each time, alone or in any batch; None draws the prenet's dropout from torch's global generator. `monotonic_attention` lets attention
        only stay or move on by one symbol (attention/stepwise.py). Raises RuntimeError in training mode, whose dropout and batch statistics would
        be heard.
        """
        if self.training:
            raise RuntimeError("the network is in training mode; call eval() before synthesise()")
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        if self.style and style_BHK is None:
            style_BHK = self.style.mean_HK.expand(len(symbols_BN), -1, -1)
        memory_BNE = self._memory(symbols_BN, symbol_lengths_B, speakers_B, style_BHK)
        run = free_run(
            self.decoder,
            memory_BNE,
            symbol_lengths_B,
            max_frames_B=max_frames_B,
            gate_threshold=gate_threshold,
            generator=generator,
            listened=self.recogniser is not None,
            monotonic=monotonic_attention,
        )
        mel_post_BTM = self._outward(self.postnet(run.mel_BTM, run.lengths_B))
        return Synthesis(
            mel_BTM=mel_post_BTM.masked_fill(~length_mask(run.lengths_B, mel_post_BTM.shape[1])[:, :, None], 0),
            lengths_B=run.lengths_B,
            gate_BT=run.gate_BT,
            alignment_BSN=run.alignment_BSN,
            stopped_B=run.stopped_B,
            style_BHK=style_BHK,
            recognition=self.recogniser.recognise(run.heard_BSF, symbols_BN, symbol_lengths_B) if self.recogniser else None,
        )


def _coarse(config: ModelConfig) -> ModelConfig:
    """Of the coarse decoder: all as in the other, but for the frames of a step."""
    return config.model_copy(update={"reduction_factor": config.coarse_reduction_factor, "initial_reduction_factor": 0})
