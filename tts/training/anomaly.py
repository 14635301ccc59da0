"""What was not finite first, when an update had to be skipped.

Looked for in the order in which a step computes: the batch, the modules' outputs, the loss terms, the gradients (backwards, so from the
last parameter to the first), the BatchNorm statistics. Ranks that train together each look at what they have; the earliest find counts.
Nothing of this is done in a step that went well: train_step looks at one sum, once.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tts.data.batch import Batch, length_mask
from tts.losses.total import Losses
from tts.model.output import Tacotron2Output
from tts.storage import write_text
from tts.training.blame import Forward, LossesOf, blamed_for_gradient, blamed_for_loss, can_tell_apart, rows_not_finite, tensors_in
from tts.training.ranks import ALONE, Ranks


@dataclasses.dataclass(frozen=True)
class Anomaly:
    """The first tensor that was not finite."""

    kind: Literal["input", "module", "loss", "gradient", "statistics"]
    name: str
    """Of the batch's field, the module, the loss term, the parameter or the buffer."""
    value: Literal["nan", "inf"]
    utterances: tuple[str, ...]
    """Those whose row or share is not finite; the whole batch where it is no single one's doing, or they cannot be told apart."""

    def __str__(self) -> str:
        shown = ", ".join(self.utterances[:3]) + (f" and {len(self.utterances) - 3} more" if len(self.utterances) > 3 else "")
        return f"{self.kind} {self.name} is {self.value} ({shown})"


NORM = "norm over all parameters"
"""Name of the gradient where each parameter's is finite, but not their norm."""


class Find(NamedTuple):
    """An offender, and its place in the order in which a step computes."""

    place: tuple[int, int]
    anomaly: Anomaly


def find_offender(
    model: nn.Module,
    batch: Batch,
    own: Losses,
    *,
    total: Tensor,
    forward: Forward,
    losses: LossesOf,
    ranks: Ranks = ALONE,
) -> Anomaly:
    """The first offender. Where every tensor is finite it was a sum over them that overflowed.

    `own` are the losses of this rank's part, `total` is the sum over all ranks, `losses` works them out from an output. Gradients are read from
    the parameters, so they must not have been clipped. Runs the forward pass once more, which moves the statistics and draws from the random
    generator: the caller restores and seeds.
    """
    # Not only where the batch is finite: batch norm needs every rank's forward pass or none.
    in_modules, output = (None, None) if total.isfinite() else _in_modules(model, batch, forward)
    find = (
        _in_batch(batch, model)
        or in_modules
        or _in_named(2, "loss", {**own.terms, "total": own.total}.items(), batch)
        or _in_named(3, "loss", [("total", total)], batch)
        or _in_named(4, "gradient", ((n, p.grad) for n, p in reversed(list(model.named_parameters())) if p.grad is not None), batch)
        or _in_named(5, "statistics", model.named_buffers(), batch)
        or Find((6, 0), Anomaly("gradient", NORM, "inf", batch.ids))
    )
    anomaly = _earliest(ranks.gather(find), batch.all_ids)
    blamed: set[str] = set()
    if anomaly.kind == "loss" and output is not None:
        own_blamed = blamed_for_loss(anomaly.name, output, batch, losses)
        blamed = {identity for some in ranks.gather(own_blamed) for identity in some}
    elif anomaly.kind == "gradient" and can_tell_apart(batch, ranks):
        parameters = [p for n, p in model.named_parameters() if p.grad is not None and anomaly.name in (n, NORM)]
        blamed = blamed_for_gradient(model, parameters, forward, batch, losses, ranks)
    return dataclasses.replace(anomaly, utterances=tuple(i for i in anomaly.utterances if i in blamed) or anomaly.utterances)


def _earliest(finds: list[Find], ids: tuple[str, ...]) -> Anomaly:
    """What was found first, by whomever; the utterances are those of all who found the same."""
    first = min(find.place for find in finds)
    same = [find.anomaly for find in finds if find.place == first]
    offenders = {identity for anomaly in same for identity in anomaly.utterances}
    value: Literal["nan", "inf"] = "nan" if any(anomaly.value == "nan" for anomaly in same) else "inf"
    return dataclasses.replace(same[0], value=value, utterances=tuple(identity for identity in ids if identity in offenders))


def write_anomaly(folder: Path, step: int, anomaly: Anomaly, batch: Batch, figures: Mapping[str, float], evidence: Path | None = None) -> Path:
    """Leaves anomalies/step-XXXXXXXX.json. Figures that are not finite are written as text. Raises CannotWriteError.

    `evidence` is the file beside it, if one was kept (evidence.py).
    """
    path = folder / f"step-{step:08d}.json"
    readable = {name: value if math.isfinite(value) else str(value) for name, value in figures.items()}
    record = {"step": step, **dataclasses.asdict(anomaly), "batch": batch.all_ids, "figures": readable, "action": "update skipped"}
    if evidence:
        record["evidence"] = evidence.name
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def _in_batch(batch: Batch, model: nn.Module) -> Find | None:
    valid_BT = length_mask(batch.mel_lengths_B, batch.mel_BTM.shape[1])
    offence = _offence("input", "mel", batch.mel_BTM.masked_fill(~valid_BT[:, :, None], 0), batch, model=model)
    return Find((0, 0), offence) if offence else None


def _in_named(place: int, kind: Literal["loss", "gradient", "statistics"], tensors: Any, batch: Batch) -> Find | None:
    found = ((number, _offence(kind, name, tensor, batch)) for number, (name, tensor) in enumerate(tensors))
    return next((Find((place, number), offence) for number, offence in found if offence), None)


def _in_modules(model: nn.Module, batch: Batch, forward: Forward) -> tuple[Find | None, Tacotron2Output]:
    """The first module to return something that is not finite, and the output; a module returns after those inside it."""
    found: list[Find] = []
    returned = itertools.count()

    def watch(name: str) -> Any:
        def on_forward(_module: nn.Module, _inputs: Any, output: Any) -> None:
            place = (1, next(returned))
            if not found:
                offences = (_offence("module", name, tensor, batch, model=model) for tensor in tensors_in(output))
                found.extend(Find(place, offence) for offence in offences if offence)

        return on_forward

    hooks = [module.register_forward_hook(watch(name or type(model).__name__)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            output = forward()
    finally:
        for hook in hooks:
            hook.remove()
    return (found[0] if found else None), output


def _offence(kind: Any, name: str, tensor: Tensor, batch: Batch, *, model: nn.Module | None = None) -> Anomaly | None:
    """With a model, the tensor is one of its forward pass, whose rows are utterances."""
    tensor = tensor.detach()
    if bool(tensor.isfinite().all()):
        return None
    utterances = rows_not_finite(tensor, batch, model) if model else None
    return Anomaly(kind, name, "nan" if bool(tensor.isnan().any()) else "inf", batch.ids if utterances is None else tuple(utterances))
