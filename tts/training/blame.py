"""Whose a value is that is not finite: which utterances of a batch.

A tensor with a row for each utterance, for each of their steps or, within convolutions, for each of their positions tells it by itself: what a
module returns, or its gradient. A loss is the sum of its utterances' shares, and so is a parameter's gradient: each share is worked out alone,
within the forward pass of the whole batch, with its dropout and batch statistics. That costs a backward pass for each utterance, and comes only
after an update was skipped.

Shape letters: B batch, S decoder steps, Z rows of all utterances' steps (tts/model/packing.py).
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from tts.data.batch import Batch, Whole
from tts.losses.total import Losses
from tts.model.frames import step_lengths
from tts.model.output import Tacotron2Output
from tts.model.packing import packing
from tts.model.row import row
from tts.training.ranks import Ranks

Forward = Callable[[], Tacotron2Output]
LossesOf = Callable[[Tacotron2Output, Batch], Losses]
"""The losses of an output, or of a part of it and of its batch."""

TOLD_APART = 64
"""Utterances in a batch up to which each one's gradient is worked out; a larger batch is named as a whole."""


def owners(rows: int, batch: Batch, model: nn.Module) -> list[int] | None:
    """For each row of a tensor the place of its utterance in the batch; None where its size does not tell.

    Tensors within the decoders have a row for each true step.
    """
    if rows == len(batch.ids):
        return list(range(rows))
    for module in model.children():
        factor = getattr(module, "reduction_factor", None)
        steps_B = step_lengths(batch.mel_lengths_B, factor) if isinstance(factor, int) else None
        if steps_B is not None and rows and rows == int(steps_B.sum()):
            steps = int(steps_B.max())
            return (packing(steps_B, steps).index_Z // steps).tolist()
    return None


def owners_in_row(positions: int, batch: Batch, model: nn.Module) -> list[int] | None:
    """The same of the positions of a row (tts/model/row.py), over which convolutions run; -1 between two utterances."""
    for module in model.children():
        reach = getattr(module, "reach", None)
        if not isinstance(reach, int):
            continue
        for lengths_B in (batch.mel_lengths_B, batch.symbol_lengths_B):
            laid = row(lengths_B, reach)
            if positions == laid.valid_11L.shape[2]:
                owners_L = torch.full((positions,), -1, device=lengths_B.device)
                return owners_L.index_copy(0, laid.place_Z, laid.utterance_Z).tolist()
    return None


def rows_not_finite(tensor: Tensor, batch: Batch, model: nn.Module) -> list[str] | None:
    """Utterances in whose rows of a tensor something is not finite; None where rows cannot be told apart."""
    if tensor.dim() == 3 and len(tensor) == 1 < len(batch.ids):  # (1, C, L)
        tensor = tensor[0].t()
        places = owners_in_row(len(tensor), batch, model)
    else:
        places = owners(len(tensor), batch, model) if tensor.dim() else None
    if places is None:
        return None
    fine_rows = tensor.isfinite().reshape(len(tensor), -1).all(1).tolist()
    bad = {place for place, fine in zip(places, fine_rows, strict=True) if not fine}
    return [identity for place, identity in enumerate(batch.ids) if place in bad]


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors that a module returns; packed sequences with a row for each utterance."""
    if isinstance(value, Tensor) and value.is_floating_point():
        yield value
    elif isinstance(value, PackedSequence):
        yield pad_packed_sequence(value, batch_first=True)[0]
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


def blamed_for_loss(name: str, output: Tacotron2Output, batch: Batch, losses: LossesOf) -> tuple[str, ...]:
    """Utterances of this rank whose own share of a loss term, or of the total, is not finite."""
    with torch.no_grad():
        shares = [_share(output, batch, place, losses) for place in range(len(batch.ids))]
    found = [share.total if name == "total" else share.terms[name] for share in shares]
    return tuple(identity for identity, share in zip(batch.ids, found, strict=True) if not share.isfinite())


def blamed_for_gradient(model: nn.Module, parameters: Sequence[Tensor], forward: Forward, batch: Batch, losses: LossesOf, ranks: Ranks) -> set[str]:
    """Utterances of the whole batch at which the gradient of a parameter, or the norm of several, stops being finite; empty if no single one's.

    By the first gradient of what a module returned that is not finite in their rows; where there is none, by their own shares of the parameters'.
    Batch norm adds up over ranks in the backward pass, so that all make each of them.
    """
    first: list[tuple[int, list[str]]] = []
    with _watching_gradients(model, batch, first):
        output = forward()
    whole = losses(output, batch).total
    torch.autograd.grad(whole, parameters, retain_graph=True, allow_unused=True)
    finds = [find for some in ranks.gather(first[:1]) for find in some]
    if finds:
        earliest = min(place for place, _ in finds)
        blamed = {identity for place, ids in finds if place == earliest for identity in ids}
        if blamed:
            return blamed
    flags = []
    for identity in batch.all_ids:
        loss = _share(output, batch, batch.ids.index(identity), losses).total if identity in batch.ids else whole * 0
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        flags.append(not _finite([gradient for gradient in gradients if gradient is not None]))
    if ranks.together:
        flags = ranks.any(flags)
    return {identity for identity, flag in zip(batch.all_ids, flags, strict=True) if flag}


@contextmanager
def _watching_gradients(model: nn.Module, batch: Batch, first: list[tuple[int, list[str]]]) -> Iterator[None]:
    """Gradients of what modules return inside the block: notes the first that is not finite, its place among all, and whose rows these are."""
    gone_by = itertools.count()

    def on_gradient(gradient: Tensor) -> None:
        place = next(gone_by)
        if not first and not gradient.isfinite().all():
            first.append((place, rows_not_finite(gradient, batch, model) or []))

    def on_forward(_module: nn.Module, _inputs: Any, output: Any) -> None:
        for tensor in tensors_in(output):
            if tensor.requires_grad:
                tensor.register_hook(on_gradient)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    hooks = [module.register_forward_hook(on_forward) for module in model.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def can_tell_apart(batch: Batch, ranks: Ranks) -> bool:
    """Whether `blamed_for_gradient` can be asked, the same on all ranks: each of them needs an utterance."""
    return ranks.count <= len(batch.all_ids) <= TOLD_APART


def _finite(gradients: Sequence[Tensor]) -> bool:
    return bool(gradients[0].isfinite().all() if len(gradients) == 1 else get_total_norm(gradients).isfinite())


def _share(output: Tacotron2Output, batch: Batch, place: int, losses: LossesOf) -> Losses:
    """Losses of one utterance as its part of the whole batch's."""
    return losses(_row(output, place, len(batch.ids)), _only(batch, place))


def _only(batch: Batch, place: int) -> Batch:
    whole = batch.part_of or Whole(batch.ids, batch.mel_lengths_B)
    tensors: Batch = _row(batch, place, len(batch.ids))
    return dataclasses.replace(tensors, ids=batch.ids[place : place + 1], part_of=whole)


def _row(value: Any, place: int, rows: int) -> Any:
    """One row of every tensor in a dataclass that has `rows` of them."""
    if isinstance(value, Tensor):
        return value[place : place + 1] if value.shape[:1] == (rows,) else value
    if dataclasses.is_dataclass(value) and not isinstance(value, Whole | type):
        return dataclasses.replace(value, **{field.name: _row(getattr(value, field.name), place, rows) for field in dataclasses.fields(value)})
    return value
