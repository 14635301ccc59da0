"""The process in which one trial trains. It knows nothing of the study: it reports each validation and is told to go on or to stop.

Messages are JSON over a pipe. From the worker: the trial. To the worker: {"kind": "ready"} where it waits for a trial with everything loaded;
{"kind": "validation", "step", "metrics"}, answered by {"prune": bool}; and at the end {"kind": "finished" | "pruned" | "preempted"} or
{"kind": "failed" | "lost" | "short", "reason", "exit_code"}. A process that goes without one has crashed, or its worker has (lifeline.py).

Of several processes that train together only the first talks to the worker and holds the folder. The others follow it (training/loop.py), and
end with exit code 0, or another where they failed by themselves. "lost" says that one of them is gone, "short" that memory was short too soon.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from tts.config import Config
from tts.config.load import from_mapping, override
from tts.data.store import FeatureStore
from tts.errors import CannotWriteError, PreemptedError, ServiceUnavailableError, TtsError
from tts.progress import Silent
from tts.storage import reporting
from tts.training.cores import usable_cores
from tts.training.joining import Place, TooFewDevicesError, joined
from tts.training.loop import follow, train
from tts.training.preemption import ShortOfMemoryError, StopFlag, TooLittleMemoryError, listen
from tts.training.ranks import LostRankError, Ranks
from tts.training.validation import ValidationRecord, past_records
from tts.tuning.database.lock import locked
from tts.tuning.trials.free_running import is_free_running
from tts.tuning.trials.lifeline import Watch
from tts.tuning.trials.spare import load
from tts.tuning.trials.spoken import speaking

LAST_CHILD_SECONDS = 30
"""A worker's child ends with it, at the latest after the write under way; its successor in the same folder waits for that."""


def main(control: Connection, lifeline: Connection, task: str) -> None:
    """Waits for a trial and trains it.

    `task` is JSON with `stale_seconds`, the process's `place` among those of the trial and, for a spare, what to `load` meanwhile: `features` and
    `device`. The trial comes over `control`: `features`, `run`, `lock`, `log`, `config` and `workers`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the worker decides what it means
    description = json.loads(task)
    place = Place(**description["place"])
    Watch(lifeline, description["stale_seconds"]).start()
    with listen() as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        store: FeatureStore | None = None
        if description["load"]:
            store = load(Path(description["load"]["features"]), description["load"]["device"], place)
            if store is None:
                return
            _send(control, {"kind": "ready"})
        trial = _receive(control)
        if place.rank > 0:
            sys.exit(_follow(trial, store, stop, place))
        _send(control, _attempt(control, trial, store, stop, place))


def _follow(trial: dict[str, Any], store: FeatureStore | None, stop: StopFlag, place: Place) -> int:
    """The exit code: 0 however the trial ends, if it does so for all."""
    _redirect(Path(trial["log"]))
    config = _config(trial, place)
    try:
        with joined(place, config.training.device) as ranks:
            follow(store or FeatureStore.open(Path(trial["features"])), config, stop=stop, ranks=ranks)
    except TtsError as error:
        logging.getLogger(__name__).error("rank %d: %s", place.rank, error)  # noqa: TRY400  # for a person; there is no defect to trace
        return error.exit_code
    return 0


def _attempt(control: Connection, trial: dict[str, Any], store: FeatureStore | None, stop: StopFlag, place: Place) -> dict[str, Any]:
    """The last message."""
    log, lock = Path(trial["log"]), Path(trial["lock"])
    try:
        with _surroundings(log):
            _redirect(log)
        with ExitStack() as held:
            with _surroundings(lock):
                held.enter_context(locked(lock, seconds=LAST_CHILD_SECONDS))
            return _train(control, trial, store or FeatureStore.open(Path(trial["features"])), stop, place)
    except (LostRankError, ShortOfMemoryError, TooLittleMemoryError) as error:
        kinds = {LostRankError: "lost", ShortOfMemoryError: "failed", TooLittleMemoryError: "short"}
        return {"kind": kinds[type(error)], "reason": str(error), "exit_code": error.exit_code}
    except PreemptedError:
        return {"kind": "preempted"}
    except TooFewDevicesError as error:
        # Another machine may have enough for this trial, and for those after it.
        return {"kind": "failed", "reason": str(error), "exit_code": ServiceUnavailableError.exit_code}
    except TimeoutError as error:
        return {"kind": "failed", "reason": f"an earlier attempt still trains: {error}", "exit_code": PreemptedError.exit_code}
    except TtsError as error:
        logging.getLogger(__name__).error("%s", error)  # noqa: TRY400  # the message is for a person; there is no defect to trace
        return {"kind": "failed", "reason": str(error), "exit_code": error.exit_code}


def _config(trial: dict[str, Any], place: Place) -> Config:
    config = from_mapping(trial["config"], "trial")
    threads = config.training.threads or max(1, usable_cores() // (trial["workers"] * place.here))
    return override(config, {"training.threads": threads})


def _train(control: Connection, trial: dict[str, Any], store: FeatureStore, stop: StopFlag, place: Place) -> dict[str, Any]:
    config = _config(trial, place)
    with joined(place, config.training.device) as ranks, closing(_records(store, config, Path(trial["run"]), stop, ranks)) as records:
        for record in records:
            _send(control, {"kind": "validation", "step": record.step, "metrics": record.metrics})
            if _receive(control)["prune"]:
                return {"kind": "pruned"}
    return {"kind": "finished"}


def _records(store: FeatureStore, config: Config, run: Path, stop: StopFlag, ranks: Ranks) -> Generator[ValidationRecord, None, None]:
    """All validations of the trial, those before an interruption first: its worker may have died before it told the study."""
    begun = False
    measure = speaking(store, config, stop) if is_free_running(config) else None
    with closing(train(store, config, run, progress=Silent(), stop=stop, measure=measure, ranks=ranks)) as trained:
        for record in trained:
            if not begun:
                yield from (past for past in past_records(run) if past.step < record.step)
            begun = True
            yield record
    if not begun:
        yield from past_records(run)


def _send(control: Connection, message: dict[str, Any]) -> None:
    try:
        control.send_bytes(json.dumps(message).encode())
    except (BrokenPipeError, ConnectionResetError):
        _end_with_worker()


def _receive(control: Connection) -> dict[str, Any]:
    try:
        message: dict[str, Any] = json.loads(control.recv_bytes())
    except (EOFError, ConnectionResetError):
        _end_with_worker()
    return message


def _end_with_worker() -> NoReturn:
    """As the watch does, which may see it a moment later: another may take up the trial, so nothing more is written."""
    os._exit(PreemptedError.exit_code)


@contextmanager
def _surroundings(path: Path) -> Iterator[None]:
    """What keeps a trial from beginning in its folder, whatever the reason, is not the trial's fault. Raises CannotWriteError, TimeoutError."""
    try:
        with reporting(path):
            yield
    except TimeoutError:
        raise
    except OSError as error:
        raise CannotWriteError(f"cannot write {path}: {error.strerror}; mend it, or choose another folder") from error


def _redirect(log: Path) -> None:
    """What the training logs, and the traceback of a crash, belong to the trial."""
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
