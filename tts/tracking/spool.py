"""What a run recorded, on disk, before any server hears of it: a file of JSON lines for each run.

Any number of processes append to a run's file, one system call to a record, so that a process killed at any moment tears its own last line at
worst. Each record begins with a newline of its own: a torn line before it ends there, and is skipped and counted by readers.
How far the file was delivered is kept beside it, by whoever delivers it.
"""

import fcntl
import json
import logging
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tts.errors import CannotWriteError
from tts.storage import reporting

logger = logging.getLogger(__name__)

WAIT_SECONDS = 0.05
"""Between looks at a lock that another process holds."""

Record = dict[str, Any]


@dataclass
class State:
    """How far a run was delivered, and to what."""

    store: str = ""
    """Name of the store; in another one nothing of the run was delivered yet."""
    run: str = ""
    """The store's id of the run."""
    experiment: str = ""
    offset: int = 0
    """Bytes of the file that the store has."""
    doubtful: bool = False
    """A call that creates the run was made and its outcome is not known: a slow server may make a second run of it, late."""


@dataclass(frozen=True)
class Spool:
    """The files of one run."""

    folder: Path
    key: str
    """The run's id with us, known without any server."""

    @property
    def file(self) -> Path:
        """The records."""
        return self.folder / f"{self.key}.jsonl"

    @property
    def copies(self) -> Path:
        """Copies of the artefacts that wait for delivery."""
        return self.folder / f"{self.key}.files"

    def size(self) -> int:
        """Bytes of the file; 0 where there is none."""
        try:
            return self.file.stat().st_size
        except FileNotFoundError:
            return 0

    def records(self, start: int = 0, stop: float = math.inf) -> Iterator[tuple[Record, int]]:
        """The records that end after byte `start`, up to byte `stop`, each with the byte at which it ends.

        A last line that is still being written is left for later.
        """
        try:
            file = self.file.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(start)
            end = start
            for line in file:
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                if end > stop:
                    return
                if (record := _parse(line, self.file)) is not None:
                    yield record, end

    def pending(self, store: str) -> int:
        """Records that the store does not have yet."""
        return sum(1 for _ in self.records(self.state(store).offset))

    def state(self, store: str) -> State:
        """How far it was delivered to this store. A state that cannot be read counts as none: sending twice is harmless."""
        try:
            state = State(**json.loads(self._state.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return State(store)
        return state if state.store == store and state.offset <= self.size() else State(store)

    def keep(self, state: State) -> None:
        """Writes the state, whole or not at all. Not synchronised to the disk: losing it costs sending again."""
        temporary = self._state.with_suffix(f".{os.getpid()}.partial")
        with reporting(self._state):
            temporary.write_text(json.dumps(asdict(state)), encoding="utf-8")
            temporary.replace(self._state)

    @contextmanager
    def delivering(self, seconds: float = 0.0) -> Iterator[bool]:
        """Whether this process alone delivers the run while the block lasts; waits `seconds` for another that does."""
        end = time.monotonic() + seconds
        with reporting(self.folder), (self.folder / f"{self.key}.lock").open("w") as lock:
            while not (ours := _lock(lock.fileno(), fcntl.LOCK_EX)) and time.monotonic() < end:
                time.sleep(WAIT_SECONDS)
            yield ours

    def alive(self) -> bool:
        """Whether a process records in it, or may: another user's file, which we could not deliver either, cannot be asked."""
        try:
            file = self.file.open("r+b")  # NFSv4 gives an exclusive lock to those only who may write
        except FileNotFoundError:
            return False
        except PermissionError:
            return True
        with file:
            return not _lock(file.fileno(), fcntl.LOCK_EX)

    def abandoned(self, attempt: str) -> "Recorder | None":
        """A recorder in place of the one that died in this attempt, or None while one lives."""
        recorder = Recorder(self, attempt)
        if recorder.alone():
            return recorder
        recorder.close()
        return None

    @property
    def _state(self) -> Path:
        return self.folder / f"{self.key}.json"


@dataclass
class Recorder:
    """Appends to a spool. It holds a lock, shared with others, that tells that it lives: the kernel releases it however the process ends."""

    spool: Spool
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    """Marks the records of this recorder: of several that live, the one that began last speaks for the run."""

    def __post_init__(self) -> None:
        with _said(self.spool.folder):
            self.spool.folder.mkdir(parents=True, exist_ok=True)
            # Nothing is read here, but NFSv4 gives a shared lock to those only who may read.
            self._file = os.open(self.spool.file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_SH)  # held against us only for the moment in which a dead recorder's run is ended

    def append(self, kind: str, **values: Any) -> None:
        """One record, with the time. Raises CannotWriteError."""
        record = {"kind": kind, "attempt": self.attempt, "ms": int(time.time() * 1000), **values}
        line = f"\n{json.dumps(record, ensure_ascii=False)}\n".encode()
        with _said(self.spool.folder):
            if os.write(self._file, line) != len(line):
                raise CannotWriteError(f"cannot write {self.spool.file}: the disk is full; free space, or set --tracking.backend none")

    def copy(self, path: Path) -> str:
        """Copies an artefact, which may change or vanish before it is delivered; returns the copy's place below `copies`."""
        place = Path(uuid.uuid4().hex[:12]) / (path.name or "folder")
        target = self.spool.copies / place
        with _said(self.spool.folder):
            target.parent.mkdir(parents=True)
            if path.is_dir():
                shutil.copytree(path, target)
            else:
                shutil.copyfile(path, target)
        return str(place)

    def alone(self) -> bool:
        """Whether no other recorder of the run lives; then none can begin before `close`, which is to follow at once."""
        return _lock(self._file, fcntl.LOCK_EX)

    def close(self) -> None:
        """Releases the lock."""
        os.close(self._file)


def spools(folder: Path) -> list[Spool]:
    """The runs in a spool folder."""
    return [Spool(folder, path.stem) for path in sorted(folder.glob("*.jsonl"))]


@contextmanager
def _said(folder: Path) -> Iterator[None]:
    try:
        with reporting(folder):
            yield
    except CannotWriteError:
        raise
    except OSError as error:
        raise CannotWriteError(f"cannot write {folder}: {error.strerror}; choose another folder, or set --tracking.backend none") from error


def _lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse(line: bytes, file: Path) -> Record | None:
    if line == b"\n":
        return None
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError):
        logger.warning("%s: a line was torn when its process was killed, and is left out: %d bytes", file, len(line))
        return None
