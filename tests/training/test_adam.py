import subprocess
import sys

import torch

from tts.training.adam import Adam

TRAINS = """
import sys
import torch
from tests.training.test_golden_losses import SYMBOLS, made_up_batch
from tts.config.presets import demo
from tts.training.precision import choose_precision
from tts.training.step import new_learner, train_step

config = demo()
learner = new_learner(config, symbols=SYMBOLS, mels=config.audio.mels, precision=choose_precision("fp32", torch.device("cpu")))
assert train_step(learner, made_up_batch(config.audio.mels), config, 1).anomaly is None
learner.optimiser.load_state_dict(learner.optimiser.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""


def test_updates_are_those_of_torchs_own_and_so_is_the_state():
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    knobs = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.1, "fused": True}
    pairs = [(layer, kind(layer.parameters(), **knobs)) for layer, kind in ((ours, Adam), (theirs, torch.optim.Adam))]
    for _ in range(3):
        for layer, optimiser in pairs:
            optimiser.zero_grad()
            layer(torch.ones(1, 3)).square().sum().backward()
            optimiser.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)
    torch.testing.assert_close(pairs[0][1].state_dict(), pairs[1][1].state_dict(), rtol=0, atol=0)


def test_a_process_that_trains_does_not_load_torchs_compiler():
    assert subprocess.run([sys.executable, "-c", TRAINS], check=False).returncode == 0
