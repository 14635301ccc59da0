"""What a training run left behind, read for a report.

Reads files only, so that a report can be made of a run that is under way, was killed or came from another machine:
`config.json`, `run.json`, `metrics.jsonl`, `snapshots/step-*.npz`, `anomalies/step-*.json` and, where the run is not older than they are,
`modules.jsonl`, `corpus.json`, `restarts/NN`.

Shape letters: B utterances, S decoder steps, N symbols, T frames, M mels.
"""

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
from tts.diagnostics.corpus_record import CorpusRecord, read_corpus
from tts.diagnostics.json_files import number, read_lines, read_object
from tts.diagnostics.module_record import ModuleRecord, read_modules
from tts.diagnostics.restart_record import Restart, read_restarts
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
    mel_loss_B: Floats | None = None
    """Squared error after the postnet; None in older snapshots."""
    other_text_mel_loss_B: Floats | None = None
    """The same where each recording is given the text of another; NaN where there is no other."""

    @property
    def text_gain(self) -> float:
        """How many times worse recordings are foretold with each other's texts than with their own; NaN where that is not known."""
        if self.mel_loss_B is None or self.other_text_mel_loss_B is None:
            return math.nan
        known_B = np.isfinite(self.other_text_mel_loss_B)
        own = float(self.mel_loss_B[known_B].sum())
        return float(self.other_text_mel_loss_B[known_B].sum()) / own if own > 0 else math.nan

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
    modules: ModuleRecord | None = None
    corpus: CorpusRecord | None = None
    restarts: tuple[Restart, ...] = ()


def read_run(run: Path) -> RunRecord:
    """Reads all but the snapshots. Raises DataError when the folder is not a run's or a file in it is damaged."""
    missing = [name for name in ("run.json", "config.json") if not (run / name).is_file()]
    if missing:
        raise DataError(f"{run} is not a run folder: it has no {' and no '.join(missing)}; expected a folder made by `tts train`")
    state = read_object(run / "run.json")
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
            anomalies=tuple(read_object(path) for path in sorted((run / "anomalies").glob("step-*.json"))),
            modules=read_modules(run / "modules.jsonl"),
            corpus=read_corpus(run / "corpus.json"),
            restarts=read_restarts(run),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{run / 'run.json'} does not hold the state of a run ({reason}); train into another folder") from error


def read_abandoned(restart: Restart) -> tuple[Series, Series]:
    """What was trained and validated after the step that a restart went back to: (train, validation). Raises DataError."""
    lines = _lines(restart.folder / "metrics.jsonl")
    return _series(lines, "train"), _series(lines, "validation")


def read_snapshot(path: Path) -> Snapshot:
    """Raises DataError naming a file that is cut short or lacks an array."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            lengths = {name: arrays[name].astype(np.int64) for name in ("symbol_lengths_B", "mel_lengths_B", "step_lengths_B")}
            values = {name: arrays[name].astype(np.float32) for name in ("alignment_BSN", "gate_BT", "mel_target_BTM", "mel_BTM")}
            losses = {name: arrays[name].astype(np.float32) for name in ("mel_loss_B", "other_text_mel_loss_B") if name in arrays}
            ids, texts = (tuple(str(value) for value in arrays[name]) for name in ("ids_B", "texts_B"))
        return Snapshot(step=int(path.stem.removeprefix("step-")), ids=ids, texts=texts, **lengths, **values, **losses)
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
    columns = {name: tuple(number(line.get(name)) for line in chosen) for name in names}
    return Series(tuple(int(line["step"]) for line in chosen), columns)


def _lines(path: Path) -> list[dict[str, Any]]:
    return read_lines(path, lambda values: values.get("kind") in {"train", "validation"}, "kind or step is missing or wrong")
