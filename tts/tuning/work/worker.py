"""A worker: takes trials and attempts them until the study's budget is spent."""

import json
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import tts
from tts.data.store import FeatureStore
from tts.errors import INTERRUPTED, DataError, PreemptedError, ServiceUnavailableError, TtsError, UsageError
from tts.storage import local
from tts.training.preemption import StopFlag, listen
from tts.tuning.budget import Budget
from tts.tuning.database.failure import LeaseLostError
from tts.tuning.database.retry import persistently
from tts.tuning.source import source_fingerprint
from tts.tuning.study import Plan, Study, open_study
from tts.tuning.trials.trial import TrialProcesses, load_trial_server
from tts.tuning.work.attempt import Attempt, Surroundings
from tts.tuning.work.ground import ground_of
from tts.tuning.work.heartbeat import Heartbeat
from tts.tuning.work.launcher_lease import LauncherWatch
from tts.tuning.work.queue import take
from tts.tuning.work.recording import recording
from tts.tuning.work.runs import RunOf, runs_of

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
    """Why the study is at its end; empty where the worker has run as many trials as it was to."""


def work(
    features: str | Path, *, storage: str, name: str, stop: StopFlag, trials: int = 0, launched: bool = False, cache: Path | None = None
) -> Worked:
    """Attempts trials of the study `name` until its budget is spent.

    Workers share the study's database, and where the study has no `tuning.runs_uri` the folder that it keeps its trials in, under the same path:
    a trial goes on from its checkpoint there.

    Args:
        features: The feature store, a folder or a URI.
        storage: The database's URL.
        name: The study's name in the database.
        stop: Ends the worker early.
        trials: Finished trials after which the worker ends, too; 0: no number of them.
        launched: Whether `tts tune` started this worker on another machine: it ends once that gives no sign of life.
        cache: Folder for features that are fetched.

    Raises:
        UsageError: The features or the code are not those of the study.
        DataError, CannotWriteError, ServiceUnavailableError: The database, the features or the trials' folder.
        PreemptedError, KeyboardInterrupt: The flag was set, or its launcher is gone; the trial under way waits, with a checkpoint, for another.
    """
    load_trial_server()
    study = open_study(storage, name)
    plan = study.plan
    store = local(str(features), cache)
    _check(plan, name, store)
    tuning, ground = plan.config.tuning, ground_of(study, plan)
    with (
        ground.signed_on() as identity,
        recording(study, ground.scratch(identity), identity) as (tracker, parent),
        Heartbeat(study, seconds=tuning.heartbeat_seconds, stale_seconds=tuning.stale_seconds) as heartbeat,
        TrialProcesses() as processes,
    ):
        watch = LauncherWatch(study, heartbeat) if launched else None
        surroundings = Surroundings(store, tracker, parent, processes, watch.gone if watch else lambda: "")
        return _Worker(study, identity, heartbeat, runs_of(study, plan, ground.scratch(identity)), surroundings, watch).work(trials, stop)


class _Worker:
    def __init__(
        self, study: Study, identity: str, heartbeat: Heartbeat, run_of: RunOf, surroundings: Surroundings, watch: LauncherWatch | None
    ) -> None:
        self.study, self.identity, self.heartbeat, self.run_of = study, identity, heartbeat, run_of
        self.surroundings, self.watch = surroundings, watch
        self.finished = 0

    def work(self, trials: int, stop: StopFlag) -> Worked:
        idle = IDLE_SECONDS[0]
        while True:
            try:
                if self._turn(stop):
                    idle = IDLE_SECONDS[0]
                    if trials and self.finished >= trials:
                        return Worked(self.finished, "")
                    continue
                if spent := Budget.state(self.study, lambda: stop).spent:
                    return Worked(self.finished, spent)
            except LeaseLostError as error:
                logger.warning("%s", error)
            except ServiceUnavailableError as error:
                if not stop:
                    raise
                logger.warning("%s", error)
            if stop:
                raise stopped(stop, f"worker of study {self.study.name!r} stopped after {self.finished} trials; the same command goes on")
            _wait(idle, stop)
            idle = min(2 * idle, IDLE_SECONDS[1])

    def _turn(self, stop: StopFlag) -> bool:
        """Whether there was a trial to attempt. Raises PreemptedError where the launcher is gone."""
        if stop or not self._wanted(stop):
            return False
        held = take(self.study, self.identity, self.heartbeat.steady, lambda: stop, stale_seconds=self.heartbeat.stale_seconds)
        if held is None:
            return False
        self.finished += Attempt(self.study, held, self.heartbeat, self.run_of(held), self.surroundings).make(stop)
        return True

    def _wanted(self, stop: StopFlag) -> bool:
        """Whether somebody waits for what this worker does. Raises PreemptedError where nobody does."""
        watch = self.watch
        if watch is None:
            return True
        if gone := persistently(watch.gone, url=self.study.url, stop=lambda: stop):
            raise PreemptedError(f"worker of study {self.study.name!r} stopped after {self.finished} trials: {gone}; the same `tts tune` goes on")
        return not persistently(watch.silent, url=self.study.url, stop=lambda: stop)


def _wait(seconds: float, stop: StopFlag) -> None:
    end = time.monotonic() + seconds
    while not stop and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_SECONDS))


def stopped(stop: StopFlag, message: str) -> PreemptedError | KeyboardInterrupt:
    """What a stop by this flag ends with."""
    return KeyboardInterrupt(message) if stop.signal is signal.SIGINT else PreemptedError(message)


def main() -> int:
    """The local launcher's worker: reads its task, a line of JSON, from standard input and stops when that closes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with listen() as stop:
        try:
            task = json.loads(sys.stdin.readline())
            threading.Thread(target=_stop_with_launcher, args=(stop,), daemon=True).start()
            worked = work(task["features"], storage=task["storage"], name=task["name"], stop=stop)
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
    if not plan.config.tuning.runs_uri and not plan.folder.is_dir():
        raise DataError(
            f"study {name!r} keeps its trials in {plan.folder}, which is not here; its workers need that folder, under the same path (or "
            "tuning.runs_uri, which keeps them in an object store)"
        )
