"""What a training run left behind, read for a report.

Reads files only, so that a report can be made of a run that is under way, was killed or came from another machine:
`config.json`, `run.json`, `metrics.jsonl`, `snapshots/step-*.npz`, `anomalies/step-*.json`.

Shape letters: B utterances, S decoder steps, N symbols, T frames, M mels.
"""

import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tts.config import Config
from tts.config.load import read_config
from tts.errors import DataError

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Snapshot:
    """Teacher-forced outputs for the first held-out utterances at one validation. Cells past the true lengths carry no meaning."""

    step: int
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    symbol_lengths_B: Integers
    mel_lengths_B: Integers
    step_lengths_B: Integers
    alignment_BSN: Floats
    gate_BT: Floats
    """Probabilities."""
    mel_target_BTM: Floats
    """Recorded."""
    mel_BTM: Floats
    """After the postnet."""

    @property
    def reduction_factor(self) -> int:
        """Frames of a decoder step, at this one of training."""
        return int(self.gate_BT.shape[1] // self.alignment_BSN.shape[1])


@dataclass(frozen=True)
class Series:
    """Lines of one kind in metrics.jsonl, as columns: a value that is not finite, or that a line lacks, is NaN."""

    steps: tuple[int, ...]
    columns: dict[str, tuple[float, ...]]

    def __bool__(self) -> bool:
        return bool(self.steps)

    def last(self, name: str) -> float:
        """The newest value, NaN where there is none."""
        return self.columns[name][-1] if self.columns.get(name) else math.nan

    def lowest(self, name: str) -> tuple[int, float] | None:
        """Step and value of the lowest finite value."""
        points = [(value, step) for step, value in zip(self.steps, self.columns.get(name, ()), strict=False) if math.isfinite(value)]
        return (min(points)[1], min(points)[0]) if points else None


@dataclass(frozen=True)
class RunRecord:
    """A run as its files tell it."""

    run: Path
    config: Config
    state: str
    """Such as running, finished, preempted, diverged."""
    step: int
    fingerprint: str
    """Of the features."""
    totals: dict[str, float]
    train: Series
    validation: Series
    snapshots: tuple[Path, ...]
    """By step; read one with `read_snapshot`."""
    anomalies: tuple[dict[str, Any], ...]
    """Skipped updates, by step."""


def read_run(run: Path) -> RunRecord:
    """Reads all but the snapshots. Raises DataError when the folder is not a run's or a file in it is damaged."""
    missing = [name for name in ("run.json", "config.json") if not (run / name).is_file()]
    if missing:
        raise DataError(f"{run} is not a run folder: it has no {' and no '.join(missing)}; expected a folder made by `tts train`")
    state = _object(run / "run.json")
    lines = _lines(run / "metrics.jsonl")
    try:
        return RunRecord(
            run=run,
            config=read_config(run / "config.json"),
            state=str(state["state"]),
            step=int(state["step"]),
            fingerprint=str(state["fingerprint"]),
            totals={name: float(value) for name, value in state["totals"].items()},
            train=_series(lines, "train"),
            validation=_series(lines, "validation"),
            snapshots=tuple(sorted((run / "snapshots").glob("step-*.npz"))),
            anomalies=tuple(_object(path) for path in sorted((run / "anomalies").glob("step-*.json"))),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{run / 'run.json'} does not hold the state of a run ({reason}); train into another folder") from error


def read_snapshot(path: Path) -> Snapshot:
    """Raises DataError naming a file that is cut short or lacks an array."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            lengths = {name: arrays[name].astype(np.int64) for name in ("symbol_lengths_B", "mel_lengths_B", "step_lengths_B")}
            values = {name: arrays[name].astype(np.float32) for name in ("alignment_BSN", "gate_BT", "mel_target_BTM", "mel_BTM")}
            ids, texts = (tuple(str(value) for value in arrays[name]) for name in ("ids_B", "texts_B"))
        return Snapshot(step=int(path.stem.removeprefix("step-")), ids=ids, texts=texts, **lengths, **values)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"snapshot {path} is damaged ({type(error).__name__}: {error}); remove it, the report goes by the others") from error


def thinned(series: Series, name: str, points: int) -> tuple[list[float], list[float]]:
    """Steps and values of a column, in at most `points` groups of neighbours, each shown by the mean of its finite values."""
    steps, values = np.array(series.steps, dtype=np.float64), np.array(series.columns[name], dtype=np.float64)
    groups = np.array_split(np.arange(len(steps)), min(points, len(steps))) if len(steps) else []
    return [float(steps[group].mean()) for group in groups], [_finite_mean(values[group]) for group in groups]


def _finite_mean(values: npt.NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _series(lines: Sequence[dict[str, Any]], kind: str) -> Series:
    chosen = [line for line in lines if line["kind"] == kind]
    names = dict.fromkeys(name for line in chosen for name in line if name not in {"kind", "step"})
    columns = {name: tuple(_number(line.get(name)) for line in chosen) for name in names}
    return Series(tuple(int(line["step"]) for line in chosen), columns)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    found: list[dict[str, Any]] = []
    # A run that is under way, or was killed, may leave a torn last line: it has no end.
    for number, line in enumerate((text for text in path.read_bytes().splitlines(keepends=True) if text.endswith(b"\n")), start=1):
        try:
            values = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number} is not a measurement ({error}); remove the line") from error
        if not isinstance(values, dict) or not isinstance(values.get("step"), int) or values.get("kind") not in {"train", "validation"}:
            raise DataError(f"{path}, line {number} is not a measurement (kind or step is missing or wrong); remove the line")
        found.append(values)
    return found


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore it from a copy, or remove it") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} should hold a JSON object, got {type(value).__name__}; restore it from a copy")
    return value
