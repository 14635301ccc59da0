"""A worker: takes trials and attempts them until the study's budget is spent."""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tts
from tts.data.store import FeatureStore
from tts.errors import INTERRUPTED, DataError, PreemptedError, ServiceUnavailableError, TtsError, UsageError
from tts.storage import reporting
from tts.tracking import NOTE, Tracker, open_tracker
from tts.training.preemption import StopFlag, listen
from tts.tuning.budget import Budget
from tts.tuning.database.failure import LeaseLostError
from tts.tuning.database.lock import locked
from tts.tuning.source import source_fingerprint
from tts.tuning.study import Plan, Study, open_study
from tts.tuning.trials.trial import TrialProcesses, load_trial_server
from tts.tuning.work.attempt import Attempt
from tts.tuning.work.heartbeat import Heartbeat
from tts.tuning.work.identity import new_worker
from tts.tuning.work.queue import take, worker_lock

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.2, 3.0
"""Between looks at a study whose last trials others run: one of them may be handed back. The first wait, which doubles, and the longest."""
LOOK_SECONDS = 0.1
"""Between looks at whether a waiting worker is to stop."""


@dataclass(frozen=True)
class Worked:
    """What a worker ends with."""

    finished: int
    """Trials."""
    spent: str
    """Why the study is at its end."""


def work(features: Path, *, storage: str, name: str, stop: StopFlag) -> Worked:
    """Attempts trials of the study `name` until its budget is spent.

    Workers share the study's database and the folder that it keeps its trials in, under the same path: a trial goes on from its checkpoint there.

    Raises:
        UsageError: The features or the code are not those of the study.
        DataError, CannotWriteError, ServiceUnavailableError: The database, the features or the trials' folder.
        PreemptedError, KeyboardInterrupt: The flag was set; the trial under way waits, with a checkpoint, for another worker.
    """
    load_trial_server()
    study = open_study(storage, name)
    plan = study.plan
    _check(plan, name, features)
    opened, parent = _tracking(plan)
    identity, tuning = new_worker(), plan.config.tuning
    with (
        opened as tracker,
        _signed_on(plan.folder, identity),
        Heartbeat(study, seconds=tuning.heartbeat_seconds, stale_seconds=tuning.stale_seconds) as heartbeat,
        TrialProcesses() as processes,
    ):
        return _work(study, identity, heartbeat, stop, features=features, tracker=tracker, parent=parent, processes=processes)


def _work(study: Study, identity: str, heartbeat: Heartbeat, stop: StopFlag, **surroundings: Any) -> Worked:
    finished, idle = 0, IDLE_SECONDS[0]
    while True:
        try:
            held = None if stop else take(study, identity, heartbeat.steady, lambda: stop, stale_seconds=heartbeat.stale_seconds)
            if held is not None:
                finished += Attempt(study, held, heartbeat, **surroundings).make(stop)
                idle = IDLE_SECONDS[0]
                continue
            if spent := Budget.state(study, lambda: stop).spent:
                return Worked(finished, spent)
        except LeaseLostError as error:
            logger.warning("%s", error)
        except ServiceUnavailableError as error:
            if not stop:
                raise
            logger.warning("%s", error)
        if stop:
            raise stopped(stop, f"worker of study {study.name!r} stopped after {finished} trials; the same command goes on")
        _wait(idle, stop)
        idle = min(2 * idle, IDLE_SECONDS[1])


def _wait(seconds: float, stop: StopFlag) -> None:
    end = time.monotonic() + seconds
    while not stop and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_SECONDS))


def stopped(stop: StopFlag, message: str) -> PreemptedError | KeyboardInterrupt:
    """What a stop by this flag ends with."""
    return type(stop.error(0))(message)


def main() -> int:
    """The local launcher's worker: reads its task, a line of JSON, from standard input and stops when that closes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with listen() as stop:
        try:
            task = json.loads(sys.stdin.readline())
            threading.Thread(target=_stop_with_launcher, args=(stop,), daemon=True).start()
            worked = work(Path(task["features"]), storage=task["storage"], name=task["name"], stop=stop)
        except TtsError as error:
            logger.error("%s", error)  # noqa: TRY400  # the message is for a person; there is no defect to trace
            return error.exit_code
        except KeyboardInterrupt:
            return INTERRUPTED
    logger.info("the study is at its end: %s; this worker finished %d trials", worked.spent, worked.finished)
    return 0


def _stop_with_launcher(stop: StopFlag) -> None:
    # Not through sys.stdin: at exit the interpreter would wait for the lock that this thread holds while it reads.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()  # the launcher is gone, killed or not


def _check(plan: Plan, name: str, features: Path) -> None:
    """Whether this worker trains and judges as the others do, and sees their checkpoints. Raises UsageError, DataError."""
    fingerprint, code = FeatureStore.open(features).fingerprint, source_fingerprint()
    if fingerprint != plan.features:
        raise UsageError(f"study {name!r} was made with features {plan.features}, {features} holds {fingerprint}; give its worker the same features")
    if code != plan.code:
        raise UsageError(
            f"study {name!r} was made by the code of version {plan.version} ({plan.code}), this is version {tts.__version__} ({code}): its trials "
            "would not be comparable; run the worker from the same installation, or start another study with this one"
        )
    if not plan.folder.is_dir():
        raise DataError(f"study {name!r} keeps its trials in {plan.folder}, which is not here; its workers need that folder, under the same path")


@contextmanager
def _signed_on(folder: Path, identity: str) -> Iterator[None]:
    """Holds the lock that tells the others that this worker lives."""
    lock = worker_lock(folder, identity)
    with reporting(lock), locked(lock):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # somebody may have cleared the folder


def _tracking(plan: Plan) -> tuple[Tracker, str | None]:
    """The study's tracker and parent run."""
    file = plan.folder / NOTE
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return open_tracker(plan.config.tracking, Path(known.get("folder", plan.folder))), known.get("run")
