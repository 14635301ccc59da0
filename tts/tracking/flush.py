"""What was recorded while a store was away, delivered on demand."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from tts.config import TrackingConfig
from tts.errors import DataError, ServiceUnavailableError, TtsError, UsageError
from tts.progress import Progress, Task
from tts.tracking.courier import FAILURES
from tts.tracking.delivery import Delivery
from tts.tracking.location import SPOOL, Location, keeps_secret, redact
from tts.tracking.mlflow_store import MlflowStore
from tts.tracking.mlflow_tracker import STORE
from tts.tracking.spool import Spool, spools

TURN_SECONDS = 0.5
"""Before another look at runs that a living process delivers."""
PATIENCE_SECONDS = 30.0
"""For which a living process may hold a run without delivering anything of it, before the run is left to it."""


@dataclass(frozen=True)
class FlushSummary:
    """What delivering came to."""

    runs: int
    """Of which something was delivered."""
    records: int
    left: int
    """Records that no store has yet."""
    reason: TtsError | None
    """Why, if something is left."""


def flush(folder: Path, config: TrackingConfig, *, progress: Progress) -> FlushSummary:
    """Delivers what lies undelivered below `folder`, each run to the store that it was recorded for, or to `config.uri` if that is given.

    Whoever records or delivers meanwhile is not disturbed. Raises DataError where no run was ever recorded below the folder.
    """
    found = sorted(path for path in folder.rglob(f"{SPOOL}/*") if path.is_dir() and (path / STORE).is_file())
    if not found:
        raise DataError(f"nothing was recorded for MLflow in {folder}; name a study, a run, or what `tts run` made")
    works = [_Work(path, _location(path, config)) for path in found]
    with progress.task("Records", total=sum(work.left for work in works)) as task:
        reasons = [work.deliver(task) for work in works]
    return FlushSummary(
        runs=sum(len(work.runs) for work in works),
        records=sum(work.records for work in works),
        left=sum(work.left for work in works),
        reason=next((reason for reason in reasons if reason), None),
    )


class _Work:
    """The runs for one store."""

    def __init__(self, folder: Path, location: Location) -> None:
        self.folder, self.location = folder, location
        self.runs: set[str] = set()
        self.records = 0
        self.target = {spool: spool.size() for spool in spools(folder)}
        """What is there now; what is recorded from now on is for its recorder to deliver."""

    @property
    def left(self) -> int:
        """Records that were there at first and that the store does not have."""
        return sum(1 for spool, size in self.target.items() for _ in spool.records(self._offset(spool), size))

    def deliver(self, task: Task) -> TtsError | None:
        """Delivers; what kept the store from taking it all, if anything did."""
        waiting, errors = list(self.target), dict[Spool, TtsError]()
        try:
            delivery = Delivery(MlflowStore(self.location), self.folder)
        except TtsError as error:
            return error
        moved = time.monotonic()
        while waiting and time.monotonic() - moved < PATIENCE_SECONDS:
            before = self.records
            for spool in list(waiting):
                try:
                    done = self._finish(delivery, spool, task)
                except TtsError as error:
                    errors[spool], done = error, True
                    if len(errors) == FAILURES:
                        return error
                if done:
                    waiting.remove(spool)
            moved = time.monotonic() if self.records > before else moved
            if waiting:
                time.sleep(TURN_SECONDS)
        if errors:
            return next(iter(errors.values()))
        if waiting:
            return ServiceUnavailableError(f"{len(waiting)} runs in {self.folder} are held by a process that does not deliver them; end it")
        return None

    def _finish(self, delivery: Delivery, spool: Spool, task: Task) -> bool:
        def heard(key: str, records: int) -> None:
            self.records += records
            self.runs.add(key)
            task.advance(records)

        return delivery.finish(spool, heard=heard) or self._offset(spool) >= self.target[spool]

    def _offset(self, spool: Spool) -> int:
        return spool.state(self.location.name).offset


def _location(folder: Path, config: TrackingConfig) -> Location:
    """Where the runs in a spool folder belong. A password, which is not kept there, comes from the environment."""
    try:
        kept = json.loads((folder / STORE).read_text(encoding="utf-8"))
        uri, experiment = str(kept["uri"]), str(kept["experiment"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / STORE} does not name a store ({error}); remove it and name the store with --tracking.uri") from None
    results = folder.parent.parent
    if config.uri:
        return Location.of(config.model_copy(update={"experiment": experiment}), results)
    environment = os.environ.get("MLFLOW_TRACKING_URI", "")
    if environment and redact(environment) == uri:
        return Location(results.absolute(), environment, experiment)
    if keeps_secret(uri):
        raise UsageError(f"the address of the store of {folder}, {uri}, has a password, which is not kept; give it in MLFLOW_TRACKING_URI")
    return Location(results.absolute(), uri, experiment).checked()
