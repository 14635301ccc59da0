"""Random numbers that a resumed run draws as the uninterrupted one did.

Every step seeds torch anew from (seed, step), so there is no random state to save, and none to lose: a step's dropout depends on
nothing but its number. Step 0 draws the weights.
"""

import numpy as np
import torch


def reseed(seed: int, step: int) -> None:
    """Seeds torch on every device for one step. Neighbouring seeds and steps give unrelated streams (NumPy's SeedSequence)."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0]))
