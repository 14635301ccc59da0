"""What was not finite first, when an update had to be skipped.

Looked for in the order in which a step computes: the batch, the modules' outputs, the loss terms, the gradients (backwards, so from the
last parameter to the first), the BatchNorm statistics.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tts.data.batch import Batch, length_mask
from tts.losses.total import Losses
from tts.storage import write_text


@dataclasses.dataclass(frozen=True)
class Anomaly:
    """The first tensor that was not finite."""

    kind: Literal["input", "module", "loss", "gradient", "statistics"]
    name: str
    """Of the batch's field, the module, the loss term, the parameter or the buffer."""
    value: Literal["nan", "inf"]
    utterances: tuple[str, ...]
    """Those whose row is not finite; the whole batch where rows cannot be told apart."""

    def __str__(self) -> str:
        shown = ", ".join(self.utterances[:3]) + (f" and {len(self.utterances) - 3} more" if len(self.utterances) > 3 else "")
        return f"{self.kind} {self.name} is {self.value} ({shown})"


def find_offender(model: nn.Module, batch: Batch, losses: Losses) -> Anomaly:
    """The first offender. Where every tensor is finite it was a sum over them that overflowed.

    Gradients are read from the parameters, so they must not have been clipped. Runs the forward pass once more, which moves the statistics and
    draws from the random generator: the caller restores and seeds.
    """
    return (
        _in_batch(batch)
        or (None if losses.total.isfinite() else _in_modules(model, batch))
        or _in_named("loss", {**losses.terms, "total": losses.total}.items(), batch)
        or _in_named("gradient", ((n, p.grad) for n, p in reversed(list(model.named_parameters())) if p.grad is not None), batch)
        or _in_named("statistics", model.named_buffers(), batch)
        or Anomaly("gradient", "norm over all parameters", "inf", batch.ids)
    )


def write_anomaly(folder: Path, step: int, anomaly: Anomaly, batch: Batch, figures: Mapping[str, float]) -> Path:
    """Leaves anomalies/step-XXXXXXXX.json. Figures that are not finite are written as text. Raises CannotWriteError."""
    path = folder / f"step-{step:08d}.json"
    readable = {name: value if math.isfinite(value) else str(value) for name, value in figures.items()}
    record = {"step": step, **dataclasses.asdict(anomaly), "batch": batch.ids, "figures": readable, "action": "update skipped"}
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def _in_batch(batch: Batch) -> Anomaly | None:
    valid_BT = length_mask(batch.mel_lengths_B, batch.mel_BTM.shape[1])
    return _offence("input", "mel", batch.mel_BTM.masked_fill(~valid_BT[:, :, None], 0), batch)


def _in_named(kind: Literal["loss", "gradient", "statistics"], tensors: Any, batch: Batch) -> Anomaly | None:
    found = (_offence(kind, name, tensor, batch, rows=False) for name, tensor in tensors)
    return next((offence for offence in found if offence), None)


def _in_modules(model: nn.Module, batch: Batch) -> Anomaly | None:
    """The first module to return something that is not finite; a module returns after those inside it."""
    found: list[Anomaly] = []

    def watch(name: str) -> Any:
        def on_forward(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not found:
                found.extend(offence for tensor in _tensors(output) if (offence := _offence("module", name, tensor, batch)))

        return on_forward

    hooks = [module.register_forward_hook(watch(name or type(model).__name__)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            model(batch.symbols_BN, batch.symbol_lengths_B, batch.mel_BTM, batch.mel_lengths_B)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _offence(kind: Any, name: str, tensor: Tensor, batch: Batch, *, rows: bool = True) -> Anomaly | None:
    finite = tensor.detach().isfinite()
    if bool(finite.all()):
        return None
    utterances = batch.ids
    if rows and tensor.shape[:1] == (len(batch.ids),):
        finite_B = finite.reshape(len(batch.ids), -1).all(1).tolist()
        utterances = tuple(identity for identity, fine in zip(batch.ids, finite_B, strict=True) if not fine)
    return Anomaly(kind, name, "nan" if bool(tensor.isnan().any()) else "inf", utterances)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor) and value.is_floating_point():
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))
