"""The process in which one trial trains. It knows nothing of the study: it reports each validation and is told to go on or to stop.

Messages are JSON over a pipe. To the worker: {"kind": "validation", "step", "metrics"}, answered by {"prune": bool}; and at the end
{"kind": "finished" | "pruned" | "preempted"} or {"kind": "failed", "reason", "exit_code"}. A process that goes without one has crashed.
"""

import json
import logging
import os
import signal
import threading
from collections.abc import Generator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tts.config import Config
from tts.config.load import from_mapping, override
from tts.data.store import FeatureStore
from tts.errors import PreemptedError, TtsError
from tts.progress import Silent
from tts.training.cores import usable_cores
from tts.training.loop import train
from tts.training.preemption import StopFlag, listen
from tts.training.validation import ValidationRecord, past_records
from tts.tuning.storage import locked

LAST_CHILD_SECONDS = 30
"""A worker's child ends with it, at the latest after the write under way; its successor in the same folder waits for that."""


def main(control: Connection, lifeline: Connection, task: str) -> None:
    """Trains the trial described by `task`: JSON with `features`, `run`, `lock`, `log` and `config`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the worker decides what it means
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    description = json.loads(task)
    _redirect(Path(description["log"]))
    with listen() as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with locked(Path(description["lock"]), seconds=LAST_CHILD_SECONDS):
                ending = _train(control, description, stop)
        except PreemptedError:
            ending = {"kind": "preempted"}
        except TtsError as error:
            logging.getLogger(__name__).error("%s", error)  # noqa: TRY400  # the message is for a person; there is no defect to trace
            ending = {"kind": "failed", "reason": str(error), "exit_code": error.exit_code}
        _send(control, ending)


def _train(control: Connection, description: dict[str, Any], stop: StopFlag) -> dict[str, Any]:
    config = from_mapping(description["config"], "trial")
    threads = config.training.threads or max(1, usable_cores() // description["workers"])
    config = override(config, {"training.threads": threads})
    store = FeatureStore.open(Path(description["features"]))
    with closing(_records(store, config, Path(description["run"]), stop)) as records:
        for record in records:
            _send(control, {"kind": "validation", "step": record.step, "metrics": record.metrics})
            if json.loads(control.recv_bytes())["prune"]:
                return {"kind": "pruned"}
    return {"kind": "finished"}


def _records(store: FeatureStore, config: Config, run: Path, stop: StopFlag) -> Generator[ValidationRecord, None, None]:
    """All validations of the trial, those before an interruption first: its worker may have died before it told the study."""
    begun = False
    with closing(train(store, config, run, progress=Silent(), stop=stop)) as trained:
        for record in trained:
            if not begun:
                yield from (past for past in past_records(run) if past.step < record.step)
            begun = True
            yield record
    if not begun:
        yield from past_records(run)


def _send(control: Connection, message: dict[str, Any]) -> None:
    control.send_bytes(json.dumps(message).encode())


def _redirect(log: Path) -> None:
    """What the training logs, and the traceback of a crash, belong to the trial."""
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)


def _end_with(lifeline: Connection) -> None:
    """Ends this process at once when its worker is gone: another may take up the trial, and two must not write to one folder."""
    try:
        lifeline.recv_bytes()
    except EOFError:
        os._exit(PreemptedError.exit_code)
