"""The study's database: SQLite in the study's folder, or PostgreSQL or MySQL by URL.

SQLite runs in WAL mode: readers do not block the writer. A writer waits up to BUSY_SECONDS for its turn. The schema is created under a lock:
processes that all call Optuna's `create_study` on a fresh database kill each other (15 of 16 died with `table studies already exists`, Optuna 5.0).
"""

import sqlite3
from pathlib import Path

import sqlalchemy
from optuna.storages._rdb import models
from sqlalchemy import Engine

from tts.errors import DataError
from tts.tuning.database.address import public, sqlite_file, storage_url
from tts.tuning.database.engine import BUSY_SECONDS, make_engine
from tts.tuning.database.failure import LeaseLostError, reaching
from tts.tuning.database.lock import is_locked, locked, schema_lock
from tts.tuning.database.retry import OPENING_SECONDS, persistently
from tts.tuning.database.study_storage import StudyStorage

__all__ = ["LeaseLostError", "create_tables", "is_locked", "locked", "open_storage", "public", "reaching", "sqlite_file", "storage_url"]

_SQLITE_MAGIC = b"SQLite format 3\0"
_VERSION = sqlalchemy.table("alembic_version", sqlalchemy.column("version_num"))


def create_tables(url: str) -> None:
    """Creates the schema where it is missing; any number of processes may do so at once.

    Raises:
        UsageError: No such database, or not with this user and password.
        DataError: It is another program's.
        CannotWriteError, ServiceUnavailableError: The database.
    """
    persistently(lambda: _create_tables(url), url=url, seconds=OPENING_SECONDS)


def open_storage(url: str) -> StudyStorage:
    """A connection to a database whose tables exist; one to a process, never forked. Waits up to OPENING_SECONDS for the database.

    Raises:
        UsageError: No such database, or not with this user and password.
        DataError: It has no studies, or is another program's or a newer Optuna's.
        CannotWriteError, ServiceUnavailableError: The database.
    """
    file = sqlite_file(url)
    if file and not file.exists():
        raise DataError(f"study database {file} does not exist; create the study with `tts tune`")
    if file:
        _refuse_foreign(file)
    return persistently(lambda: StudyStorage(url), url=url, seconds=OPENING_SECONDS)


def _create_tables(url: str) -> None:
    file = sqlite_file(url)
    if file:
        _refuse_foreign(file)
        file.parent.mkdir(parents=True, exist_ok=True)
    engine = make_engine(url)
    try:
        _is_complete(engine, url)  # before anything is written: another program's database stays as it is
        with schema_lock(url):
            if file:
                connection = sqlite3.connect(file, timeout=BUSY_SECONDS)
                connection.execute("PRAGMA journal_mode=WAL")  # stays with the file
                connection.close()
            if _is_complete(engine, url):
                return
            models.BaseModel.metadata.create_all(engine)
            StudyStorage(url).engine.dispose()  # notes Optuna's version of the schema
    finally:
        engine.dispose()


def _is_complete(engine: Engine, url: str) -> bool:
    """Whether the schema is there. Raises DataError for a database of another program: its table alembic_version would be taken for Optuna's."""
    tables, ours = set(sqlalchemy.inspect(engine).get_table_names()), set(models.BaseModel.metadata.tables)
    if tables and not tables & ours:
        raise DataError(f"study database {public(url)} is another program's (it has the tables {', '.join(sorted(tables)[:5])}); choose another")
    if not tables >= ours | {_VERSION.name}:
        return False
    with engine.connect() as connection:
        return connection.execute(_VERSION.select()).first() is not None


def _refuse_foreign(file: Path) -> None:
    if file.is_dir():
        raise DataError(f"study database {file} is a folder; choose another name")
    if file.exists() and file.stat().st_size:
        with file.open("rb") as opened:
            if opened.read(len(_SQLITE_MAGIC)) != _SQLITE_MAGIC:
                raise DataError(f"study database {file} is not a SQLite database; choose another file, or move this one away")
