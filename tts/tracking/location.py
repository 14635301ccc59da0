"""Which MLflow store a process records in, known without asking it: its address, its experiment, and the folder of its spool."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from tts.config import TrackingConfig
from tts.errors import DataError, UsageError

SCHEMES = ("sqlite:///", "http://", "https://", "postgresql", "mysql")
SPOOL = ".spool"
"""In a folder of results: what was recorded, one folder to a store, one file to a run."""
BESIDE = "beside"
"""Name of the store that lies in the folder of results itself: it stays the same where that folder is moved."""
HIDDEN = "//...@"
"""What stands in a shown URI for the user and password."""
SQLITE_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True)
class Location:
    """A store. `uri` may carry a password and is shown nowhere; `public` is for messages and files."""

    folder: Path
    """Of the results: the spool lies here, and the store itself where `uri` is empty."""
    given: str
    """The URI as it was given; empty: a database in `folder`."""
    experiment: str
    parent: str = ""
    """MLflow's id of the run that this process was started in, if any."""

    @staticmethod
    def of(config: TrackingConfig, folder: Path) -> "Location":
        """The store that the configuration asks for; the environment's MLFLOW_TRACKING_URI stands in for an empty `uri`.

        Takes MLFLOW_RUN_ID out of the environment: left there, MLflow would silently go on with the run that holds it.
        Raises UsageError for an address that is no store's or that would leave a password in configuration files.
        """
        if redact(config.uri) != config.uri:
            raise UsageError(
                f"tracking.uri {redact(config.uri)!r} carries a password, which would be kept in the files of the results; give the whole address in "
                "the environment's MLFLOW_TRACKING_URI, or the password alone in MLFLOW_TRACKING_PASSWORD (with MLFLOW_TRACKING_USERNAME)"
            )
        given = config.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        return Location(folder.absolute(), given, config.experiment, os.environ.pop("MLFLOW_RUN_ID", "")).checked()

    def checked(self) -> "Location":
        """Itself. Raises UsageError (no store's address), DataError (the file there is no database); asks nobody."""
        if not self.uri.startswith(SCHEMES):
            raise UsageError(f"tracking.uri must begin with one of {', '.join(SCHEMES)}, got {self.public!r}")
        file = self.database
        if file and file.is_file() and file.stat().st_size:
            with file.open("rb") as content:
                if content.read(len(SQLITE_MAGIC)) != SQLITE_MAGIC:
                    raise DataError(f"{file} is not a SQLite database; move it away or choose another --tracking.uri")
        return self

    @property
    def uri(self) -> str:
        """The address for MLflow."""
        return self.given or f"sqlite:///{self.folder}/mlflow.db"

    @property
    def public(self) -> str:
        """The address without the password that it may carry."""
        return redact(self.uri)

    @property
    def database(self) -> Path | None:
        """The SQLite file, if it is one."""
        return Path(self.uri.removeprefix("sqlite:///").split("?")[0]).absolute() if self.uri.startswith("sqlite:") else None

    @property
    def remote(self) -> bool:
        """Whether it is a server, asked over HTTP."""
        return self.uri.startswith("http")

    @property
    def name(self) -> str:
        """The same for every process that records there, for one store and experiment; tells nothing of a password."""
        if not self.given:
            return BESIDE
        return hashlib.sha256(f"{redact(self.given)}\n{self.experiment}".encode()).hexdigest()[:12]

    @property
    def spool(self) -> Path:
        """The folder in which runs are kept until the store has them."""
        return self.folder / SPOOL / self.name


def redact(uri: str) -> str:
    """The URI without the user and password that it may carry."""
    return re.sub(r"//[^/]*@", HIDDEN, uri)
