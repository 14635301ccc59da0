"""A trained network speaks on its own: no recording to lean on, a bounded length, and the reason why each utterance ended.

Shape letters: B batch, N symbols, T frames, S decoder steps, M mels.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from tts.config import SynthesisConfig
from tts.diagnostics.attention import attention_measures
from tts.diagnostics.measured import per_utterance
from tts.diagnostics.recognition import error_rates
from tts.model.frames import step_lengths
from tts.model.tacotron2 import Tacotron2

BATCH = 16
"""Utterances that are spoken side by side."""

StopReason = Literal["gate", "length limit"]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Utterance:
    """What was spoken."""

    mel_TM: Floats
    """Log magnitudes after the postnet."""
    gate_T: Floats
    """Stop gate's probabilities."""
    alignment_SN: Floats
    stop_reason: StopReason
    attention: dict[str, float]
    """See `attention_measures`; NaN throughout where the alignment is none."""
    seconds: float
    """Time that the network took, the batch's time shared out by frames."""
    recogniser_error_rate: float | None = None
    """Errors of what the network's own recogniser heard, a label of the text; None without one."""


def synthesise(
    model: Tacotron2,
    sequences: Sequence[Sequence[int]],
    config: SynthesisConfig,
    device: torch.device,
    speakers: Sequence[int] | None = None,
    style_HK: torch.Tensor | None = None,
) -> Iterator[list[Utterance]]:
    """Speaks sequences of symbols, in batches, in their order. The model must be in eval mode and on `device`.

    `speakers` are the numbers of those who say them; a network with a speaker embedding needs them. `style_HK` weighs the style
    tokens of a network with such; None is the mean of training.

    An utterance ends where its gate's probability exceeds `synthesis.gate_threshold`, or at `max_frames_per_symbol` times its symbols.
    With one seed an utterance comes out the same in any batch.
    """
    for first in range(0, len(sequences), BATCH):
        who = None if speakers is None else torch.tensor(speakers[first : first + BATCH])
        yield _speak(model, sequences[first : first + BATCH], who, style_HK, config, device)


@torch.no_grad()
def _speak(
    model: Tacotron2,
    sequences: Sequence[Sequence[int]],
    speakers_B: torch.Tensor | None,
    style_HK: torch.Tensor | None,
    config: SynthesisConfig,
    device: torch.device,
) -> list[Utterance]:
    symbol_lengths_B = torch.tensor([len(sequence) for sequence in sequences])
    symbols_BN = torch.zeros(len(sequences), int(symbol_lengths_B.max()), dtype=torch.int64)
    for row, sequence in enumerate(sequences):
        symbols_BN[row, : len(sequence)] = torch.as_tensor(sequence)
    max_frames_B = torch.tensor([math.ceil(config.max_frames_per_symbol * len(sequence)) for sequence in sequences])
    begun = time.perf_counter()
    spoken = model.synthesise(
        symbols_BN.to(device),
        symbol_lengths_B.to(device),
        None if speakers_B is None else speakers_B.to(device),
        max_frames_B=max_frames_B.to(device),
        gate_threshold=config.gate_threshold,
        style_BHK=None if style_HK is None else style_HK.to(device).expand(len(sequences), -1, -1),
        seed=config.seed,
        monotonic_attention=config.monotonic_attention,
    )
    lengths_B, alignment_BSN = spoken.lengths_B.cpu(), spoken.alignment_BSN.float().cpu()  # waits for the device, so it is inside the time
    spent = time.perf_counter() - begun
    steps_B = step_lengths(lengths_B, spoken.reduction_factor)
    measures = per_utterance(attention_measures(alignment_BSN, symbol_lengths_B, steps_B))
    rates = error_rates(spoken.recognition, steps_B) if spoken.recognition else [None] * len(sequences)
    mel_BTM, gate_BT = spoken.mel_BTM.float().cpu().numpy(), spoken.gate_BT.float().cpu().numpy()
    return [
        Utterance(
            mel_TM=mel_BTM[row, :frames],
            gate_T=gate_BT[row, :frames],
            alignment_SN=alignment_BSN[row, :steps, : len(sequences[row])].numpy(),
            stop_reason="gate" if stopped else "length limit",
            attention=measures[row],
            seconds=spent * frames / int(lengths_B.sum()),
            recogniser_error_rate=rates[row],
        )
        for row, (frames, steps, stopped) in enumerate(zip(lengths_B.tolist(), steps_B.tolist(), spoken.stopped_B.tolist(), strict=True))
    ]
