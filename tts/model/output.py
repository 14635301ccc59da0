"""What the network returns, by name.

Shape letters: B batch, N symbols, T frames (a multiple of the reduction factor r), S = T / r decoder steps, M mels.
"""

from dataclasses import dataclass

from torch import Tensor

from tts.model.decoder import DecoderOutput
from tts.model.frames import frames_per_step
from tts.model.recogniser import Recognition


@dataclass(frozen=True)
class Tacotron2Output:
    """Teacher-forced or free-running; cells past an utterance's true length carry no meaning."""

    mel_BTM: Tensor
    """Decoder's mel, before the postnet."""
    mel_post_BTM: Tensor
    """Mel after the postnet: what is spoken."""
    gate_logits_BT: Tensor
    """Stop gate, one logit a frame: positive at and after the last frame."""
    alignment_BSN: Tensor
    """Attention weights, float32, a distribution over the true symbols in each step."""
    coarse: DecoderOutput | None = None
    """What the coarse decoder made of the same batch, with its own r; None without one."""
    recognition: Recognition | None = None
    """What the recogniser heard of `mel_BTM`'s decoder; None without one."""
    style_BHK: Tensor | None = None
    """Weights of K style tokens in H heads, float32, a distribution in each; None for a network without."""

    @property
    def reduction_factor(self) -> int:
        """Frames of a step; 1 where there is none."""
        return frames_per_step(self.mel_BTM, self.alignment_BSN)


@dataclass(frozen=True)
class Synthesis:
    """Free-running speech; zero past each utterance's length."""

    mel_BTM: Tensor
    """Mel after the postnet: what is spoken."""
    lengths_B: Tensor
    """int64, frames; the last one is that in which the gate fired, or the maximum."""
    gate_BT: Tensor
    """Stop gate's probabilities."""
    alignment_BSN: Tensor
    """Attention weights, float32, a distribution over the true symbols in each step of the utterance."""
    stopped_B: Tensor
    """bool: the gate ended the utterance; False where its maximum of frames did."""
    recognition: Recognition | None = None
    """What the recogniser heard of it, steps past the end included; None without one."""
    style_BHK: Tensor | None = None
    """Weights of the style tokens that it was spoken with; None for a network without."""

    @property
    def reduction_factor(self) -> int:
        """Frames of a step."""
        return frames_per_step(self.mel_BTM, self.alignment_BSN)
