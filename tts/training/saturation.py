"""Activations that no longer carry a gradient, counted while a network is validated.

| figure | share of |
|---|---|
| `activation_saturation_prenet` | units of the prenet whose ReLU was never active: dead on this material |
| `activation_saturation_encoder_lstm` | outputs of the encoder's LSTM beyond SATURATED |
| `activation_saturation_attention_lstm`, `activation_saturation_decoder_lstm` | the same of the decoder's |
| `activation_saturation_postnet` | outputs of the postnet's tanh beyond SATURATED |

Cells of true symbols and frames count, padding does not. A share of which an activation was not finite, or of which there was none, is NaN.

Shape letters: B batch, Z rows of true symbols or decoder steps, C channels, T frames.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tts.model.tacotron2 import Tacotron2

SATURATED = 0.99
"""Magnitude of tanh beyond which its slope is below 2 % of its greatest."""

SATURATION_FIELDS = tuple(f"activation_saturation_{place}" for place in ("prenet", "encoder_lstm", "attention_lstm", "decoder_lstm", "postnet"))


class Saturation:
    """Counts of what passed through the network so far; they stay on the device."""

    def __init__(self) -> None:
        self._beyond: dict[str, Tensor] = {}
        self._cells: dict[str, Tensor | int] = {}
        self._finite: dict[str, Tensor] = {}
        self._active: dict[nn.Module, Tensor] = {}

    def figures(self) -> dict[str, float]:
        """Shares by SATURATION_FIELDS."""
        if self._active:
            active = torch.cat(list(self._active.values()))
            self._beyond["prenet"], self._cells["prenet"] = (~active).sum(), len(active)
        shares = {}
        for field in SATURATION_FIELDS:
            place = field.removeprefix("activation_saturation_")
            cells = int(self._cells.get(place, 0))
            shares[field] = float(self._beyond[place]) / cells if cells and bool(self._finite[place]) else math.nan
        return shares

    def count(self, place: str, outputs: Tensor, cells: Tensor | int) -> None:
        """`outputs` of which `cells` are true, the others zero."""
        beyond = (outputs.abs() > SATURATED).sum()
        self._beyond[place] = self._beyond[place] + beyond if place in self._beyond else beyond
        self._cells[place] = self._cells.get(place, 0) + cells
        self._note(place, outputs)

    def see(self, layer: nn.Module, before_relu_ZC: Tensor) -> None:
        """What a layer of the prenet gave to its ReLU."""
        active_C = (before_relu_ZC > 0).any(0)
        self._active[layer] = self._active[layer] | active_C if layer in self._active else active_C
        self._note("prenet", before_relu_ZC)

    def _note(self, place: str, outputs: Tensor) -> None:
        finite = outputs.isfinite().all()
        self._finite[place] = self._finite[place] & finite if place in self._finite else finite


@contextmanager
def watching(model: Tacotron2) -> Iterator[Saturation]:
    """Counts in each forward pass of a network in eval mode while the block runs."""
    saturation = Saturation()

    def prenet(layer: nn.Module, _inputs: Any, output_ZC: Tensor) -> None:
        saturation.see(layer, output_ZC)

    def encoder_lstm(_module: nn.Module, _inputs: Any, output: Any) -> None:
        saturation.count("encoder_lstm", output[0].data, output[0].data.numel())  # packed

    def attention_lstm(_module: nn.Module, _inputs: Any, states_ZF: Tensor) -> None:
        h_ZH = states_ZF[:, : model.decoder.attention_lstm.hidden_size]
        saturation.count("attention_lstm", h_ZH, h_ZH.numel())

    def decoder_lstm(_module: nn.Module, _inputs: Any, h_ZD: Tensor) -> None:
        saturation.count("decoder_lstm", h_ZD, h_ZD.numel())

    def postnet(_module: nn.Module, inputs: Any, output_BCT: Tensor) -> None:
        saturation.count("postnet", output_BCT, inputs[1].sum() * output_BCT.shape[1])

    decoder, blocks = model.decoder, model.postnet.convolutions
    hooks = [layer.register_forward_hook(prenet) for layer in decoder.prenet.layers]
    hooks += [block.register_forward_hook(postnet) for block in blocks if getattr(block, "activation", "") == "tanh"]
    hooks += [
        model.encoder.lstm.register_forward_hook(encoder_lstm),
        decoder.attention_states.register_forward_hook(attention_lstm),
        decoder.decoder_dropout.register_forward_hook(decoder_lstm),
    ]
    try:
        yield saturation
    finally:
        for hook in hooks:
            hook.remove()
