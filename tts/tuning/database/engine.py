"""How connections to a study's database are made: few, checked before use, never waiting for ever.

A database server runs out of connections (PostgreSQL: 100 by default) long before it runs out of strength: a worker keeps one, and has a second
while two of its threads write. SQLite runs with synchronous=NORMAL, which together with WAL costs no fsync at a write (31 against 2.3
trials/s with Optuna's defaults, one worker, 2026); after a power cut the last trials may be missing, the database is whole.

A process that is stopped inside a transaction keeps its locks. PostgreSQL ends such a transaction after IDLE_SECONDS, whatever became of the
process or its host. SQLite's locks go with the process alone.
"""

import sqlite3
import time
from typing import Any

import sqlalchemy
from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError

from tts.errors import UsageError
from tts.tuning.database.address import parsed, public

BUSY_SECONDS = 60
"""How long a SQLite writer waits for its turn."""
CONNECT_SECONDS = 5
IDLE_SECONDS = 30.0
"""How long a transaction may rest before PostgreSQL ends it: ours take less than a second, and others wait for its locks (see LOCK_SECONDS)."""
FRESH_SECONDS = 1.0
"""A connection that was used less long ago is not asked again whether it lives."""
_KEEPALIVES = {"tcp_keepalives_idle": 20, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 3}
"""A dead peer is noticed within a minute, not after the two hours of the kernel's own setting; the server's side as ours."""


class Connection(sqlite3.Connection):
    """A connection that does not wait for the disk at every write: in WAL mode the database stays whole all the same."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA synchronous=NORMAL")


def checked(engine: Engine) -> Engine:
    """The engine, asking its server for an answer before a connection that has rested is used (SQLAlchemy's own pre-ping asks every time).

    PostgreSQL is told on each connection how long to wait for us. Not as an option of connecting: poolers refuse those.
    """
    if engine.dialect.name == "sqlite":
        return engine
    given = str(engine.url.query.get("options", ""))

    def returned(_: Any, record: Any) -> None:
        record.info["returned"] = time.monotonic()

    def taken(connection: Any, record: Any, _: Any) -> None:
        # Here and not at "connect": Optuna has connected before anyone can listen.
        if engine.dialect.name == "postgresql" and not record.info.get("limited"):
            _limit(connection, given)
            record.info["limited"] = True
            return
        if time.monotonic() - record.info.get("returned", time.monotonic()) < FRESH_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError(str(error)) from error  # SQLAlchemy connects anew

    event.listen(engine, "checkin", returned)
    event.listen(engine, "checkout", taken)
    return engine


def _limit(connection: Any, given: str) -> None:
    """Sets the session's limits, but for those that the URL's own options set."""
    limits = {"idle_in_transaction_session_timeout": f"{IDLE_SECONDS:g}s", **_KEEPALIVES}
    with connection.cursor() as cursor:
        cursor.execute(" ".join(f"SET {name} = '{value}';" for name, value in limits.items() if name not in given))
    connection.commit()


def make_engine(url: str) -> Engine:
    """An engine as the study's storage has it. Raises UsageError where the driver is missing."""
    return checked(sqlalchemy.create_engine(parsed(url), **engine_options(url)))


def engine_options(url: str) -> dict[str, Any]:
    """Keyword arguments of SQLAlchemy's create_engine. Raises UsageError where the driver that it would load is missing."""
    found = parsed(url)
    try:
        found.get_dialect().import_dbapi()
    except ImportError as error:
        raise UsageError(
            f"study database {public(url)}: the driver {error.name or found.get_driver_name()} is not installed; install it, or leave --storage out "
            "for SQLite"
        ) from error
    backend = found.get_backend_name()
    if backend == "sqlite":
        return {"connect_args": {"timeout": BUSY_SECONDS, "factory": Connection}}
    pool = {"pool_size": 1, "max_overflow": 1, "pool_recycle": 1800, "isolation_level": "READ COMMITTED"}
    if backend != "postgresql":
        return {**pool, "connect_args": {"connect_timeout": CONNECT_SECONDS}}
    ours = {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "tts",
        "keepalives": 1,
        **{name.removeprefix("tcp_"): value for name, value in _KEEPALIVES.items()},
        "tcp_user_timeout": 50_000,
    }
    return {**pool, "connect_args": {name: value for name, value in ours.items() if name not in found.query}}
