"""Runs as lines of JSON in one file: for machines where MLflow is not wanted."""

import fcntl
import hashlib
import json
import logging
import math
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tts.errors import CannotWriteError, DataError
from tts.storage import prepare_folder
from tts.tracking.protocol import AlwaysDelivered, Champion, Registration, Run, ending, judge, split

logger = logging.getLogger(__name__)


class _Run:
    def __init__(self, tracker: "JsonLinesTracker", run_id: str) -> None:
        self._tracker, self.id = tracker, run_id
        self._non_finite: dict[str, int] = {}

    def params(self, values: Mapping[str, object]) -> None:
        """A line."""
        self._tracker.write({"run": self.id, "kind": "params", "values": {name: str(value) for name, value in values.items()}})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """A line with the finite ones; the others as a line of tags."""
        finite, others = split(values)
        if finite:
            self._tracker.write({"run": self.id, "kind": "metrics", "step": step, "values": finite})
        for name in others:
            self._non_finite[name] = self._non_finite.get(name, 0) + 1
        if others:
            self.tags({f"non_finite.{name}": str(self._non_finite[name]) for name in others})

    def artefact(self, path: Path, folder: str = "") -> None:
        """A line with the path: the file itself stays where it is."""
        self._tracker.write({"run": self.id, "kind": "artefact", "path": str(path.resolve()), "folder": folder})

    def tags(self, values: Mapping[str, str]) -> None:
        """A line."""
        self._tracker.write({"run": self.id, "kind": "tags", "values": dict(values)})


class JsonLinesTracker(AlwaysDelivered):
    """Appends to one file; several processes may share it."""

    def __init__(self, path: Path) -> None:
        prepare_folder(path.parent)
        self._path = path

    def write(self, line: Mapping[str, Any]) -> None:
        """Appends one line under a lock. Raises CannotWriteError."""
        with self._locked():
            self._append(line)

    @contextmanager
    def run(self, name: str, *, parent: str | None = None, run_id: str | None = None, anew: bool = False) -> Iterator[Run]:
        """A run: a line at its start and one at its end."""
        identity = run_id or secrets.token_hex(16)
        self.write({"run": identity, "kind": "start", "name": name, "parent": parent or None, "continued": run_id is not None})
        with ending(lambda status: self.write({"run": identity, "kind": "end", "status": status})):
            yield _Run(self, identity)

    def register(
        self, files: Path, *, name: str, run_id: str, metrics: Mapping[str, float], compare: str, fingerprint: str, passed: bool
    ) -> Registration:
        """A line; version and champion follow from the lines before it."""
        finite, _ = split(metrics)
        with self._locked():
            known = [line for line in self._read() if line["kind"] == "register" and line["name"] == name]
            digest = content_hash(files)
            same = next((line for line in known if line["files"] == digest), None)
            version = same["version"] if same else len({line["version"] for line in known}) + 1
            crowned = next((line for line in reversed(known) if line["champion"]), None)
            champion = Champion(crowned["version"], crowned["metrics"].get(compare, math.nan), crowned["fingerprint"]) if crowned else None
            best, reason = judge(
                finite.get(compare, math.nan), version=version, compare=compare, fingerprint=fingerprint, passed=passed, champion=champion
            )
            line = {"run": run_id, "kind": "register", "name": name, "version": version, "champion": best, "reason": reason}
            judged = {"metrics": finite, "compare": compare, "fingerprint": fingerprint, "passed": passed}
            self._append({**line, **judged, "path": str(files.resolve()), "files": digest})
        return Registration(name, version, best, reason)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            lock = self._path.with_name(f".{self._path.name}.lock").open("w")
        except OSError as error:
            raise CannotWriteError(f"cannot write {self._path}: {error.strerror}; choose another --tracking.uri") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            with self._path.open("a+b") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read() != b"\n":  # a process was killed, or the disk full, in the middle of a line: it ends here
                        file.write(b"\n")
                file.write(json.dumps({**line, "time": round(time.time(), 3)}, ensure_ascii=False).encode() + b"\n")
        except OSError as error:
            raise CannotWriteError(f"cannot write {self._path}: {error.strerror}; choose another --tracking.uri") from error

    def _read(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        lines = [line for line in self._path.read_bytes().split(b"\n") if line.strip()]
        parsed = [_parse(line) for line in lines]
        if lines and not any(parsed):
            raise DataError(f"{self._path} does not hold JSON lines; remove it or choose another --tracking.uri")
        for line, record in zip(lines, parsed, strict=True):
            if record is None:
                logger.warning("%s: a line was torn as it was written, and is left out: %d bytes", self._path, len(line))
        return [record for record in parsed if record is not None]


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record; None for a line that is torn: no beginning of a record is one itself."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "kind" in record else None


def content_hash(path: Path) -> str:
    """sha256 of a file, or of the names and bytes of a folder's files."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0" if path.is_dir() else b"")
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
