"""The bottleneck between the previous frame and the decoder (Shen et al. 2018, section 2.2).

Its dropout stays on at inference unless configured otherwise: the paper's source of variation, and what keeps the decoder from
copying the previous frame.

Shape letters: B batch, S decoder steps, M mels, P prenet width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tts.config import ModelConfig


class Prenet(nn.Module):
    """Two linear layers without bias, ReLU and dropout after each; Xavier-uniform weights (NVIDIA/tacotron2)."""

    def __init__(self, config: ModelConfig, *, mels: int) -> None:
        super().__init__()
        layers = [nn.Linear(inputs, config.prenet, bias=False) for inputs in (mels, config.prenet)]
        self.dropout = config.prenet_dropout
        self.dropout_at_inference = config.prenet_dropout_at_inference
        self.layers = nn.ModuleList(layers)
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, frames_M: Tensor) -> Tensor:
        """(..., M) -> (..., P). Dropout draws from the global generator; in eval mode too where the configuration keeps it on."""
        active = self.training or self.dropout_at_inference
        for layer in self.layers:
            frames_M = functional.dropout(torch.relu(layer(frames_M)), self.dropout, active)
        return frames_M

    def synthesise(self, frames_BM: Tensor, generator: torch.Generator | None) -> Tensor:
        """(B, M) -> (B, P) for one step of synthesis.

        One mask, drawn on the CPU, serves the whole batch: an utterance sounds the same whatever it is batched with, and on any device.
        """
        for layer in self.layers:
            frames_BM = torch.relu(layer(frames_BM))
            if self.dropout_at_inference and self.dropout > 0:
                kept = torch.rand(frames_BM.shape[1], generator=generator) >= self.dropout
                frames_BM = frames_BM * (kept.to(frames_BM) / (1 - self.dropout))
        return frames_BM
