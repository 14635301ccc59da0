"""Which MLflow store a process records in, known without asking it: its address, its experiment, and the folder of its spool."""

import hashlib
import os
import re
from dataclasses import dataclass, field
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
HIDDEN_VALUE, HIDDEN_QUERY = "=...", "?..."
"""The same for the value of an option that may be a secret, and for all that follows a web address."""
HARMLESS = (
    "host port hostaddr dbname database service options unix_socket sslmode sslrootcert sslcert sslkey ssl_ca ssl_cert ssl_key passfile "
    "connect_timeout application_name target_session_attrs charset timeout"
)
"""Options of databases whose values tell no secret, and with `host` or `dbname` which database it is: they are shown and kept."""
SQLITE_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True)
class Location:
    """A store. `uri` may carry a password and is shown nowhere, not even by `repr`; `public` is for messages and files."""

    folder: Path
    """Of the results: the spool lies here, and the store itself where `uri` is empty."""
    given: str = field(repr=False)
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
        refuse_password(config.uri)
        return Location(folder.absolute(), given_uri(config), config.experiment, os.environ.pop("MLFLOW_RUN_ID", "")).checked()

    def checked(self) -> "Location":
        """Itself. Raises UsageError (no store's address), DataError (the file there is no database); asks nobody."""
        if not self.uri.startswith(SCHEMES) or not re.match(r"[\w+]+://", self.uri):
            begin = re.split(r"[:/?@\s]", self.uri)[0]  # no more: it may be a password
            raise UsageError(f"tracking.uri must begin with one of {', '.join(SCHEMES)}, got one that begins with {begin!r}")
        if not self.uri.startswith("sqlite:") and re.search(r"\s", self.uri):
            raise UsageError("tracking.uri must have no spaces (it is not shown here: it may hold a password); write one in a password as %20")
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
        """The address without the secrets that it may carry."""
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


def given_uri(config: TrackingConfig) -> str:
    """The store's address, which may carry a password; the environment's stands in for an empty `uri`. Empty: a store beside the results."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI", "")


def refuse_password(uri: str) -> None:
    """Raises UsageError for an address that carries a password, or an option that may be one: it would be kept beside the results."""
    if not uri.startswith("sqlite:"):
        uri = "".join("%20" if letter.isspace() else letter for letter in uri)  # what follows a space must not escape `redact`
    if redact(uri) != uri:
        raise UsageError(
            f"tracking.uri {redact(uri)!r} carries a password or an option that may be one, which would be kept in the files of the results; give "
            "the whole address in the environment's MLFLOW_TRACKING_URI, or a server's password alone in MLFLOW_TRACKING_PASSWORD (with "
            "MLFLOW_TRACKING_USERNAME) or its token in MLFLOW_TRACKING_TOKEN"
        )


def redact(text: str) -> str:
    """A URI, or a text with some, without users, passwords, and the values of options that may be secrets. Again, it changes nothing."""
    if not text.startswith("sqlite:"):  # a file, whose folders may have an @ in their names
        text = re.sub(r"(?<!/)(?<!sqlite:)//(\S*)@(\S*)", _without_credentials, text)
    text = re.sub(r"(https?://[^\s?#]*)[?#]\S*", rf"\1{HIDDEN_QUERY}", text)
    return re.sub(r"([?&])([^\s=&?]*)(=?)([^\s&]*)", _without_secret, text)


def keeps_secret(uri: str) -> bool:
    """Whether something was hidden in a URI that was redacted."""
    return any(sign in uri for sign in (HIDDEN, HIDDEN_VALUE, HIDDEN_QUERY))


def _without_credentials(found: re.Match[str]) -> str:
    # With a question mark before the last @ either may be part of a password: then nothing is shown.
    return f"{HIDDEN}..." if "?" in found[1] else HIDDEN + found[2]


def _without_secret(found: re.Match[str]) -> str:
    separator, name, equals, value = found.groups()
    if not name or not equals or (name.lower() in HARMLESS.split() and re.fullmatch(r"[\w./:,%+-]*", value)):
        return found[0]
    return f"{separator}{name}{HIDDEN_VALUE}"
