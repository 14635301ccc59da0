"""A run's folder: which file is where, its state, and who may write to it.

| name | holds |
|---|---|
| `config.json` | the configuration |
| `run.json` | RunState |
| `corpus.json` | symbols of the transcripts, and clips that were rejected (corpus_record.py) |
| `metrics.jsonl` | what was measured (metrics_log.py) |
| `modules.jsonl` | gradients and updates of each part of the network (modules_log.py) |
| `checkpoints/` | everything to go on from, or to speak with (checkpoint.py) |
| `snapshots/step-XXXXXXXX.npz` | alignments, gates and mels of some held-out utterances at each validation (validation.py) |
| `anomalies/step-XXXXXXXX.json` | what was not finite in a skipped update (anomaly.py) |
| `anomalies/step-XXXXXXXX.pt` | all that is needed to make that step again, for a run's first ones (evidence.py) |
| `restarts/NN/` | why the run went back, and what it abandoned (recovery/abandoned.py) |
"""

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tts.errors import DataError, UsageError
from tts.storage import clear_partial, prepare_folder, reporting, write_text

State = Literal["running", "finished", "preempted", "interrupted", "stopped", "diverged"]
"""running: under way, or killed. preempted: by SIGTERM, or for memory that was short. interrupted: by Ctrl-C.
stopped: by the caller, as a trial that is pruned."""

FOREIGN = ("features.json", "study.json", "metadata.csv", "manifest.jsonl")
"""Files of other stages: a folder that has one is not a run's, and training there would overwrite its config.json."""


class Totals(BaseModel):
    """Sums over the whole run, resumed or not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    skipped_updates: int = 0
    """Updates that were not made because something was not finite."""
    overflows: int = 0
    """Updates that the fp16 gradient scaler left out to find its scale."""
    seconds: float = 0.0
    restarts: int = 0
    """Times that it went back to where it was healthy."""
    frame_budget_halvings: int = 0
    """Times that a device out of memory has halved the batches."""


class RunState(BaseModel):
    """What `run.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: State
    step: int
    """Updates made or skipped when this was written."""
    fingerprint: str
    """Of the features."""
    language: str
    """Of the symbol table."""
    totals: Totals
    ranks: int = 1
    """Processes that trained together when this was written, one a device."""


def prepare_run(run: Path) -> None:
    """Creates the folder, or makes sure that an existing one is not another stage's. Raises UsageError, CannotWriteError."""
    foreign = next((name for name in FOREIGN if (run / name).exists()), None)
    if foreign:
        raise UsageError(f"{run} holds {foreign}, so it is not a run folder; choose another folder for the run")
    prepare_folder(run)


@contextmanager
def holding(run: Path) -> Iterator[None]:
    """Prepares the folder and keeps it for this process alone while the block runs. Raises UsageError, CannotWriteError."""
    prepare_run(run)
    with reporting(run):
        lock = (run / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another process is training in {run}; wait for it, or choose another folder") from None
        yield


def read_state(run: Path) -> RunState | None:
    """What run.json says, or None where there is none yet. Raises DataError."""
    path = run / "run.json"
    try:
        return RunState.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, ValidationError) as error:
        raise DataError(f"{path} does not hold the state of a run ({' '.join(str(error).split())}); remove it or choose another folder") from None


def write_state(run: Path, state: RunState) -> None:
    """Raises CannotWriteError."""
    write_text(run / "run.json", state.model_dump_json(indent=2) + "\n")


def clear_after(run: Path, step: int) -> None:
    """Removes snapshots and anomalies after `step`: the resumed run makes them again. Removes what a kill left half-written, too."""
    for folder in (run, *(run / name for name in ("snapshots", "anomalies", "checkpoints"))):
        clear_partial(folder)
        for path in folder.glob("step-*"):
            numbered = re.fullmatch(r"step-(\d+)\.(npz|json|pt)" if folder.name == "anomalies" else r"step-(\d+)\.(npz|json)", path.name)
            if numbered and int(numbered[1]) > step:
                path.unlink()
