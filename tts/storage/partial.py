"""The folder that a download fills before it takes its name: what a killed process left there is not fetched again.

| name | holds |
|---|---|
| `files/` | the files |
| `journal` | a line for each piece that is there: name, version, offset |
| `lock` | held by the process that fills it |
"""

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tts.storage.files import PARTIAL, reporting
from tts.storage.snapshot import Source

Piece = tuple[str, str, int]
"""Name, version and offset."""


class Partial:
    """One such folder, held by this process. Its methods may be called from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, folder / "files"
        self._pieces = self._read()
        self._begun = {piece[:2] for piece in self._pieces}
        """Name and version of the files that are there in part."""
        self._writing = threading.Lock()
        self.files.mkdir(exist_ok=True)
        self._journal: IO[str] = (folder / "journal").open("a", encoding="ascii")

    def _read(self) -> set[Piece]:
        """Pieces of the journal. A line that a kill cut off is cut off for good, for others will follow it."""
        journal = self.folder / "journal"
        text = journal.read_text(encoding="ascii") if journal.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            journal.write_text(whole, encoding="ascii")
        return {(name, version, offset) for name, version, offset in map(json.loads, whole.splitlines())}

    def has(self, source: Source, offset: int) -> bool:
        """Whether a piece is there."""
        return (source.name, source.version, offset) in self._pieces

    def add(self, source: Source, offset: int) -> None:
        """Notes a piece that was written."""
        with self._writing:
            self._pieces.add((source.name, source.version, offset))
            self._journal.write(json.dumps((source.name, source.version, offset)) + "\n")
            self._journal.flush()

    def forget(self, source: Source) -> None:
        """Drops a file whose content is wrong: its pieces count no more."""
        with self._writing:
            self._drop(source.name)

    def _drop(self, name: str) -> None:
        (self.files / name).unlink(missing_ok=True)
        self._begun = {begun for begun in self._begun if begun[0] != name}
        left = {piece for piece in self._pieces if piece[0] != name}
        if left != self._pieces:
            self._pieces = left
            self._journal.seek(0)
            self._journal.truncate()
            self._journal.writelines(json.dumps(piece) + "\n" for piece in sorted(left))
            self._journal.flush()

    def open(self, source: Source) -> int:
        """A descriptor to write a file's pieces at their places; what another version left is removed first."""
        path = self.files / source.name
        with self._writing:
            path.parent.mkdir(parents=True, exist_ok=True)
            if (source.name, source.version) not in self._begun:
                self._drop(source.name)
                self._begun.add((source.name, source.version))
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def keep_only(self, names: set[str]) -> None:
        """Removes files that are not to be in the folder, as another version may have left."""
        for path in sorted(self.files.rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.relative_to(self.files).as_posix() not in names:
                path.unlink()

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()


@contextmanager
def partial(target: Path) -> Iterator[Partial]:
    """The partial folder of `target`, held while the block runs and removed when it ends without an error. Waits for another process's."""
    folder = target.parent / f".{target.name}.fetch{PARTIAL}"
    with reporting(target):
        lock = _lock(folder)
        with lock:
            held = Partial(folder)
            try:
                yield held
            finally:
                held.close()
            shutil.rmtree(folder)


def _lock(folder: Path) -> IO[bytes]:
    """The lock of a folder that another process may remove while we wait for it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = (folder / "lock").open("ab")
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(lock.fileno()), (folder / "lock").stat()):
                return lock
        except FileNotFoundError:
            pass
        lock.close()
