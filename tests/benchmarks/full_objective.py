"""The whole objective (both decoders, guided attention, mutual information) against the textbook double decoder without mutual information.

A whole training step as in tests/benchmarks/decoder.py, on the same batch, preset `full`: reduction factors 1 and 6. The two are timed in turn
in one process.

    python -m tests.benchmarks.full_objective
"""

import json
import os
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch.nn.utils import clip_grad_norm_

from tests.benchmarks.decoder import FRAMES, MELS, TABLE, random_batch
from tests.model.textbook import TextbookDecoder
from tts.config import Config
from tts.config.load import override
from tts.config.presets import full
from tts.losses.total import total_loss
from tts.model.tacotron2 import Tacotron2

REPEATS = 3


def measure() -> dict[str, float]:
    """Medians of seconds a step, and their ratio: above 1 speaks for ours."""
    plain = override(full(), {"model.recogniser": 0, "model.frame_drop": 0.0})
    steps = {"ours": training_step(full()), "textbook": training_step(plain, textbook=True)}
    for run in steps.values():
        run(FRAMES // 20)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(REPEATS):
        for name, run in steps.items():
            start = time.perf_counter()
            run(FRAMES)
            seconds[name].append(time.perf_counter() - start)
    typical = {name: median(values) for name, values in seconds.items()}
    return {
        "full_objective_speedup": typical["textbook"] / typical["ours"],
        "full_objective_step_seconds": typical["ours"],
        "full_objective_textbook_step_seconds": typical["textbook"],
    }


def training_step(config: Config, *, textbook: bool = False) -> Callable[[int], float]:
    """A function that trains on a batch of at most the given number of frames and returns the loss."""
    torch.manual_seed(0)
    model = Tacotron2(config.model, symbols=TABLE, mels=MELS)
    if textbook:
        model.decoder, model.coarse_decoder = TextbookDecoder(model.decoder), TextbookDecoder(model.coarse_decoder)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-6, fused=True)

    def step(frames: int) -> float:
        batch = random_batch(frames)
        optimiser.zero_grad()
        output = model(batch.symbols_BN, batch.symbol_lengths_B, batch.mel_BTM, batch.mel_lengths_B)
        losses = total_loss(output, batch, config, 0)
        losses.total.backward()
        clip_grad_norm_(model.parameters(), config.optimiser.clip_norm)
        optimiser.step()
        return float(losses.total.detach())

    return step


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
