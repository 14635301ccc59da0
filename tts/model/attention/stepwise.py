"""Stepwise monotonic attention in synthesis (He, Deng & He 2019, arXiv:1906.00672, section 3.2), its hard form, for any mechanism.

At each step an utterance either stays at its symbol or moves on to the next one, and all weight is on that symbol. It begins with its first
symbol and never leaves its last one: no symbol is left out, read twice or come back to, whatever the network would like.

The paper's network is trained to give a probability of staying; hard, it stays where that is at least a half. Ours is trained with a softmax:
the mechanism answers as if there were the two symbols only, and the utterance stays unless the next one gets the greater weight. That is the
paper's rule with the sigmoid of the difference of their energies as the probability. The mechanism is asked once more with the symbol
decided on as the only one, so that what it carries to the next step (location, paths) is what was read.

Shape letters as in mechanism.py.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from tts.model.attention.mechanism import Operands

Step = Callable[[Operands], tuple[Tensor, tuple[Tensor, ...]]]
"""A mechanism's step on these operands: weights (B, N) and the state after it."""


class Reading:
    """Which symbol each utterance is read at."""

    def __init__(self, valid_BN: Tensor) -> None:
        self.valid_BN = valid_BN
        self.open_BN = functional.one_hot(torch.zeros_like(valid_BN[:, 0], dtype=torch.int64), valid_BN.shape[1]).bool()

    def step(self, at: Operands, step: Step) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One-hot weights (B, N), and the mechanism's state after it read them."""
        weights_BN, _ = step(at._replace(valid_BN=self.open_BN))
        here_BN = functional.one_hot(weights_BN.argmax(1), weights_BN.shape[1]).bool()  # argmax: of equals the first, so it stays
        self.open_BN = (here_BN | functional.pad(here_BN, (1, -1))) & self.valid_BN
        return step(at._replace(valid_BN=here_BN))
