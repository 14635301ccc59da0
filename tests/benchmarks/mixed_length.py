"""Training on utterances of different lengths: our batches and decoder against random batches and the textbook loop.

Lengths as in LJSpeech, drawn: frames normal (mean 566, deviation 188) within 95 and 870, 5.8 frames a symbol. Both train once on all
utterances, in batches under one frame budget, padding included: the textbook in random order, ours sorted by length, as TrainingBatches has
them. What counts is true frames a second. Steps as in tests/benchmarks/decoder.py, the two in turn in one process.

    python -m tests.benchmarks.mixed_length
"""

import json
import os
import sys
import time

import numpy as np
import torch

from tests.benchmarks.decoder import MELS, TABLE, training_step
from tts.data.batch import Batch

UTTERANCES, FRAME_BUDGET = 48, 13_920
"""The budget has room for 16 of the longest."""


def measure() -> dict[str, float]:
    """True frames a second of each, and their ratio: above 1 speaks for ours."""
    frames = np.random.default_rng(0).normal(566, 188, UTTERANCES).clip(95, 870).astype(int)
    batches = {"ours": under_budget(np.sort(frames)), "textbook": under_budget(frames)}
    steps = {name: training_step(name) for name in batches}
    for run in steps.values():
        run(batch_of(np.array([20, 15])))
    seconds = dict.fromkeys(batches, 0.0)
    for place in range(max(map(len, batches.values()))):
        for name, run in steps.items():
            if place < len(batches[name]):
                start = time.perf_counter()
                run(batch_of(batches[name][place]))
                seconds[name] += time.perf_counter() - start
    rate = {name: float(frames.sum()) / spent for name, spent in seconds.items()}
    return {
        "mixed_length_speedup": rate["ours"] / rate["textbook"],
        "mixed_length_frames_per_second": rate["ours"],
        "mixed_length_textbook_frames_per_second": rate["textbook"],
    }


def under_budget(frames: np.ndarray) -> list[np.ndarray]:
    """Cuts a sequence of lengths into batches."""
    batches, first = [], 0
    for place in range(len(frames)):
        if frames[first : place + 1].max() * (place + 1 - first) > FRAME_BUDGET:
            batches.append(frames[first:place])
            first = place
    return [*batches, frames[first:]]


def batch_of(frames: np.ndarray) -> Batch:
    """Noise of these lengths."""
    generator = torch.Generator().manual_seed(0)
    lengths_B = torch.from_numpy(frames)
    symbol_lengths_B = (lengths_B / 5.8).long().clamp(min=1)
    return Batch(
        ids=tuple(str(i) for i in range(len(frames))),
        symbols_BN=torch.randint(1, TABLE, (len(frames), int(symbol_lengths_B.max())), generator=generator),
        symbol_lengths_B=symbol_lengths_B,
        mel_BTM=torch.randn(len(frames), int(lengths_B.max()), MELS, generator=generator),
        mel_lengths_B=lengths_B,
    )


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
