"""Time and memory of a training step against the length of the longest utterance: both should grow in proportion.

Steps as in tests/benchmarks/decoder.py with four utterances, each length in a process of its own.

    python -m tests.benchmarks.long_utterances
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
import torch

from tests.benchmarks.decoder import training_step
from tests.benchmarks.mixed_length import batch_of

LENGTHS = (250, 500, 1000, 1500, 2000)
SHARES = np.array([1.0, 0.85, 0.7, 0.5])
REPEATS = 2


def measure() -> dict[str, float]:
    """Seconds (the shortest of a few) and peak memory for each length; how much more a frame costs at the end than before.

    Memory from 1,000 frames on: below, the peak is mostly what does not depend on frames.
    """
    figures: dict[str, float] = {}
    for frames in LENGTHS:
        command = [sys.executable, "-m", "tests.benchmarks.long_utterances", "--frames", str(frames)]
        figures |= json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    seconds, before = figures["frames_2000_seconds"] / 2000, figures["frames_500_seconds"] / 500
    grown = figures["frames_2000_gib"] - figures["frames_1500_gib"], figures["frames_1500_gib"] - figures["frames_1000_gib"]
    return figures | {"long_utterance_time_per_frame": seconds / before, "long_utterance_memory_growth": grown[0] / grown[1]}


def one_length(frames: int) -> dict[str, float]:
    step = training_step("ours")
    lengths = (SHARES * frames).astype(int)
    step(batch_of(lengths // 20))
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        step(batch_of(lengths))
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {f"frames_{frames}_seconds": min(seconds), f"frames_{frames}_gib": peak}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time and memory of a training step against the length of its utterances.")
    parser.add_argument("--frames", type=int, help="measure this length alone, in this process")
    frames = parser.parse_args().frames
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sys.stdout.write(json.dumps(one_length(frames) if frames else measure(), indent=2) + "\n")
