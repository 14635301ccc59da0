"""A network speaks held-out texts and is measured by it: FREE_RUNNING_METRICS.

Shape letters: B utterances, N symbols, T frames, S decoder steps, M mels.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tts.config import Config
from tts.data.batches import collate
from tts.data.store import FeatureStore
from tts.diagnostics.attention import attention_measures
from tts.evaluation.metrics import mel_cepstral_distortion
from tts.model.frames import step_lengths
from tts.model.output import Synthesis
from tts.model.tacotron2 import Tacotron2
from tts.training.held_out import until
from tts.training.preemption import StopFlag
from tts.tuning.trials.free_running import LONGEST

BATCH = 16
"""Utterances that are spoken side by side."""


def speaking(store: FeatureStore, config: Config, stop: StopFlag) -> Callable[[Tacotron2], dict[str, float]]:
    """A function that lets a network speak and returns FREE_RUNNING_METRICS.

    The dropout of the prenet has a seed of its own in all validations and trials, `synthesis.seed`; torch's random state, the weights and
    the mode of the network stay as they are. It raises AbandonedError once the run is to stop.
    """
    chosen = store.held_out[: config.tuning.free_running_utterances]
    factor = config.model.largest_reduction_factor

    @torch.no_grad()
    def measure(model: Tacotron2) -> dict[str, float]:
        training, device = model.training, next(model.parameters()).device
        model.eval()
        rows: list[dict[str, float]] = []
        for first in until(stop, range(0, len(chosen), BATCH)):
            part = chosen[first : first + BATCH]
            batch = collate(store, part, factor).to(device)
            spoken = model.synthesise(
                batch.symbols_BN,
                batch.symbol_lengths_B,
                batch.speakers_B,
                max_frames_B=(batch.mel_lengths_B * LONGEST).long(),
                gate_threshold=config.synthesis.gate_threshold,
                seed=config.synthesis.seed,
                monotonic_attention=config.synthesis.monotonic_attention,
            )
            rows += measures(spoken, batch.symbol_lengths_B, [store.mel(int(index)) for index in part])
        model.train(training)
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    return measure


def measures(spoken: Synthesis, symbol_lengths_B: torch.Tensor, recorded: Sequence[NDArray[np.float32]]) -> list[dict[str, float]]:
    """Of each utterance, against its recording (T, M). NaN throughout where its mel or its attention is none."""
    lengths_B = spoken.lengths_B.cpu()
    attention = attention_measures(spoken.alignment_BSN.cpu(), symbol_lengths_B.cpu(), step_lengths(lengths_B, spoken.reduction_factor))
    mel_BTM = spoken.mel_BTM.float().cpu().numpy()
    rows = []
    for row, reference_TM in enumerate(recorded):
        frames = int(lengths_B[row])
        ratio = frames / len(reference_TM)
        figures = {
            "free_diagonality": float(attention["diagonality"][row]) * min(ratio, 1 / ratio),
            "free_coverage": float(attention["coverage"][row]),
            "free_stopped_share": float(spoken.stopped_B[row]),
            "free_duration_error": abs(ratio - 1),
            "free_mcd": mel_cepstral_distortion(reference_TM, mel_BTM[row, :frames]),
        }
        rows.append(figures if np.isfinite(list(figures.values())).all() else dict.fromkeys(figures, float("nan")))
    return rows
