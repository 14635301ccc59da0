"""Our decoder against the textbook loop (tests/model/textbook.py) in a whole training step.

Forward, losses, backward, clipping, Adam; fp32, tacotron2 preset, 16 utterances of 80 symbols and 402 frames at most, lengths 50-100 %,
on every core. The two are timed in turn in one process; peak memory is of a process of its own each.

    python -m tests.benchmarks.decoder
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
from torch.nn.utils import clip_grad_norm_

from tests.model.textbook import TextbookDecoder
from tts.config import Config
from tts.config.presets import tacotron2
from tts.data.batch import Batch
from tts.losses.total import total_loss
from tts.model.tacotron2 import Tacotron2
from tts.training.adam import Adam
from tts.training.precision import Precision

BATCH, SYMBOLS, FRAMES, MELS, TABLE = 16, 80, 402, 80, 60
DECODERS = ("ours", "textbook")
REPEATS = 3


def measure() -> dict[str, float]:
    """Medians of seconds a step, peak memory of each, and ratios: speed-up above 1 and memory below 1 speak for ours."""
    memory = {name: _memory_gib(name) for name in DECODERS}
    typical = in_turn({name: training_step(name) for name in DECODERS})
    return {
        "decoder_speedup": typical["textbook"] / typical["ours"],
        "decoder_memory_ratio": memory["ours"] / memory["textbook"],
        "decoder_step_seconds": typical["ours"],
        "decoder_textbook_step_seconds": typical["textbook"],
        "train_step_peak_gib": memory["ours"],
        "train_step_textbook_peak_gib": memory["textbook"],
    }


CPU = Precision("fp32", torch.device("cpu"))


def training_step(name: str, config: Config | None = None, precision: Precision = CPU) -> Callable[[Batch], float]:
    """A function that trains on a batch and returns the loss; preset `tacotron2` unless told otherwise. On CUDA our loop is in graphs."""
    config = config or tacotron2()
    torch.manual_seed(0)
    model = Tacotron2(config.model, symbols=TABLE, mels=MELS).to(precision.device)
    if name == "ours" and precision.device.type == "cuda":
        model.capture_loops()
    if name == "textbook":
        model.decoder = TextbookDecoder(model.decoder)
        model.coarse_decoder = model.coarse_decoder and TextbookDecoder(model.coarse_decoder)
    optimiser = Adam(model.parameters(), lr=1e-3, weight_decay=1e-6, fused=True)

    def step(batch: Batch) -> float:
        optimiser.zero_grad()
        with precision.autocast():
            output = model(batch.symbols_BN, batch.symbol_lengths_B, batch.mel_BTM, batch.mel_lengths_B)
        losses = total_loss(output, batch, config, 0)
        losses.total.backward()
        clip_grad_norm_(model.parameters(), config.optimiser.clip_norm)
        optimiser.step()
        return float(losses.total.detach())

    return step


def in_turn(steps: Mapping[str, Callable[[Batch], float]]) -> dict[str, float]:
    """Median seconds of each on a batch of FRAMES at most, after a short one."""
    for run in steps.values():
        run(random_batch(FRAMES // 20))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(REPEATS):
        for name, run in steps.items():
            start = time.perf_counter()
            run(random_batch(FRAMES))
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def random_batch(frames: int) -> Batch:
    """Lengths of 50-100 %, the longest first; the same each time."""
    generator = torch.Generator().manual_seed(0)
    share_B = torch.linspace(1, 0.5, BATCH)
    return Batch(
        ids=tuple(str(i) for i in range(BATCH)),
        symbols_BN=torch.randint(1, TABLE, (BATCH, SYMBOLS), generator=generator),
        symbol_lengths_B=(share_B * SYMBOLS).long(),
        mel_BTM=torch.randn(BATCH, frames, MELS, generator=generator),
        mel_lengths_B=(share_B * frames).long(),
    )


def _memory_gib(name: str) -> float:
    """Peak resident memory of a fresh process that makes one step after a short one, interpreter and weights included."""
    command = [sys.executable, "-m", "tests.benchmarks.decoder", "--memory", name]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _own_peak_gib(name: str) -> float:
    step = training_step(name)
    step(random_batch(FRAMES // 20))  # Adam's state is there before the peak, as in every step but the first
    step(random_batch(FRAMES))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time and memory of a training step with our decoder and with the textbook loop.")
    parser.add_argument("--memory", choices=DECODERS, help="print the peak memory of this process alone, in GiB")
    name = parser.parse_args().memory
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sys.stdout.write(f"{_own_peak_gib(name)}\n" if name else json.dumps(measure(), indent=2) + "\n")
