"""MLflow's client: one call at a time, without its global active run, and its errors in our terms."""

import fcntl
import logging
import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from mlflow import MlflowClient, entities
from mlflow.exceptions import MlflowException, RestException
from sqlalchemy.exc import SQLAlchemyError

from tts.errors import CannotWriteError, DataError, ServiceUnavailableError, TtsError, UsageError
from tts.storage import prepare_folder
from tts.tracking.location import Location, redact
from tts.tracking.replay import Item, Metric, Param, Tag

logger = logging.getLogger(__name__)

T = TypeVar("T")
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds between attempts while a SQLite file is locked."""
BUSY_SECONDS = 10.0
"""In each attempt, for the mode of a new SQLite file."""
ERRORS = (MlflowException, SQLAlchemyError, sqlite3.Error, BotoCoreError, ClientError, OSError)
"""What a store answers with; requests' errors are OSErrors."""
PARENT = "mlflow.parentRunId"
KEY = "tts.key"
"""Tag with our own id of a run: by it a run is found again, whoever created it."""
GONE = "RESOURCE_DOES_NOT_EXIST"
FORBIDDEN = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS", "BAD_REQUEST")


class RefusedError(UsageError):
    """The store will never take this, however often it is sent."""


class GoneError(UsageError):
    """The store does not know the run, experiment or model."""


class MlflowStore:
    """The store at a location. A SQLite file is created once, under a lock, in WAL mode; its artefacts lie beside it."""

    def __init__(self, location: Location) -> None:
        self.location = location
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # it logs tracebacks of errors that are raised, and explained, as well
        database = location.database
        artefacts = None if location.remote else (database.parent if database else location.folder) / "mlflow-artefacts"
        with _creating(database):
            store = f"sqlite:///{database}?timeout=60" if database else location.uri
            self._client = self._ask(lambda: MlflowClient(store, store))
            self._own = self._open_experiment(location.experiment, artefacts.as_uri() if artefacts else None)
            if database:
                self._ask(lambda: _share(database))
        self.experiment, self.parent = self._inherited() or (self._own, "")

    def ask(self, call: str, *arguments: Any, **named: Any) -> Any:
        """One call of the client. A locked database is tried again, a bounded number of times. Raises TtsError with the reason."""
        return self._ask(lambda: getattr(self._client, call)(*arguments, **named))

    def find(self, key: str) -> tuple[str, str] | None:
        """Ids of the run with our key, and of its experiment."""
        experiments = list({self.experiment: None, self._own: None})
        found = self.ask("search_runs", experiments, f"tags.`{KEY}` = '{key}'", max_results=1)
        return (found[0].info.run_id, found[0].info.experiment_id) if found else None

    def remove_doubles(self, key: str, run: str, experiment: str) -> None:
        """Bins the other runs with our key: made by calls that a slow server carried out after we had given them up, they are empty."""
        for found in self.ask("search_runs", [experiment], f"tags.`{KEY}` = '{key}'"):
            if found.info.run_id != run:
                self.ask("delete_run", found.info.run_id)

    def create(self, key: str, name: str, milliseconds: int, parent: tuple[str, str] | None) -> tuple[str, str]:
        """Creates a run, below `parent` (run, experiment) if there is one. Returns its id and its experiment's."""
        experiment = parent[1] if parent else self.experiment
        tags = {KEY: key, **({PARENT: parent[0]} if parent else {})}
        run = self.ask("create_run", experiment, start_time=milliseconds, tags=tags, run_name=name)
        return self._named(run.info.run_id), experiment

    def log(self, run: str, items: Sequence[Item]) -> None:
        """Values of a run, no more than the store takes at once. The same again changes nothing. Raises RefusedError, GoneError."""
        metrics = [entities.Metric(*item) for item in items if isinstance(item, Metric)]
        params = [entities.Param(*item) for item in items if isinstance(item, Param)]
        tags = [entities.RunTag(*item) for item in items if isinstance(item, Tag)]
        self.ask("log_batch", run, metrics, params, tags)

    def resume(self, run: str) -> None:
        """A run goes on."""
        self.ask("update_run", run, status="RUNNING")

    def end(self, run: str, status: str, milliseconds: int) -> None:
        """A run ends."""
        self.ask("set_terminated", run, status=status, end_time=milliseconds)

    def upload(self, run: str, path: Path, folder: str) -> None:
        """Stores a copy of a file, or of a folder's content."""
        self.ask("log_artifacts" if path.is_dir() else "log_artifact", run, str(path), folder or None)

    def is_deleted(self, run: str) -> bool:
        """Whether somebody put the run into MLflow's bin."""
        return bool(self.ask("get_run", run).info.lifecycle_stage == "deleted")

    def _inherited(self) -> tuple[str, str] | None:
        """Experiment and run that this process was started in: a run inside a run of somebody else's experiment belongs there."""
        if not self.location.parent:
            return None
        return str(self.ask("get_run", self.location.parent).info.experiment_id), self.location.parent

    def _open_experiment(self, name: str, artefacts: str | None) -> str:
        known = self.ask("get_experiment_by_name", name)
        if known is None:
            try:
                return self._named(self.ask("create_experiment", name, artifact_location=artefacts))
            except RefusedError:  # another machine was faster: then it is there now
                known = self.ask("get_experiment_by_name", name)
                if known is None:
                    raise
        return self._named(known.experiment_id)

    def _named(self, identity: object) -> str:
        """An id, which MLflow's client leaves empty where the answer had none. Raises ServiceUnavailableError."""
        if not identity:
            raise ServiceUnavailableError(f"what answers at {self.location.public} names nothing that it made: it is not MLflow")
        return str(identity)

    def _ask(self, call: Callable[[], T]) -> T:
        for pause in (*PAUSES, None):
            try:
                return call()
            except ERRORS as error:
                if pause is None or "locked" not in str(error):
                    raise explain(error, self.location) from error
            time.sleep(pause * random.uniform(0.5, 1.5))
        raise AssertionError("the last attempt returns or raises")


