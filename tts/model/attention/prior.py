"""A prior over symbols under the energies: weights = softmax(e + log(max(prior, floor))), that is softmax(e) * prior, normalised.

In this form nothing underflows: the sum that weights are divided by is taken by the softmax relative to its greatest summand. Written as a
product it is 0 / 0 in float32 as soon as energies and prior disagree by a hundred or so, which one bad step in 2,000 is enough for. The floor
leaves a way back from a place that attention reached by mistake.

Shape letters: B batch, N symbols.
"""

import torch
from torch import Tensor

FLOOR = 1e-6


def start_at_first_symbol(weights_BN: Tensor) -> None:
    """All weight on the first symbol: where a text begins to be read."""
    weights_BN.zero_()
    weights_BN[:, 0] = 1


def under_prior(energies_BN: Tensor, prior_BN: Tensor) -> Tensor:
    """Energies (B, N) of a softmax, in the prior's type."""
    return prior_BN.clamp(min=FLOOR).log_().add_(energies_BN)


def prior_backward(prior_BN: Tensor, d_energies_BN: Tensor) -> Tensor:
    """Gradient (B, N) at the prior, from that at the energies; zero below the floor."""
    return torch.where(prior_BN >= FLOOR, d_energies_BN / prior_BN, 0)
