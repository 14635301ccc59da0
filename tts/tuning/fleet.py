"""The workers of a study as `tts tune` sees them: who starts them, and what became of those that are no more, kept in the study to be read later."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tts.config import Config
from tts.errors import CannotWriteError, DataError, PreemptedError, ServiceUnavailableError, TrainingDivergedError, UsageError
from tts.storage import is_remote
from tts.tuning.database.address import STORAGE_VARIABLE, sqlite_file
from tts.tuning.database.attributes import FLEET
from tts.tuning.database.retry import persistently
from tts.tuning.launch import Ended, Launcher, LocalLauncher, Workers
from tts.tuning.report.fleet import EndedWorker, FleetRecord, reason_of
from tts.tuning.study import Study

logger = logging.getLogger(__name__)

KEPT = 50
"""Workers that ended, notes and reasons for waiting that a study keeps, the last of each."""
LOG_LINES, LOG_LETTERS, LINE_LETTERS = 8, 500, 200
"""Of a worker's log that are kept, and of any other line."""
_WORDS: tuple[tuple[tuple[str, ...], int], ...] = (
    (("ImagePull", "ErrImage", "InvalidImage", "CreateContainer", "RunContainerError", "forbidden", "Forbidden"), UsageError.exit_code),
    (("Unschedulable", "nodes are available", "FailedScheduling", "FailedMount", "quota"), ServiceUnavailableError.exit_code),
    (("OOMKilled", "Evicted", "evicted", "Preempt", "preempt", "Shutdown", "NodeLost", "DeadlineExceeded"), PreemptedError.exit_code),
)
"""What a cluster says of a worker that it could not start, or ended itself, and the exit code that this amounts to. A worker's own goes before."""
_OWN = tuple(kind.exit_code for kind in (UsageError, DataError, ServiceUnavailableError, TrainingDivergedError, CannotWriteError, PreemptedError))


def launcher_of(config: Config, study: Path, *, placement: Mapping[str, Any] | None = None, owner: str = "") -> Launcher:
    """What `tuning.launcher` names. Raises UsageError, ServiceUnavailableError.

    Args:
        config: Says which, and what workers need.
        study: The study's folder, where workers of this machine log.
        placement: kubernetes: what the pipeline's own task was given of node selectors, tolerations and the like.
        owner: kubernetes: the Workflow that the Job belongs to; empty: none.
    """
    if config.tuning.launcher == "local":
        return LocalLauncher(study / "workers", restarts=config.tuning.max_retries, devices_each=max(1, config.tuning.gpus_per_trial))
    from tts.tuning.kubernetes.launcher import KubernetesLauncher  # loads Kubernetes' client

    return KubernetesLauncher.of(config, placement=placement, owner=owner)


def check_reach(config: Config, features: str | None, url: str) -> None:
    """Whether workers on other machines could reach what they need. Raises UsageError; asks nobody.

    Args:
        config: Says who runs them.
        features: As they see them; None: whoever launches them sees to it.
        url: The study's database.
    """
    if config.tuning.launcher == "local":
        return
    file = sqlite_file(url)
    if file is not None:
        raise UsageError(
            f"tuning.launcher is {config.tuning.launcher}: its workers cannot share the file {file}; give the URL of a database server with "
            f"--storage, or in {STORAGE_VARIABLE}, such as postgresql://user@host/database"
        )
    if not config.tuning.runs_uri:
        logger.warning("tuning.runs_uri is empty: the study's folder must be a volume that all workers have under the same path")
    if features is not None and not is_remote(features):
        logger.warning("features are in %s: the workers' template must mount them under that path, or name them by a URI, as s3://...", features)


def exit_code(ended: Ended) -> int:
    """What a worker's end amounts to; negative: it was killed."""
    if ended.code < 0 or ended.code in _OWN:
        return ended.code
    return next((code for words, code in _WORDS if any(word in ended.reason for word in words)), ended.code)


class Fleet:
    """Keeps in the study what became of its workers."""

    def __init__(self, study: Study, stop: Callable[[], object]) -> None:
        self._study, self._stop = study, stop
        self._reported = self._noted = 0
        self._record: FleetRecord | None = None

    def heed(self, workers: Workers, *, spent: bool) -> None:
        """Logs what is new, and keeps it: after the study's end workers that end are no news. Raises ServiceUnavailableError."""
        ended, notes = workers.ended[self._reported :], workers.notes[self._noted :]
        self._reported, self._noted = len(workers.ended), len(workers.notes)
        for worker in () if spent else ended:
            logger.warning("%s; its trial waits for another worker", worker)
        for note in notes:
            logger.warning("%s", note)
        bad = [_kept(worker) for worker in ended if worker.code != 0]
        self._keep(bad, notes, workers.waiting)

    def _keep(self, ended: Iterable[EndedWorker], notes: Iterable[str], waiting: Iterable[str]) -> None:
        before = self._record or persistently(lambda: FleetRecord.of(self._study), url=self._study.url, stop=self._stop)
        reasons = {reason_of(line): line for line in (*before.waits, *(line[:LINE_LETTERS] for line in waiting))}
        said = [*before.notes, *(note[:LINE_LETTERS] for note in notes)]
        record = FleetRecord(ended=[*before.ended, *ended][-KEPT:], notes=said[-KEPT:], waits=list(reasons.values())[-KEPT:])
        if record != before:
            value = record.model_dump(mode="json")
            persistently(lambda: self._study.trials.set_user_attr(FLEET, value), url=self._study.url, stop=self._stop)
        self._record = record


def _kept(ended: Ended) -> EndedWorker:
    log = "\n".join(ended.log.splitlines()[-LOG_LINES:])[-LOG_LETTERS:]
    reason = ended.reason or str(ended).removeprefix(f"{ended.worker} ")
    return EndedWorker(worker=ended.worker, code=ended.code, reason=reason[:LINE_LETTERS], log=log, at=time.time())
