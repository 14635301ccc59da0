"""What each mechanism of attention costs in training: the decoder's forward and backward pass, as a ratio to location-sensitive attention.

CPU seconds of one thread, so that other work on the machine matters little; fp32, tacotron2 preset, 16 utterances of 40 to 80 symbols and
100 frames. They are timed in turn in one process.

    python -m tests.benchmarks.mechanisms
"""

import json
import sys
import time
from collections.abc import Callable
from statistics import median

import torch

from tts.config.load import override
from tts.config.presets import tacotron2
from tts.model.decoder import Decoder

MECHANISMS = ("location", "dynamic_convolution", "forward")
BATCH, SYMBOLS, FRAMES, MELS = 16, 80, 100, 80
REPEATS = 3


def measure() -> dict[str, float]:
    """Ratios of median seconds: below 1 is cheaper."""
    steps = {name: training_pass(name) for name in MECHANISMS}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for run in steps.values():
        run()
    for _ in range(REPEATS):
        for name, run in steps.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    typical = {name: median(values) for name, values in seconds.items()}
    return {f"{name}_attention_cost": typical[name] / typical["location"] for name in MECHANISMS[1:]}


def training_pass(mechanism: str) -> Callable[[], None]:
    """A function that makes the decoder's gradients for one batch."""
    config = override(tacotron2(), {"model.attention_mechanism": mechanism}).model
    torch.manual_seed(0)
    decoder = Decoder(config, mels=MELS)
    memory_BNE, mel_BTM = torch.randn(BATCH, SYMBOLS, config.encoder_lstm), torch.randn(BATCH, FRAMES, MELS)
    symbol_lengths_B = (torch.linspace(1, 0.5, BATCH) * SYMBOLS).long()

    def run() -> None:
        decoder.zero_grad()
        output = decoder(memory_BNE, symbol_lengths_B, mel_BTM)
        torch.stack([output.mel_BTM.square().mean(), output.gate_logits_BT.square().mean(), output.alignment_BSN.square().mean()]).sum().backward()

    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
