"""Whether two run folders tell of the same training, bit for bit, but for what the clock says."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tts.training.metrics_log import WALL_CLOCK_FIELDS

OWN = ("checkpoints", ".lock")
"""Not compared file by file: which checkpoints are there besides the newest and the best depends on where the run was stopped."""


def differences(run: Path, reference: Path) -> list[str]:
    """What is not in `run` as it is in `reference`, in words; none where they are the same."""
    return [*_files(run, reference), *_checkpoints(run, reference)]


def _files(run: Path, reference: Path) -> Iterator[str]:
    names, wanted = _names(run), _names(reference)
    for name in sorted(names ^ wanted):
        yield f"{name} is {'not there' if name in wanted else 'there and should not be'}"
    for name in sorted(names & wanted):
        if (where := _different(_content(run / name), _content(reference / name))) is not None:
            yield f"{name} differs{where}"


def _names(run: Path) -> set[str]:
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file() and path.relative_to(run).parts[0] not in OWN}


def _content(path: Path) -> Any:
    """What a file says, without the clock."""
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    if path.suffix == ".pt":
        return _timeless(torch.load(path, weights_only=True))
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(part) for name, part in value.items() if name not in WALL_CLOCK_FIELDS}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def _checkpoints(run: Path, reference: Path) -> Iterator[str]:
    """The newest, which is the training's end, and the best."""
    ours, theirs = _index(run), _index(reference)
    for what in ("newest", "best"):
        entry, wanted = ours.get(what, {}), theirs.get(what, {})
        where = _different(_known(entry), _known(wanted))
        if where is None and wanted:
            where = _different(_content(run / "checkpoints" / entry["file"]), _content(reference / "checkpoints" / wanted["file"]))
        if where is not None:
            yield f"the {what} checkpoint differs{where}"


def _index(run: Path) -> dict[str, dict[str, Any]]:
    """The newest checkpoint's entry, and the best's where one was validated; empty where there is none."""
    path = run / "checkpoints" / "index.json"
    index = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"checkpoints": [], "best": None}
    found = {"newest": index["checkpoints"][-1:], "best": [entry for entry in index["checkpoints"] if entry["step"] == index["best"]]}
    return {what: entries[0] for what, entries in found.items() if entries}


def _known(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: entry.get(name) for name in ("step", "mel_loss")}


def _different(value: Any, wanted: Any) -> str | None:
    """Where the first difference is; None where there is none."""
    ours, theirs = dict(_leaves(value, "")), dict(_leaves(wanted, ""))
    for where in [*theirs, *ours]:
        if ours.get(where) != theirs.get(where):
            return f" at {where or 'its whole'}: {_shown(ours.get(where))}, not {_shown(theirs.get(where))}"
    return None


def _leaves(value: Any, where: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each number, text and array by its place; numbers to the bit, so that NaN is NaN."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous().numpy()
    if isinstance(value, dict | list | tuple):
        yield where, (type(value).__name__, len(value))
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(part, f"{where}/{name}")
    elif isinstance(value, np.ndarray):
        yield where, (str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest())
    else:
        yield where, (type(value).__name__, repr(value))


def _shown(leaf: tuple[Any, ...] | None) -> str:
    return " ".join(map(str, leaf)) if leaf else "nothing"
