"""A PostgreSQL server of our own, from the binaries in the wheel pgserver: over TCP, with a user that needs its password."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psycopg

USER, PASSWORD = "tuner", "s3cret%/@pass"
"""The password needs escapes in a URL."""


class PostgresServer:
    """Data in a folder below the system's temporary one; PostgreSQL refuses to run as root, then it runs as nobody."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = _free_port()
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._bin = self._binaries()
        self._databases = 0
        folder.chmod(0o755)
        self.data.mkdir()
        if self._account:
            os.chown(self.data, self._account.pw_uid, self._account.pw_gid)
        self.admin = secrets.token_hex()
        password = folder / "password"
        password.write_text(self.admin + "\n")
        password.chmod(0o644)
        self._run("initdb", "--username=postgres", f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync", "--locale=C")
        password.unlink()
        self.start()
        # "createdb" would ask for the password at a terminal; LOGIN alone: an ordinary user
        self.ask(psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(psycopg.sql.Identifier(USER), psycopg.sql.Literal(PASSWORD)))

    def start(self) -> None:
        """Starts the server, on the same port each time."""
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories= -c timezone=Asia/Kathmandu -c max_connections=200"
        self._run("pg_ctl", "start", "--wait", f"--log={self.data / 'log'}", f"--options={options}")

    def stop(self, mode: str = "fast") -> None:
        """Stops it: `fast` breaks all connections, `immediate` is a crash."""
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def restart(self, mode: str = "fast") -> None:
        """Stops and starts it."""
        self.stop(mode)
        self.start()

    def database(self, *, owner: str = USER) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"study{self._databases}"
        self.ask(psycopg.sql.SQL("CREATE DATABASE {} OWNER {}").format(psycopg.sql.Identifier(name), psycopg.sql.Identifier(owner)))
        return self.url(name)

    def url(self, database: str, *, user: str = USER, password: str = PASSWORD) -> str:
        """How a user reaches a database."""
        from urllib.parse import quote

        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def ask(self, statement: "psycopg.sql.SQL | psycopg.sql.Composed | str", database: str = "postgres") -> list[tuple]:
        """What the superuser gets for a statement."""
        with psycopg.connect(host="127.0.0.1", port=self.port, dbname=database, user="postgres", password=self.admin, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _binaries(self) -> Path:
        package = find_spec("pgserver")  # not imported: it warns where the user has no folder for sockets, which we do not use
        if package is None or package.origin is None:
            raise ModuleNotFoundError("pgserver is not installed: run make setup")
        found = Path(package.origin).parent / "pginstall"
        with suppress(PermissionError):
            subprocess.run([found / "bin" / "postgres", "--version"], check=True, stdout=subprocess.DEVNULL, **self._as())
            return found / "bin"
        # An environment below a closed home folder
        shutil.copytree(found, self.folder / "pginstall")
        shutil.copytree(found.parent.parent / "pgserver.libs", self.folder / "pgserver.libs")
        return self.folder / "pginstall" / "bin"

    def _as(self) -> dict:
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []} if self._account else {}

    def _run(self, program: str, *arguments: str) -> None:
        # Not captured by pipes: the server would keep them open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [self._bin / program, f"--pgdata={self.data}", *arguments],
                stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.folder, check=False, **self._as(),
            )  # fmt: skip
            output.seek(0)
            log = self.data / "log"
            assert done.returncode == 0, f"{program}: {output.read().decode()}\n{log.read_text() if log.exists() else ''}"


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A running server, gone afterwards. Not below pytest's folder, which nobody else may enter."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    server = None
    try:
        server = PostgresServer(folder)
        yield server
    finally:
        if server is not None and (server.data / "postmaster.pid").exists():
            server.stop("immediate")
        shutil.rmtree(folder)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
