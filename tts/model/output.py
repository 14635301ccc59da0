"""What the network returns, by name.

Shape letters: B batch, N symbols, T frames (a multiple of the reduction factor r), S = T / r decoder steps, M mels.
"""

from dataclasses import dataclass

from torch import Tensor


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
