"""Runs in MLflow: everything is kept on disk first, so that recording waits for no server and loses nothing; a thread delivers."""

import hashlib
import json
import logging
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tts.errors import PreemptedError, ServiceUnavailableError
from tts.storage import prepare_folder, write_text
from tts.tracking.courier import Courier
from tts.tracking.location import Location
from tts.tracking.protocol import Registration, Run, ending, split
from tts.tracking.spool import Recorder, Spool, spools

if TYPE_CHECKING:
    from tts.tracking.mlflow_store import MlflowStore

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0
"""For which the end of a process waits for a store that answers."""
HASTE_SECONDS = 2.0
"""The same where the process was asked to stop: its grace may be short."""
REGISTER_SECONDS = 60.0
"""For which a registration waits for another process that delivers the same run."""
STORE = "store.json"
"""In a store's spool folder: its address without a password, and the experiment."""


class _Run:
    def __init__(self, recorder: Recorder, courier: Courier) -> None:
        self._recorder, self._courier = recorder, courier
        self.id = recorder.spool.key

    def params(self, values: Mapping[str, object]) -> None:
        """A record."""
        self._append("params", values={name: str(value) for name, value in values.items()})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """A record of the finite ones and of the names of the others."""
        finite, others = split(values)
        self._append("metrics", step=step, values=finite, non_finite=others)

    def artefact(self, path: Path, folder: str = "") -> None:
        """A copy and a record: the file may change, or vanish, before it is delivered."""
        self._append("artefact", copy=self._recorder.copy(path), folder=folder)

    def tags(self, values: Mapping[str, str]) -> None:
        """A record."""
        self._append("tags", values=dict(values))

    def _append(self, kind: str, **values: object) -> None:
        self._recorder.append(kind, **values)
        self._courier.notify()


class MlflowTracker:
    """MLflow at a location. A run's id is ours, and known without a server; the store finds the run by the tag `tts.key`."""

    def __init__(self, location: Location, store: "MlflowStore | None" = None) -> None:
        self._location = location
        self._courier = Courier(location, store)
        self._store = store
        prepare_folder(location.spool)
        write_text(location.spool / STORE, json.dumps({"uri": location.public if location.given else "", "experiment": location.experiment}) + "\n")
        if self.undelivered:
            self._courier.begin()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Closes; quickly where the process was asked to stop."""
        self.close(HASTE_SECONDS if isinstance(error, PreemptedError | KeyboardInterrupt) else CLOSE_SECONDS)

    @property
    def undelivered(self) -> int:
        """Records, of this process and of others, that the store does not have yet."""
        return sum(spool.pending(self._location.name) for spool in spools(self._location.spool))

    @contextmanager
    def run(self, name: str, *, parent: str | None = None, run_id: str | None = None, anew: bool = False) -> Iterator[Run]:
        """A run; without `parent` it hangs below the run whose id was inherited in MLFLOW_RUN_ID, if there was one."""
        spool = Spool(self._location.spool, run_id or (_below(parent, name) if parent else secrets.token_hex(16)))
        recorder = Recorder(spool)
        recorder.append("start", name=name, parent=parent or "", inherited="" if parent else self._location.parent, anew=anew)
        self._courier.add(spool)
        try:
            with ending(lambda status: recorder.append("end", status=status)):
                yield _Run(recorder, self._courier)
        finally:
            recorder.close()
            self._courier.notify()

    def register(
        self, files: Path, *, name: str, run_id: str, metrics: Mapping[str, float], compare: str, fingerprint: str, passed: bool
    ) -> Registration:
        """Delivers the run, copies the files into its artefacts (folder `model`) and registers them there, at once."""
        from tts.tracking.delivery import Delivery
        from tts.tracking.mlflow_store import MlflowStore
        from tts.tracking.registry import register

        self._store = self._store or MlflowStore(self._location)
        delivery = Delivery(self._store, self._location.spool)
        if not delivery.deliver(Spool(self._location.spool, run_id), wait=REGISTER_SECONDS):
            raise ServiceUnavailableError(f"run {run_id} is being delivered to MLflow at {self._location.public} by another process; try again")
        return register(
            self._store, files, name=name, run=delivery.run_id(run_id), metrics=metrics, compare=compare, fingerprint=fingerprint, passed=passed
        )

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Delivers what it can in that time; where the store is known to be away, nothing. What is left is told, and kept."""
        left = self._courier.close(seconds)
        if left:
            folder = self._location.folder
            logger.warning("%d records are kept in %s; deliver them with `tts tracking flush %s`", left, self._location.spool, folder)


def _below(parent: str, name: str) -> str:
    """The id of a run below another: a process that was killed before it could tell anybody continues the run instead of making a second."""
    return hashlib.sha256(f"{parent}/{name}".encode()).hexdigest()[:32]
