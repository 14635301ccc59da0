"""What each module of the network returned in a step, in figures: where large numbers began."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tts.training.blame import tensors_in


@dataclasses.dataclass(frozen=True)
class Measured:
    """One tensor."""

    name: str
    shape: tuple[int, ...]
    minimum: float
    """Of the finite values; NaN where there is none. So are the maximum and the largest magnitude."""
    maximum: float
    nan: int
    """How many values are NaN."""
    inf: int

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(abs(self.minimum), abs(self.maximum))

    @property
    def finite(self) -> bool:
        """Whether all values are."""
        return self.nan == self.inf == 0


def measure(name: str, tensor: Tensor) -> Measured:
    """The figures of a tensor."""
    tensor = tensor.detach()
    finite = tensor[tensor.isfinite()].double()
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (float("nan"), float("nan"))
    return Measured(name, tuple(tensor.shape), low, high, int(tensor.isnan().sum()), int(tensor.isinf().sum()))


@contextmanager
def measuring(model: nn.Module) -> Iterator[list[Measured]]:
    """Fills the list with what modules return in the first forward pass inside the block, in the order in which they return."""
    measured: list[Measured] = []
    done = False

    def watch(name: str) -> Any:
        def on_forward(module: nn.Module, _inputs: Any, output: Any) -> None:
            nonlocal done
            if not done:
                measured.extend(measure(name, tensor) for tensor in tensors_in(output) if tensor.numel())
                done = module is model

        return on_forward

    hooks = [module.register_forward_hook(watch(name or type(model).__name__)) for name, module in model.named_modules()]
    try:
        yield measured
    finally:
        for hook in hooks:
            hook.remove()


def gradients(model: nn.Module) -> list[Measured]:
    """Of the parameters, in the order of the backward pass: from the last to the first."""
    named = reversed(list(model.named_parameters()))
    return [measure(name, parameter.grad) for name, parameter in named if parameter.grad is not None]


def together(parts: Sequence[Sequence[Measured]]) -> list[Measured]:
    """What several ranks measured of their parts, as of one tensor each; in the order of the first, shapes are its own."""
    if len({tuple(one.name for one in part) for part in parts}) > 1:  # a rank without utterances calls few modules
        parts = [max(parts, key=len)]
    return [_joined(same) for same in zip(*parts, strict=True)]


def telling(measured: Sequence[Measured], count: int) -> list[Measured]:
    """In their order: the first `count` that are not finite, and before them (or of all, if all are finite) the `count` of the largest values."""
    bad = [place for place, one in enumerate(measured) if not one.finite]
    before = range(bad[0] if bad else len(measured))
    large = sorted(before, key=lambda place: -measured[place].largest)[:count]
    return [measured[place] for place in sorted([*large, *bad[:count]])]


def _joined(same: Sequence[Measured]) -> Measured:
    finite = torch.tensor([(one.minimum, one.maximum) for one in same], dtype=torch.float64)
    finite = finite[~finite.isnan().any(1)]
    low, high = (float(finite[:, 0].min()), float(finite[:, 1].max())) if len(finite) else (float("nan"), float("nan"))
    return dataclasses.replace(same[0], minimum=low, maximum=high, nan=sum(one.nan for one in same), inf=sum(one.inf for one in same))
