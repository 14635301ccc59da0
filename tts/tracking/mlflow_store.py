"""Runs in MLflow, through its client and without its global active run, so that processes and threads do not get into each other's way."""

import fcntl
import logging
import os
import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from tts.errors import CannotWriteError, DataError, ServiceUnavailableError, TtsError, UsageError
from tts.storage import prepare_folder
from tts.tracking.json_lines import content_hash
from tts.tracking.protocol import CHAMPION, Champion, Registration, Run, ending, judge, split

logger = logging.getLogger(__name__)

T = TypeVar("T")
SCHEMES = ("sqlite:///", "http://", "https://", "postgresql", "mysql")
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds between attempts while a SQLite file is locked; HTTP is retried by MLflow itself."""
PARENT = "mlflow.parentRunId"
USER_ERRORS = (
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "INVALID_STATE",
)
BATCH = 100
"""Parameters or tags that MLflow takes at once."""


class _Run:
    def __init__(self, tracker: "MlflowTracker", run_id: str) -> None:
        self._tracker, self.id = tracker, run_id
        self._non_finite: dict[str, int] = {}

    def params(self, values: Mapping[str, object]) -> None:
        """Sends those that the run does not have yet."""
        known = self._tracker.ask("get_run", self.id).data.params
        texts = {name: str(value) for name, value in values.items()}
        changed = {f"changed.{name}": text for name, text in texts.items() if known.get(name, text) != text}
        self._tracker.log_params(self.id, {name: text for name, text in texts.items() if name not in known})
        self.tags(changed)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Sends the finite ones in one batch."""
        finite, others = split(values)
        self._tracker.log_metrics(self.id, finite, step)
        for name in others:
            self._non_finite[name] = self._non_finite.get(name, 0) + 1
        self.tags({f"non_finite.{name}": str(self._non_finite[name]) for name in others})

    def artefact(self, path: Path, folder: str = "") -> None:
        """Copies a file or a folder's content into the artefact store."""
        self._tracker.ask("log_artifacts" if path.is_dir() else "log_artifact", self.id, str(path), folder or None)

    def tags(self, values: Mapping[str, str]) -> None:
        """Sets tags."""
        self._tracker.log_tags(self.id, values)


