"""A worker: takes trials and attempts them until the study's budget is spent."""

import json
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tts.data.store import FeatureStore
from tts.errors import INTERRUPTED, PreemptedError, TtsError, UsageError
from tts.storage import reporting
from tts.tracking import Tracker, open_tracker
from tts.training.preemption import StopFlag, listen
from tts.tuning.attempt import Attempt
from tts.tuning.queue import is_spent, take, worker_lock
from tts.tuning.storage import locked
from tts.tuning.study import Plan, open_study
from tts.tuning.trial import load_trial_server

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
"""Between looks at a study whose last trials others run: one of them may be handed back."""
TRACKING = "tracking.json"
"""In the study's folder: the parent run, and the folder that its tracker was opened with."""


def work(features: Path, *, storage: str, name: str, stop: StopFlag) -> int:
    """Attempts trials of the study `name` until its budget is spent; returns how many this worker finished.

    Raises:
        UsageError: The features are not those of the study.
        DataError, CannotWriteError, ServiceUnavailableError: The database, the features or the trials' folder.
        PreemptedError, KeyboardInterrupt: The flag was set; the trial under way waits, with a checkpoint, for another worker.
    """
    load_trial_server()
    study = open_study(storage, name)
    plan = study.plan
    fingerprint = FeatureStore.open(features).fingerprint
    if fingerprint != plan.features:
        raise UsageError(f"study {name!r} was made with features {plan.features}, {features} holds {fingerprint}; give its worker the same features")
    tracker, parent = _tracking(plan)
    identity = uuid.uuid4().hex[:12]
    finished = 0
    with _signed_on(plan.folder, identity):
        while not stop:
            trial = take(study, identity)
            if trial is not None:
                finished += Attempt(study, trial, features=features, tracker=tracker, parent=parent).make(stop)
            elif is_spent(study):
                return finished
            else:
                time.sleep(IDLE_SECONDS)
    if is_spent(study):
        return finished
    raise stopped(stop, f"worker of study {name!r} stopped after {finished} trials; the same command goes on")


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
            finished = work(Path(task["features"]), storage=task["storage"], name=task["name"], stop=stop)
        except TtsError as error:
            logger.error("%s", error)  # noqa: TRY400  # the message is for a person; there is no defect to trace
            return error.exit_code
        except KeyboardInterrupt:
            return INTERRUPTED
    logger.info("the study's budget is spent; this worker finished %d trials", finished)
    return 0


def _stop_with_launcher(stop: StopFlag) -> None:
    # Not through sys.stdin: at exit the interpreter would wait for the lock that this thread holds while it reads.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()  # the launcher is gone, killed or not


@contextmanager
def _signed_on(folder: Path, identity: str) -> Iterator[None]:
    """Holds the lock that tells the others that this worker lives."""
    lock = worker_lock(folder, identity)
    with reporting(lock), locked(lock):
        try:
            yield
        finally:
            lock.unlink()


def _tracking(plan: Plan) -> tuple[Tracker, str | None]:
    """The study's tracker and parent run."""
    file = plan.folder / TRACKING
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return open_tracker(plan.config.tracking, Path(known.get("folder", plan.folder))), known.get("run")
