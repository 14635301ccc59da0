"""Twenty updates of each preset on one made-up batch give the losses that they gave before: a change of numerics is seen.

Intended ones are written down anew: `python -m tests.training.test_golden_losses` prints the table.
"""

import sys

import pytest
import torch

from tts.config.presets import PRESETS
from tts.data.batch import Batch
from tts.training.precision import choose_precision
from tts.training.step import new_learner, train_step

SYMBOLS = 30
SHOWN = (1, 2, 5, 10, 20)
GOLDEN = {
    "tacotron2": {1: 61.1452, 2: 61.5061, 5: 61.2698, 10: 60.6373, 20: 58.5733},
    "full": {1: 94.0718, 2: 93.8824, 5: 93.4136, 10: 93.7227, 20: 91.1635},
    "small": {1: 60.9256, 2: 61.1284, 5: 61.1852, 10: 61.0451, 20: 61.0787},
    "demo": {1: 63.2014, 2: 62.9562, 5: 62.2737, 10: 59.5823, 20: 16.3921},
}


def made_up_batch(mels):
    generator = torch.Generator().manual_seed(0)
    return Batch(
        ids=("long", "short"),
        symbols_BN=torch.randint(1, SYMBOLS, (2, 12), generator=generator),
        symbol_lengths_B=torch.tensor([12, 7]),
        mel_BTM=torch.randn(2, 31, mels, generator=generator) * 2 - 5,
        mel_lengths_B=torch.tensor([31, 18]),
    )


def losses(preset):
    """Of the updates in SHOWN, on two threads."""
    config = PRESETS[preset]()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        learner = new_learner(config, symbols=SYMBOLS, mels=config.audio.mels, precision=choose_precision("fp32", torch.device("cpu")))
        batch = made_up_batch(config.audio.mels)
        results = [train_step(learner, batch, config, step) for step in range(1, max(SHOWN) + 1)]
    finally:
        torch.set_num_threads(threads)
    assert all(result.anomaly is None for result in results)
    return {step: float(results[step - 1].loss) for step in SHOWN}


@pytest.mark.parametrize("preset", PRESETS)
def test_losses_are_those_of_before(preset):
    assert losses(preset) == pytest.approx(GOLDEN[preset], rel=2e-3)


if __name__ == "__main__":
    for name in PRESETS:
        values = ", ".join(f"{step}: {value:.4f}" for step, value in losses(name).items())
        sys.stdout.write(f'    "{name}": {{{values}}},\n')
