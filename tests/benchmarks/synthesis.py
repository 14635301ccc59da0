"""Free-running synthesis against a textbook loop, which runs all utterances until the last has ended.

Eight utterances, tacotron2 preset, frames as in LJSpeech (tests/benchmarks/mixed_length.py), none stopped by its gate; the decoder alone, as
the rest is the same. The two in turn in one process.

    python -m tests.benchmarks.synthesis
"""

import json
import os
import sys
import time
from statistics import median

import numpy as np
import torch

from tests.benchmarks.decoder import MELS
from tests.model.textbook import speak
from tts.config.presets import tacotron2
from tts.model.decoder import Decoder
from tts.model.free_running import free_run

UTTERANCES, REPEATS = 8, 3


def measure() -> dict[str, float]:
    """Medians of seconds for all utterances, their ratio (above 1 speaks for ours), and our true frames a second."""
    torch.manual_seed(0)
    decoder = Decoder(tacotron2().model, mels=MELS).eval()
    frames_B = torch.from_numpy(np.random.default_rng(0).normal(566, 188, UTTERANCES).clip(95, 870).astype(int))
    symbol_lengths_B = (frames_B / 5.8).long()
    memory_BNE = torch.randn(UTTERANCES, int(symbol_lengths_B.max()), tacotron2().model.encoder_lstm)

    def ours(frames_B: torch.Tensor) -> None:
        free_run(decoder, memory_BNE, symbol_lengths_B, max_frames_B=frames_B, gate_threshold=1.0)

    def textbook(frames_B: torch.Tensor) -> None:
        speak(decoder, memory_BNE, symbol_lengths_B, int(frames_B.max()))

    loops = {"ours": ours, "textbook": textbook}
    for run in loops.values():
        run(frames_B // 20)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(REPEATS):
        for name, run in loops.items():
            start = time.perf_counter()
            run(frames_B)
            seconds[name].append(time.perf_counter() - start)
    typical = {name: median(values) for name, values in seconds.items()}
    return {
        "synthesis_speedup": typical["textbook"] / typical["ours"],
        "synthesis_seconds": typical["ours"],
        "synthesis_textbook_seconds": typical["textbook"],
        "synthesis_frames_per_second": float(frames_B.sum()) / typical["ours"],
    }


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
