"""The bottleneck between the previous frame and the decoder (Shen et al. 2018, section 2.2).

Its dropout stays on at inference unless configured otherwise: the paper's source of variation, and what keeps the decoder from
copying the previous frame.

Shape letters: B batch, S decoder steps, M mels, P prenet width.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from tts.config import ModelConfig
from tts.model.activation import activate


class Prenet(nn.Module):
    """Two linear layers without bias, ReLU and dropout after each; Xavier-uniform weights (NVIDIA/tacotron2)."""

    def __init__(self, config: ModelConfig, *, mels: int) -> None:
        super().__init__()
        layers = [nn.Linear(inputs, config.prenet, bias=False) for inputs in (mels, config.prenet)]
        self.width = config.prenet
        self.dropout = config.prenet_dropout
        self.dropout_at_inference = config.prenet_dropout_at_inference
        self.layers = nn.ModuleList(layers)
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, frames_M: Tensor) -> Tensor:
        """(..., M) -> (..., P). Dropout draws from the global generator; in eval mode too where the configuration keeps it on."""
        active = self.training or self.dropout_at_inference
        for layer in self.layers:
            frames_M = activate(layer(frames_M), "relu", self.dropout if active else 0)
        return frames_M

    def synthesise(self, frames_BM: Tensor, generator: torch.Generator | None) -> Tensor:
        """(B, M) -> (B, P) for one step of synthesis.

        One mask, drawn on the CPU, serves the whole batch: an utterance sounds the same whatever it is batched with, and on any device.
        """
        return spoken(frames_BM, self.layers, self.masks(1, generator)[0].to(frames_BM))

    def masks(self, steps: int, generator: torch.Generator | None) -> Tensor:
        """(steps, layers, P), on the CPU: what each layer's cells are multiplied by at each step of synthesis."""
        size = (steps, len(self.layers), self.width)
        if not self.dropout_at_inference or self.dropout == 0:
            return torch.ones(size)
        return (torch.rand(size, generator=generator) >= self.dropout) / (1 - self.dropout)


def spoken(frames_BM: Tensor, layers: Iterable[Callable[[Tensor], Tensor]], masks_LP: Tensor) -> Tensor:
    """(B, P): the prenet's layers, one after another, under their masks."""
    for layer, mask_P in zip(layers, masks_LP, strict=True):
        frames_BM = torch.relu(layer(frames_BM)).mul_(mask_P)
    return frames_BM
