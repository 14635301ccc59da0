"""The residual that sharpens the decoder's mel (Shen et al. 2018, section 2.2).

Differs from NVIDIA/tacotron2: frames past the end reach neither a convolution nor a batch statistic.

Shape letters: B batch, T frames, M mels, C channels, L true frames of all utterances and zeros between (row.py).
"""

from torch import Tensor, nn

from tts.config import ModelConfig
from tts.model.activation import Activation
from tts.model.convolution import ConvolutionBlock
from tts.model.row import row


class Postnet(nn.Module):
    """Convolutions, tanh on all but the last, dropout on all (NVIDIA/tacotron2)."""

    def __init__(self, config: ModelConfig, *, mels: int) -> None:
        super().__init__()
        self.reach = config.postnet_kernel // 2
        widths = [mels] + [config.postnet_channels] * (config.postnet_convolutions - 1) + [mels]
        hidden: list[Activation] = ["tanh"] * (config.postnet_convolutions - 1)
        self.convolutions = nn.ModuleList(
            ConvolutionBlock(inputs, outputs, kernel=config.postnet_kernel, activation=activation, dropout=config.postnet_dropout)
            for inputs, outputs, activation in zip(widths[:-1], widths[1:], [*hidden, "linear"], strict=True)
        )

    def forward(self, mel_BTM: Tensor, mel_lengths_B: Tensor) -> Tensor:
        """(B, T, M): the mel plus the residual; past the end the mel as it was."""
        frames = row(mel_lengths_B, self.reach)
        if frames.valid_11L.numel() == 0:  # torch refuses to convolve nothing
            return mel_BTM
        residual_1CL = frames.join(mel_BTM)
        for block in self.convolutions:
            residual_1CL = block(residual_1CL, frames.valid_11L)
        return mel_BTM + frames.split(residual_1CL, *mel_BTM.shape[:2])
