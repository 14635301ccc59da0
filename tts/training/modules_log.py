"""modules.jsonl: what gradients and updates are like in each part of the network, at each log line of a training.

| field | holds, by part |
|---|---|
| `step` | |
| `gradient_norm` | before clipping, unscaled; null where there is no gradient or it is not finite |
| `update_ratio` | norm of what the step added to the weights, over their norm; null where the update was skipped or no weight was updated |
| `non_finite` | gradients that are NaN or infinite |

Nothing is copied but for one parameter at a time. Gradient norms are those that the step's check needs anyway; what Adam added follows from its
moments: of a line with finite gradients, all figures come from the device in one transfer.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from tts.training.step_log import StepLog

FIELDS = ("gradient_norm", "update_ratio", "non_finite")
DIVIDED = ("encoder", "decoder")
"""Of these each layer is a part; of the others, the whole is."""


class ModulesLog(StepLog):
    """Appends lines to a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, lambda values: all(isinstance(values[field], dict) for field in FIELDS))

    def append(self, step: int, figures: dict[str, dict[str, float]]) -> None:
        """Raises CannotWriteError."""
        finite = {field: {part: value if math.isfinite(value) else None for part, value in values.items()} for field, values in figures.items()}
        self.write({"step": step, **finite})


def read_modules(path: Path) -> list[dict[str, Any]]:
    """The lines of a modules.jsonl. Raises DataError."""
    return ModulesLog(path).read()


def part_of(parameter: str) -> str:
    """The part that a parameter belongs to, such as `encoder.convolutions`. Projections of early frames (decoder.py) belong to the others."""
    first, second, *_ = parameter.split(".")
    return f"{first}.{second.removeprefix('early_')}" if first in DIVIDED else first


def norm_of_each(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Euclidean norms, on the device. On CUDA a few launches for all of them."""
    return torch._foreach_norm(tuple(tensors))  # noqa: SLF001  # torch.nn.utils.get_total_norm does the same, and keeps only the sum


@torch.no_grad()
def by_part(model: nn.Module, optimiser: Adam, gradient_norms_P: Sequence[Tensor], *, updated: bool) -> dict[str, dict[str, float]]:
    """FIELDS by part, after a step; NaN for null. P: parameters that have a gradient, in the model's order, and the norms of these gradients."""
    given = [(name, parameter) for name, parameter in model.named_parameters() if parameter.grad is not None]
    gradients = [parameter.grad for _, parameter in given if parameter.grad is not None]
    columns = [torch.stack(list(gradient_norms_P))]
    if updated:
        weights = [parameter for _, parameter in given]
        columns += [torch.stack(_update_norms(optimiser, weights)), torch.stack(norm_of_each(weights))]
    norms_P, *update = torch.stack(columns).tolist()
    counts_P = [0] * len(given)
    if not all(map(math.isfinite, norms_P)):
        counts_P = torch.stack([(~gradient.isfinite()).sum() for gradient in gradients]).tolist()
    parts = dict.fromkeys(part_of(name) for name, _ in model.named_parameters())
    places = {part: [place for place, (name, _) in enumerate(given) if part_of(name) == part] for part in parts}

    def norm(column: Sequence[float], part: str) -> float:
        return _norm(column[place] for place in places[part]) if places[part] else math.nan

    return {
        "gradient_norm": {part: norm(norms_P, part) for part in parts},
        "update_ratio": {part: _ratio(norm(update[0], part), norm(update[1], part)) if updated else math.nan for part in parts},
        "non_finite": {part: sum(counts_P[place] for place in places[part]) for part in parts},
    }


def _update_norms(optimiser: Adam, weights: Sequence[Tensor]) -> list[Tensor]:
    """Of what Adam's last step added to each: its learning rate times the mean, over the root of the mean square, both corrected for their start."""
    group_of = {parameter: group for group in optimiser.param_groups for parameter in group["params"]}
    groups, states = [group_of[weight] for weight in weights], [optimiser.state[weight] for weight in weights]
    steps_P = torch.stack([state["step"] for state in states]).to(device=weights[0].device, dtype=torch.float64)
    beta1_P, beta2_P, epsilon_P, rate_P = (
        torch.tensor(column, dtype=torch.float64).to(steps_P.device, non_blocking=True)
        for column in zip(*((*group["betas"], group["eps"], float(group["lr"])) for group in groups), strict=True)
    )
    root_P = (1 - beta2_P**steps_P).sqrt()
    scales, epsilons = ((values_P.float()).unbind() for values_P in (rate_P * root_P / (1 - beta1_P**steps_P), epsilon_P * root_P))
    norms = []
    for state, scale, epsilon in zip(states, scales, epsilons, strict=True):
        step = state["exp_avg_sq"].sqrt().add_(epsilon)
        torch.div(state["exp_avg"], step, out=step)
        norms.append(torch.linalg.vector_norm(step) * scale)
    return norms


def _norm(values: Iterable[float]) -> float:
    return math.sqrt(sum(value * value for value in values))


def _ratio(update: float, weights: float) -> float:
    return update / weights if weights > 0 else math.nan