class MlflowTracker:
    """MLflow at `uri`. A SQLite file is created once, under a lock, in WAL mode; its artefacts lie beside it."""

    def __init__(self, uri: str, experiment: str, folder: Path) -> None:
        if not uri.startswith(SCHEMES):
            raise UsageError(f"tracking.uri must begin with one of {', '.join(SCHEMES)}, got {redact(uri)!r}")
        self._uri = uri
        self._parent = os.environ.pop("MLFLOW_RUN_ID", None)  # left there, MLflow would silently go on with the run that holds it
        database = Path(uri.removeprefix("sqlite:///").split("?")[0]).absolute() if uri.startswith("sqlite:") else None
        remote = uri.startswith("http")
        artefacts = None if remote else (database.parent if database else folder.absolute()) / "mlflow-artefacts"
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # it logs tracebacks of errors that are raised, and explained, as well
        with _creating(database):
            store = f"sqlite:///{database}?timeout=60" if database else uri
            self._client = self._ask(lambda: MlflowClient(store, store))
            self._experiment = self._open_experiment(experiment, artefacts.as_uri() if artefacts else None)
            if database:
                _share(database)

    def ask(self, call: str, *arguments: Any, **named: Any) -> Any:
        """One call of the client. A locked database is tried again, a bounded number of times. Raises TtsError with the reason."""
        return self._ask(lambda: getattr(self._client, call)(*arguments, **named))

    def log_params(self, run_id: str, values: Mapping[str, str]) -> None:
        """Parameters, in as many batches as it takes."""
        entities = [Param(name, text) for name, text in values.items()]
        for start in range(0, len(entities), BATCH):
            self.ask("log_batch", run_id, params=entities[start : start + BATCH])

    def log_metrics(self, run_id: str, values: Mapping[str, float], step: int) -> None:
        """Metrics of one step."""
        now = int(time.time() * 1000)
        if values:
            self.ask("log_batch", run_id, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def log_tags(self, run_id: str, values: Mapping[str, str]) -> None:
        """Tags, in as many batches as it takes."""
        entities = [RunTag(name, text) for name, text in values.items()]
        for start in range(0, len(entities), BATCH):
            self.ask("log_batch", run_id, tags=entities[start : start + BATCH])

    @contextmanager
    def run(self, name: str, *, parent: str | None = None, run_id: str | None = None) -> Iterator[Run]:
        """A run; without `parent` it hangs below the run whose id was inherited in MLFLOW_RUN_ID, if there was one."""
        above = parent or self._parent
        if run_id:
            self.ask("update_run", run_id, status="RUNNING")
        else:
            run_id = self.ask("create_run", self._experiment, run_name=name, tags={PARENT: above} if above else None).info.run_id
        with ending(lambda status: self._end(run_id, status)):
            yield _Run(self, run_id)

    def register(
        self, files: Path, *, name: str, run_id: str, metrics: Mapping[str, float], compare: str, fingerprint: str, passed: bool
    ) -> Registration:
        """Copies the files into the run's artefacts (folder `model`) and registers them there."""
        finite, _ = split(metrics)
        version = self._version(files, name, run_id)
        tags = {**{f"metric.{key}": repr(value) for key, value in finite.items()}, "fingerprint": fingerprint, "passed": str(passed).lower()}
        for key, text in tags.items():
            self.ask("set_model_version_tag", name, str(version), key, text)
        champion = self._champion(name, compare)
        value = finite.get(compare, float("nan"))
        best, reason = judge(value, version=version, compare=compare, fingerprint=fingerprint, passed=passed, champion=champion)
        if best:
            self.ask("set_registered_model_alias", name, CHAMPION, str(version))
        self.ask("set_model_version_tag", name, str(version), "verdict", reason)
        return Registration(name, version, best, reason)

    def _version(self, files: Path, name: str, run_id: str) -> int:
        digest = content_hash(files)
        if not self.ask("search_registered_models", f"name = '{name}'"):
            self.ask("create_registered_model", name)
        for known in self.ask("search_model_versions", f"name = '{name}'"):
            if known.tags.get("files") == digest:
                return int(known.version)
        self.ask("log_artifacts" if files.is_dir() else "log_artifact", run_id, str(files), "model")
        source = f"{self.ask('get_run', run_id).info.artifact_uri}/model"
        return int(self.ask("create_model_version", name, source=source, run_id=run_id, tags={"files": digest}).version)

    def _champion(self, name: str, compare: str) -> Champion | None:
        number = self.ask("get_registered_model", name).aliases.get(CHAMPION)
        if number is None:
            return None
        tags = self.ask("get_model_version", name, str(number)).tags
        return Champion(int(number), float(tags.get(f"metric.{compare}", "nan")), tags.get("fingerprint", ""))

    def _open_experiment(self, name: str, artefacts: str | None) -> str:
        if self._parent:  # a run inside a run of somebody else's experiment belongs there
            return str(self.ask("get_run", self._parent).info.experiment_id)
        known = self.ask("get_experiment_by_name", name)
        if known is None:
            try:
                return str(self.ask("create_experiment", name, artifact_location=artefacts))
            except UsageError:  # another machine was faster: then it is there now
                known = self.ask("get_experiment_by_name", name)
                if known is None:
                    raise
        return str(known.experiment_id)

    def _end(self, run_id: str, status: str) -> None:
        try:
            self.ask("set_terminated", run_id, status=status)
        except TtsError as error:
            if status == "FINISHED":
                raise
            logger.warning("run %s could not be marked as %s: %s", run_id, status, error)  # the error that ended it matters more

    def _ask(self, call: Callable[[], T]) -> T:
        for pause in (*PAUSES, None):
            try:
                return call()
            except (MlflowException, SQLAlchemyError) as error:
                if pause is None or "locked" not in str(error):
                    raise _explain(error, self._uri) from error
            time.sleep(pause * random.uniform(0.5, 1.5))
        raise AssertionError("the last attempt returns or raises")


def redact(uri: str) -> str:
    """The URI without the password that it may carry."""
    return re.sub(r"//[^@/]*@", "//...@", uri)


def _explain(error: Exception, uri: str) -> TtsError:
    """The error in our terms, by what a person can do about it."""
    text = " ".join(str(getattr(error, "message", "") or error).split("[SQL:")[0].split())[:300]
    for sign, remedy in (
        ("disk is full", "free space or choose another --tracking.uri"),
        ("readonly database", "make it writable or choose another --tracking.uri"),
        ("unable to open", "choose another --tracking.uri"),
    ):
        if sign in text:
            return CannotWriteError(f"MLflow's store {redact(uri)}: {sign}; {remedy}")
    if "out-of-date database schema" in text:
        return DataError(f"MLflow's store {redact(uri)} was written by another version: run `mlflow db upgrade`, or choose another --tracking.uri")
    if getattr(error, "error_code", "") in USER_ERRORS:
        return UsageError(f"MLflow at {redact(uri)} refused: {text}")
    return ServiceUnavailableError(f"MLflow at {redact(uri)} is out of reach: {text}; start it, or set --tracking.backend jsonl")


@contextmanager
def _creating(database: Path | None) -> Iterator[None]:
    """One process at a time creates the schema: together they fail."""
    if database is None:
        yield
        return
    prepare_folder(database.parent)
    if database.exists() and database.stat().st_size and database.read_bytes()[:16] != b"SQLite format 3\0":
        raise DataError(f"{database} is not a SQLite database; move it away or choose another --tracking.uri")
    with database.with_name(f".{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _share(database: Path) -> None:
    """Write-ahead logging: readers and a writer at the same time. The file remembers it."""
    with sqlite3.connect(database, timeout=60) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
