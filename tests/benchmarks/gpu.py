"""Our decoder in CUDA graphs against the textbook loop in eager mode, a whole training step of each on the same card, in bf16.

Model, batch and step are those of tests/benchmarks/decoder.py. Each shape is seen a few times first: kernels are chosen, graphs captured.
Without CUDA nothing is measured, and that is said.

    python -m tests.benchmarks.gpu
"""

import json
import sys
import time
from statistics import median

import torch

from tests.benchmarks.decoder import DECODERS, FRAMES, random_batch, training_step
from tts.config import Config
from tts.training.precision import Precision, choose_precision

WARM_UP, REPEATS = 3, 7


def measure() -> dict[str, float]:
    """Medians of seconds a step and peak memory of each, and the ratio: above 1 speaks for ours. Empty without CUDA."""
    if not torch.cuda.is_available():
        sys.stderr.write("gpu_speedup is left out: torch finds no CUDA device here\n")
        return {}
    return compare(choose_precision("bf16", torch.device("cuda")))


def compare(precision: Precision, config: Config | None = None, frames: int = FRAMES) -> dict[str, float]:
    """On any device."""
    steps = {name: training_step(name, config, precision) for name in DECODERS}
    batch = random_batch(frames).to(precision.device)
    seconds: dict[str, list[float]] = {name: [] for name in DECODERS}
    peak_gib = dict.fromkeys(DECODERS, 0.0)
    for turn in range(WARM_UP + REPEATS):
        for name, step in steps.items():
            if precision.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            step(batch)  # its loss comes to the host: nothing is left to do
            if turn >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
                peak_gib[name] = torch.cuda.max_memory_allocated() / 2**30 if precision.device.type == "cuda" else 0.0
    typical = {name: median(values) for name, values in seconds.items()}
    return {
        "gpu_speedup": typical["textbook"] / typical["ours"],
        "gpu_step_seconds": typical["ours"],
        "gpu_textbook_step_seconds": typical["textbook"],
        "gpu_peak_gib_of_both_with_ours_at_work": peak_gib["ours"],
        "gpu_peak_gib_of_both_with_the_textbook_at_work": peak_gib["textbook"],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