def explain(error: Exception, location: Location) -> TtsError:
    """The error in our terms, by what a person can do about it."""
    said = str(getattr(error, "message", "") or error).replace(location.uri, location.public)
    text = redact(" ".join(said.split("[SQL:")[0].split()))
    where, code = location.public, getattr(error, "error_code", "")
    for sign, remedy in (
        ("disk is full", "free space or choose another --tracking.uri"),
        ("readonly database", "make it writable or choose another --tracking.uri"),
        ("unable to open", "choose another --tracking.uri"),
    ):
        if sign in text:
            return CannotWriteError(f"MLflow's store {where}: {sign}; {remedy}")
    if "out-of-date database schema" in text:
        return DataError(f"MLflow's store {where} was written by another version: run `mlflow db upgrade`, or choose another --tracking.uri")
    if code == GONE:
        return GoneError(f"MLflow at {where}: {text[:300]}")
    # What a proxy answers in MLflow's place is no JSON of MLflow's, and no word on what was sent.
    if code in REFUSALS and (code != "BAD_REQUEST" or isinstance(error, RestException)):
        return RefusedError(f"MLflow at {where} refused: {text[:300]}")
    if code in FORBIDDEN:
        return UsageError(f"MLflow at {where} lets us in for nothing: {text[:300]}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    return ServiceUnavailableError(f"MLflow at {where} is out of reach: {_gist(text)}; start it, or set --tracking.backend jsonl")


def _gist(text: str) -> str:
    """What the system said, out of the layers of messages that Python's HTTP libraries put around it."""
    if "timed out" in text or "timeout" in text.lower():
        return "it does not answer in time"
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text) or re.search(r"(Connection aborted)", text)
    return found[1] if found else text[:300]


@contextmanager
def _creating(database: Path | None) -> Iterator[None]:
    """One process at a time creates the schema: together they fail."""
    if database is None:
        yield
        return
    prepare_folder(database.parent)
    with database.with_name(f".{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _share(database: Path) -> None:
    """Write-ahead logging: readers and a writer at the same time. The file remembers it."""
    with closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
