"""Locks that hold over processes, and over hosts where the database is a server.

SQLite: a lock on a file beside the database, which the kernel gives back when its holder dies. PostgreSQL: an advisory lock of a transaction,
which the server gives back when the connection breaks. It holds behind a pooler of transactions, too, but psycopg prepares what it sends often, so
that the pooler must know prepared statements (PgBouncer from 1.22, with its max_prepared_statements). MySQL: GET_LOCK.
"""

import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from tts.errors import ServiceUnavailableError
from tts.tuning.database.address import canonical, parsed, public, sqlite_file
from tts.tuning.database.engine import IDLE_SECONDS, make_engine
from tts.tuning.database.failure import reaching

logger = logging.getLogger(__name__)

LOCK_SECONDS = 120.0
"""How long a lock is waited for: its holders keep it for less than a second."""
_LOCK_TIMEOUT = "55P03"
_LIMITS = sqlalchemy.text("SELECT set_config('lock_timeout', :lock, true), set_config('idle_in_transaction_session_timeout', :idle, true)")
"""Of the transaction: behind a pooler what a connection was told may have been told to another."""
_engines: dict[tuple[int, str], Engine] = {}
_held = threading.local()


@contextmanager
def study_lock(url: str, name: str) -> Iterator[None]:
    """Holds the study's lock: creating it, handing out its trials, taking them back and extending it happen one at a time.

    On PostgreSQL the lock is a transaction, and whatever this thread does through a StudyStorage of the same database in the block is part of it:
    all of it happens, or nothing, and nothing without the lock.

    Raises:
        ServiceUnavailableError: Others kept it for LOCK_SECONDS.
        sqlalchemy.exc.SQLAlchemyError: The database failed; `persistently` around the whole block tries again.
    """
    with _lock(canonical(url), f"study {name}", joined=True):
        yield


@contextmanager
def schema_lock(url: str) -> Iterator[None]:
    """Holds the lock under which a database's tables are made; one for all its studies. Raises as study_lock does."""
    with _lock(canonical(url), "schema", joined=False):
        yield


def holds(url: str) -> bool:
    """Whether this thread is inside a `study_lock` of this database."""
    return canonical(url) in getattr(_held, "urls", ())


def joined(url: str) -> Connection | None:
    """The connection whose transaction is the `study_lock` that this thread holds."""
    connections: dict[str, Connection] = getattr(_held, "connections", {})
    return connections.get(canonical(url))


def share(url: str, engine: Engine) -> None:
    """Lets locks of this process use the storage's own connections."""
    _engines[os.getpid(), canonical(url)] = engine


@contextmanager
def locked(path: Path, *, seconds: float | None = None) -> Iterator[None]:
    """Holds a file lock that the kernel gives back when its holder dies. Raises TimeoutError after `seconds`; None waits for ever."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        _acquire(file.fileno(), path, seconds)
        yield


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def _lock(url: str, what: str, *, joined: bool) -> Iterator[None]:
    urls: set[str] = _held.__dict__.setdefault("urls", set())
    if joined and url in urls:
        raise RuntimeError("a study's lock was asked for inside another: it would wait for itself")
    backend = parsed(url).get_backend_name()
    file = sqlite_file(url)
    if file is not None:
        taking = _beside(file, url, what)
    elif backend == "postgresql":
        taking = _advisory(url, what, joined=joined)
    else:
        taking = _named(url, what)
    with taking:
        if not joined:
            yield
            return
        urls.add(url)
        try:
            yield
        finally:
            urls.discard(url)


@contextmanager
def _beside(file: Path, url: str, what: str) -> Iterator[None]:
    name = hashlib.blake2b(what.encode(), digest_size=8).hexdigest()
    try:
        with locked(file.resolve().parent / ".locks" / f"{file.name}-{name}", seconds=LOCK_SECONDS):
            yield
    except TimeoutError:
        raise _kept(url, what) from None


@contextmanager
def _advisory(url: str, what: str, *, joined: bool) -> Iterator[None]:
    key = int.from_bytes(hashlib.blake2b(f"tts {what}".encode(), digest_size=8).digest(), "big", signed=True)
    with _connected(url) as connection, connection.begin():
        connection.execute(_LIMITS, {"lock": f"{LOCK_SECONDS:g}s", "idle": f"{IDLE_SECONDS:g}s"})
        try:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) == _LOCK_TIMEOUT:
                raise _kept(url, what) from error
            raise
        if not joined:
            yield
            return
        connections: dict[str, Connection] = _held.__dict__.setdefault("connections", {})
        connections[url] = connection
        try:
            yield
        finally:
            del connections[url]


@contextmanager
def _named(url: str, what: str) -> Iterator[None]:
    name = hashlib.blake2b(f"{parsed(url).database} {what}".encode(), digest_size=24).hexdigest()
    with _connected(url) as connection:
        taken = connection.execute(sqlalchemy.text("SELECT GET_LOCK(:name, :seconds)"), {"name": name, "seconds": LOCK_SECONDS}).scalar()
        if taken != 1:
            raise _kept(url, what)
        try:
            yield
        finally:
            connection.execute(sqlalchemy.text("SELECT RELEASE_LOCK(:name)"), {"name": name})


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    engine = _engines.get((os.getpid(), url))
    if engine is not None:
        with engine.connect() as connection:
            yield connection
        return
    with reaching(url):
        engine = make_engine(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _kept(url: str, what: str) -> ServiceUnavailableError:
    return ServiceUnavailableError(f"study database {public(url)}: another process has kept the lock of its {what} for {LOCK_SECONDS:.0f} s; end it")


def _acquire(descriptor: int, path: Path, seconds: float | None) -> None:
    if seconds is None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    end = time.monotonic() + seconds
    wait = 0.001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise TimeoutError(f"{path} is held by another process") from None
            time.sleep(wait)
            wait = min(2 * wait, 0.02)
        else:
            return
