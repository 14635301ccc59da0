"""Stepwise monotonic attention in synthesis (after He, Deng & He 2019, arXiv:1906.00672), for any mechanism.

At each step an utterance either stays at its symbol or moves on to the next one. It begins with its first symbol and never leaves its last
one: none is left out, read twice or come back to, whatever the network would like.

The paper's network is trained to give a probability of staying; hard, it stays where that is at least a half. Ours are trained with a
softmax: the mechanism answers as if there were only the symbol and the next one, and the utterance moves on where the next one has the
greater weight. That is the paper's rule with the sigmoid of the difference of their energies as the probability.

Which symbol is read is a hard choice, but the two keep their weights, where the paper's hard form has all weight on the one. A mechanism that
was trained with soft weights moves by shifting weight step by step: from one-hot weights dynamic convolution hardly moved (demo preset, 400
steps: it read a quarter of the symbols).

A step moves by one symbol at most, so a text needs as many steps as it has symbols: large reduction factors are too coarse for it.

Shape letters as in mechanism.py.
"""

import torch
from torch import Tensor
from torch.nn import functional


class Reading:
    """Which symbols each utterance may be read at in the next step."""

    def __init__(self, valid_BN: Tensor) -> None:
        self.valid_BN = valid_BN
        self.open_BN = functional.one_hot(torch.zeros_like(valid_BN[:, 0], dtype=torch.int64), valid_BN.shape[1]).bool()

    def keep(self, rows: Tensor) -> None:
        """From now on these utterances only."""
        self.valid_BN, self.open_BN = self.valid_BN[rows], self.open_BN[rows]

    def read(self, weights_BN: Tensor) -> None:
        """Takes the weights of a step, which are zero outside `open_BN`, and opens the symbol that has most and the next one."""
        here_BN = functional.one_hot(weights_BN.argmax(1), weights_BN.shape[1]).bool()  # argmax: of equals the first, so it stays
        self.open_BN = (here_BN | functional.pad(here_BN, (1, -1))) & self.valid_BN
