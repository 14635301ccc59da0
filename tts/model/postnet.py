"""The residual that sharpens the decoder's mel (Shen et al. 2018, section 2.2).

Differs from NVIDIA/tacotron2: frames past the end reach neither a convolution nor a batch statistic.

Shape letters: B batch, T frames, M mels, C channels.
"""

from torch import Tensor, nn

from tts.config import ModelConfig
from tts.data.batch import length_mask
from tts.model.convolution import Activation, ConvolutionBlock


class Postnet(nn.Module):
    """Convolutions, tanh on all but the last, dropout on all (NVIDIA/tacotron2)."""

    def __init__(self, config: ModelConfig, *, mels: int) -> None:
        super().__init__()
        widths = [mels] + [config.postnet_channels] * (config.postnet_convolutions - 1) + [mels]
        hidden: list[Activation] = ["tanh"] * (config.postnet_convolutions - 1)
        self.convolutions = nn.ModuleList(
            ConvolutionBlock(inputs, outputs, kernel=config.postnet_kernel, activation=activation, dropout=config.postnet_dropout)
            for inputs, outputs, activation in zip(widths[:-1], widths[1:], [*hidden, "linear"], strict=True)
        )

    def forward(self, mel_BTM: Tensor, mel_lengths_B: Tensor) -> Tensor:
        """(B, T, M): the mel plus the residual; past the end the mel as it was."""
        if mel_BTM.shape[1] == 0:  # torch refuses to convolve nothing
            return mel_BTM
        valid_B1T = length_mask(mel_lengths_B, mel_BTM.shape[1])[:, None]
        residual_BCT = mel_BTM.transpose(1, 2).masked_fill(~valid_B1T, 0)
        for block in self.convolutions:
            residual_BCT = block(residual_BCT, valid_B1T)
        return mel_BTM + residual_BCT.transpose(1, 2)
