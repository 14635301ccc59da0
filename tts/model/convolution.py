"""Convolution, masked batch normalisation, activation, dropout: the block of which encoder and postnet are stacks.

Shape letters: B batch, C channels, L positions (symbols or frames).
"""

from torch import Tensor, nn

from tts.model.activation import Activation, activate
from tts.model.batch_norm import MaskedBatchNorm1d


class ConvolutionBlock(nn.Module):
    """One layer of Shen et al. 2018's stacks; weights are Xavier-uniform with the activation's gain, as in NVIDIA/tacotron2."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)  # the norm takes the mean away and adds its own bias
        self.norm = MaskedBatchNorm1d(outputs)
        self.activation = activation
        self.dropout = dropout
        nn.init.xavier_uniform_(self.convolution.weight, gain=nn.init.calculate_gain(activation))

    def forward(self, x_BCL: Tensor, valid_B1L: Tensor) -> Tensor:
        """(B, C', L). Cells outside `valid_B1L` must be zero on the way in, and are on the way out."""
        y_BCL = self.norm(self.convolution(x_BCL), valid_B1L)
        return activate(y_BCL, self.activation, self.dropout if self.training else 0, valid_B1L)
