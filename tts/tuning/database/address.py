"""URLs of study databases: which are taken, and how they are shown."""

import os
from functools import lru_cache
from pathlib import Path

import sqlalchemy
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from tts.errors import UsageError

STORAGE_VARIABLE = "TTS_STORAGE"
"""Environment variable that stands in for --storage: a password in an argument can be read by every user of the machine."""
BACKENDS = ("sqlite", "postgresql", "mysql", "mariadb")
_EXAMPLES = "such as sqlite:///study.db or postgresql://user@host/database"


def storage_url(folder: Path, storage: str | None) -> str:
    """The given URL with its driver, or SQLite in the study's folder. Raises UsageError for what is no URL of a database that we take."""
    return f"sqlite:///{folder.resolve() / 'study.db'}" if storage is None else canonical(storage)


def given_storage(storage: str | None) -> str | None:
    """The URL that was given as an argument, else by the environment."""
    return storage or os.environ.get(STORAGE_VARIABLE) or None


def canonical(url: str) -> str:
    """The URL with its driver: one database, one text. Raises UsageError."""
    return parsed(url).render_as_string(hide_password=False)


@lru_cache(maxsize=16)
def parsed(url: str) -> URL:
    """The URL, PostgreSQL's with psycopg 3 as driver. Raises UsageError; its text shows nothing of the URL, which may hold a password."""
    try:
        found = make_url(url)
        if found.drivername in ("postgres", "postgresql"):  # hosters write the first, SQLAlchemy takes the second for psycopg 2
            found = found.set(drivername="postgresql+psycopg")
        backend = found.get_backend_name()
        found.get_dialect()
    except ModuleNotFoundError as error:
        raise UsageError(f"the driver {error.name} of the study database is not installed; install it, or use SQLite or PostgreSQL") from None
    except (ArgumentError, sqlalchemy.exc.NoSuchModuleError, ValueError):
        raise UsageError(f"storage must be a database URL {_EXAMPLES}") from None
    if backend not in BACKENDS:
        raise UsageError(f"storage must be a SQLite, PostgreSQL or MySQL database {_EXAMPLES}, got {backend}")
    if backend == "sqlite" and found.database in (None, "", ":memory:"):
        raise UsageError("storage must be a file that worker processes share, got a SQLite database in memory")
    if backend != "sqlite" and url.count("@") > 1:
        # Part of the password would be taken for the host, the database or an option, and shown.
        raise UsageError("storage must be a database URL with one @; percent-encode user and password: %40 for @, %2F for /, %3F for ?, %3A for :")
    return found


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database; None for another kind."""
    found = parsed(url)
    return Path(str(found.database)) if found.get_backend_name() == "sqlite" else None


def public(url: str) -> str:
    """The URL without its password, and without its options: one of them may be another."""
    return parsed(url).set(query={}).render_as_string(hide_password=True)
