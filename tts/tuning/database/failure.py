"""What databases say when they fail: which failures pass by themselves, and the exit code and sentence of the others.

A server's answer carries a SQLSTATE (PostgreSQL 16, appendix A); a connection that was never made carries none, only libpq's English words
and the server's. MySQL numbers its errors, SQLite names them.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tts.errors import CannotWriteError, DataError, ServiceUnavailableError, TakenOverError, TtsError, UsageError
from tts.tuning.database.address import public

_PASSING = ("08", "25P03", "40001", "40P01", "53300", "55P03", "57P01", "57P02", "57P03")
"""Connection lost, transaction that rested too long, serialisation, deadlock, too many connections, lock not available, server shut down, crashed,
starting up."""
_REFUSED = ("28", "3D000", "08004")
_UNWRITABLE = ("25006", "42501", "53100", "54")
_FOREIGN = ("42P01", "42703", "3F000", "42883")
_PASSING_MYSQL = (1040, 1158, 1159, 1160, 1161, 1205, 1213, 2002, 2003, 2006, 2013, 2055)
_PASSING_SQLITE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
"""The last: processes that open the write-ahead log at once got into each other's way too often."""
_REFUSED_MYSQL = (1044, 1045, 1049)
_UNWRITABLE_MYSQL = (1021, 1036, 1114, 1142, 1290)
_REFUSED_WORDS = (
    "authentication failed", "no password supplied", "no pg_hba.conf entry", "does not exist", "invalid connection option",
    "does not support SSL", "invalid port", "invalid sslmode", "certificate",
)  # fmt: skip
_UNWRITABLE_WORDS = ("readonly database", "disk is full", "unable to open database file", "disk I/O error", "attempt to write")
_FOREIGN_WORDS = ("not a database", "malformed", "no such table", "no such column", "has no column")


class LeaseLostError(TakenOverError):
    """The trial was given to another attempt: this one may write nothing more about it."""

    def __init__(self, trial_id: int, lease: str) -> None:
        super().__init__(f"trial with id {trial_id} is no longer this attempt's ({lease}): it was taken back, given on or finished")


def passes(error: BaseException) -> bool:
    """Whether the same operation may succeed in a while: locked, busy, serialisation, deadlock, out of connections, connection lost."""
    if isinstance(error, PoolTimeoutError):
        return True
    if not isinstance(error, SQLAlchemyError | StorageInternalError | sqlite3.Error) or _says(error, _REFUSED, _REFUSED_MYSQL, _REFUSED_WORDS):
        return False
    root = _root(error)
    if isinstance(root, sqlite3.Error):
        return getattr(root, "sqlite_errorcode", 0) & 0xFF in _PASSING_SQLITE
    if _sqlstate(root) is not None or _number(root) is not None:
        return _says(error, _PASSING, _PASSING_MYSQL, ())
    # Without a SQLSTATE the server has not answered: the connection could not be made, or broke.
    return any(isinstance(link, OperationalError) or (isinstance(link, DBAPIError) and link.connection_invalidated) for link in _chain(error))


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turns the database's errors into ours, without its password."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, sqlite3.Error) as error:
        raise _ours(error, public(url)) from error
    except RuntimeError as error:
        if "optuna" not in str(error):
            raise
        which = "a newer version" if "pip install -U optuna" in str(error) else "an older version (`optuna storage upgrade` brings it up to date)"
        raise DataError(f"study database {public(url)} was made by {which} of Optuna than {optuna.__version__}; choose another") from error


def _ours(error: BaseException, where: str) -> TtsError:
    reason = words(error)
    if _says(error, _UNWRITABLE, _UNWRITABLE_MYSQL, _UNWRITABLE_WORDS):
        return CannotWriteError(f"study database {where}: {reason}; choose one that can be written to and has room")
    if _says(error, _FOREIGN, (1146, 1054), _FOREIGN_WORDS):
        return DataError(f"study database {where}: {reason}; it is damaged or not Optuna's; choose another")
    if _says(error, _REFUSED, _REFUSED_MYSQL, _REFUSED_WORDS):
        return UsageError(f"study database {where}: {reason}; check user, password and database of --storage")
    return ServiceUnavailableError(f"study database {where}: {reason}; check that it runs and is reachable, then run the same command again")


def words(error: BaseException) -> str:
    """The database's own words: SQLAlchemy's repeat the statement and its parameters."""
    root = _root(error)
    return " ".join(str(root).split()) or type(root).__name__


def _says(error: BaseException, states: tuple[str, ...], numbers: tuple[int, ...], texts: tuple[str, ...]) -> bool:
    root = _root(error)
    state = _sqlstate(root)
    if state is not None:
        return state.startswith(states)
    number = _number(root)
    if number is not None:
        return number in numbers
    return any(text in str(root) for text in texts)


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = getattr(link, "orig", None) or link.__cause__


def _root(error: BaseException) -> BaseException:
    *_, root = _chain(error)
    return root


def _sqlstate(root: BaseException) -> str | None:
    state = getattr(root, "sqlstate", None)
    return state if isinstance(state, str) else None


def _number(root: BaseException) -> int | None:
    """MySQL's drivers give the number first."""
    return root.args[0] if not isinstance(root, sqlite3.Error) and root.args and isinstance(root.args[0], int) else None
