"""Random numbers that a resumed run draws as the uninterrupted one did.

Every step seeds torch anew from (seed, step), so there is no random state to save, and none to lose: a step's dropout depends on
nothing but its number. Step 0 draws the weights. Where several processes share a step, each has its own stream: dropout depends on the
number of the rank as well, and rank 0 draws what a process alone would draw.
"""

import numpy as np
import torch


def reseed(seed: int, step: int, rank: int = 0) -> None:
    """Seeds torch on every device for one step. Neighbouring seeds, steps and ranks give unrelated streams (NumPy's SeedSequence)."""
    entropy = (seed, step, rank) if rank else (seed, step)
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
