"""Speaking style without labels: global style tokens (Wang et al. 2018, arXiv:1803.09017).

A reference encoder sums up a mel in one vector; attention over a bank of learnt tokens turns it into weights, and the weighted tokens shift what
the decoder's attention reads. Layout and sizes are the paper's: six 3x3 convolutions of stride 2 and a GRU of half of `style_width`; tanh on the
tokens; scaled dot products in `style_heads` heads (as Coqui, where the paper leaves it open).

Differs: nothing sees padding. Cells past an utterance's true length are zero before each convolution and stay out of the batch statistics, and
the GRU ends at the true length, so a style does not depend on what an utterance is batched with. The style is added to the memory after a
projection, as the speaker is (speaker.py). All in float32 whatever the autocast type: it is a thousandth of a step's work.

Shape letters: B batch, T frames, M mels, C channels, F bands, H heads, K tokens, D width of a head, G reference width, E memory width.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from tts.config import ModelConfig
from tts.data.batch import length_mask
from tts.model.batch_norm import MaskedBatchNorm1d
from tts.model.frames import pad_frames

CHANNELS = (32, 32, 64, 64, 128, 128)
LEAST_SHARE = 0.01
"""Share of a batch in the mean style at least: of the first hundred batches it is the mean, then the older ones fade."""


class ReferenceEncoder(nn.Module):
    """Convolutions with batch norm and ReLU, then a GRU over what is left of the frames."""

    def __init__(self, *, mels: int, width: int) -> None:
        super().__init__()
        sizes = zip((1, *CHANNELS[:-1]), CHANNELS, strict=True)
        self.convolutions = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False) for inputs, outputs in sizes)
        self.norms = nn.ModuleList(MaskedBatchNorm1d(channels) for channels in CHANNELS)
        bands = mels
        for _ in CHANNELS:
            bands = (bands + 1) // 2
        self.gru = nn.GRU(CHANNELS[-1] * bands, width, batch_first=True)

    def forward(self, mel_BTM: Tensor, lengths_B: Tensor) -> Tensor:
        """(B, G): the GRU's last state."""
        x_BCTF, lengths_B = mel_BTM[:, None], lengths_B.clamp(min=1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x_BCTF = x_BCTF.masked_fill(~length_mask(lengths_B, x_BCTF.shape[2])[:, None, :, None], 0)
            x_BCTF, lengths_B = convolution(x_BCTF), (lengths_B + 1) // 2
            batch, _, frames, bands = x_BCTF.shape
            valid_B1L = length_mask(lengths_B, frames)[:, None, :, None].expand(batch, 1, frames, bands).flatten(2)
            x_BCTF = torch.relu(norm(x_BCTF.flatten(2), valid_B1L)).view(x_BCTF.shape)
        steps_BTC = x_BCTF.transpose(1, 2).flatten(2)
        # Packing needs the lengths on the host, as in the encoder.
        packed = pack_padded_sequence(steps_BTC, lengths_B.cpu(), batch_first=True, enforce_sorted=False)
        state_BG: Tensor = self.gru(packed)[1][0]
        return state_BG


class StyleTokens(nn.Module):
    """The bank, attention over it, and the mean weights of training, by which a network speaks to which no style is given."""

    mean_HK: Tensor
    batches: Tensor

    def __init__(self, config: ModelConfig, *, mels: int) -> None:
        super().__init__()
        width, heads, tokens = config.style_width, config.style_heads, config.style_tokens
        self.heads = heads
        self.reference = ReferenceEncoder(mels=mels, width=width // 2)
        self.tokens = nn.Parameter(torch.randn(tokens, width // heads) * 0.5)
        self.query = nn.Linear(width // 2, width, bias=False)
        self.key = nn.Linear(width // heads, width, bias=False)
        self.value = nn.Linear(width // heads, width, bias=False)
        self.projection = nn.Linear(width, config.encoder_lstm, bias=False)
        self.register_buffer("mean_HK", torch.full((heads, tokens), 1 / tokens))
        self.register_buffer("batches", torch.tensor(0))

    def weights(self, mel_BTM: Tensor, lengths_B: Tensor) -> Tensor:
        """(B, H, K) of references with normalised bands: in each head a distribution over the tokens, in float32 (float64 stays)."""
        with torch.autocast(mel_BTM.device.type, enabled=False):
            mel_BTM = pad_frames(mel_BTM, max(1, mel_BTM.shape[1])).to(self.tokens.dtype)
            query_BHD = self.query(self.reference(mel_BTM, lengths_B)).view(len(lengths_B), self.heads, -1)
            key_KHD = self.key(torch.tanh(self.tokens)).view(len(self.tokens), self.heads, -1)
            energies_BHK = torch.einsum("bhd,khd->bhk", query_BHD, key_KHD) / math.sqrt(key_KHD.shape[2])
            return torch.softmax(energies_BHK, dim=2)

    def forward(self, weights_BHK: Tensor) -> Tensor:
        """(B, E) what the memory is shifted by. The weights may be any numbers."""
        with torch.autocast(weights_BHK.device.type, enabled=False):
            value_KHD = self.value(torch.tanh(self.tokens)).view(len(self.tokens), self.heads, -1)
            style_BHD = torch.einsum("bhk,khd->bhd", weights_BHK.to(value_KHD.dtype), value_KHD)
            shift_BE: Tensor = self.projection(style_BHD.flatten(1))
            return shift_BE

    @torch.no_grad()
    def remember(self, weights_HK: Tensor) -> None:
        """Takes a batch's mean weights into those of training."""
        self.batches.add_(1)
        share = (1 / self.batches.to(self.mean_HK.dtype)).clamp(min=LEAST_SHARE)
        self.mean_HK.lerp_(weights_HK.to(self.mean_HK.dtype), share)
