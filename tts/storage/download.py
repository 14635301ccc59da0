"""Objects into a partial folder: in pieces, several at a time, each file checked as soon as its last piece is there."""

import hashlib
import logging
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tts.errors import CannotWriteError
from tts.progress import Progress, Silent, Task
from tts.storage.partial import Partial
from tts.storage.place import Place
from tts.storage.s3 import CHANGED, MISSING, asking, client, code_of
from tts.storage.snapshot import Snapshot, Source
from tts.storage.together import together

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

logger = logging.getLogger(__name__)

PIECE = 32 * 2**20
"""Bytes of a file that are asked for at a time, and that a kill can cost."""
CHUNK = 1 << 20
"""Bytes read at a time."""
CUTS = 5
"""Times in a row that a connection may be cut off before it has brought a chunk."""
MEGABYTE = 10**6


class OutdatedError(Exception):
    """An object is gone or is not what the snapshot says."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(f"{place} {reason}")


def download(snapshot: Snapshot, partial: Partial, progress: Progress | None) -> None:
    """Brings the files of a snapshot into `partial.files`, all of them and nothing else.

    Raises OutdatedError, with what is right kept; CannotWriteError, and what `asking` raises.
    """
    _check_space(snapshot, partial.folder)
    work = _Work(snapshot, partial)
    with (progress or Silent()).task(f"fetch {snapshot.place.name} (MB)", snapshot.size // MEGABYTE) as task:
        work.show(task)
        together(work.bring, [(source, offset) for source in snapshot.sources for offset in offsets(source.size)], work.stop)
    partial.keep_only({source.name for source in snapshot.sources})


def offsets(size: int) -> range:
    """Where the pieces of a file begin; an empty file has one."""
    return range(0, max(1, size), PIECE)


class Counter:
    """Bytes into whole megabytes on a progress bar. May be called from several threads."""

    def __init__(self, task: Task) -> None:
        self._task, self._bytes, self._lock = task, 0, threading.Lock()

    def add(self, number: int) -> None:
        """Counts bytes."""
        with self._lock:
            before, self._bytes = self._bytes, self._bytes + number
            if self._bytes // MEGABYTE > before // MEGABYTE:
                self._task.advance(self._bytes // MEGABYTE - before // MEGABYTE)


class _Work:
    """What the threads of one download share."""

    def __init__(self, snapshot: Snapshot, partial: Partial) -> None:
        self._snapshot, self._partial = snapshot, partial
        self._left = {source.name: len(offsets(source.size)) for source in snapshot.sources}
        self._lock = threading.Lock()
        self._count: Callable[[int], None] = lambda _: None
        self._stopped = threading.Event()

    def show(self, task: Task) -> None:
        self._count = Counter(task).add

    def stop(self) -> None:
        self._stopped.set()

    def bring(self, piece: tuple[Source, int]) -> None:
        """One piece, and after the last of a file its check."""
        source, offset = piece
        if self._stopped.is_set():
            return
        size = min(PIECE, source.size - offset)
        if not self._partial.has(source, offset):
            file = self._partial.open(source)
            try:
                self._write(file, source, offset, size)
            finally:
                os.close(file)
            if self._stopped.is_set():
                return
            self._partial.add(source, offset)
        self._count(size)
        with self._lock:
            self._left[source.name] -= 1
            last = self._left[source.name] == 0
        if last and not _is_right(self._partial.files / source.name, source):
            self._partial.forget(source)
            raise OutdatedError(self._snapshot.key(source), "is not what the manifest says (SHA-256 or size differ)")

    def _write(self, file: int, source: Source, offset: int, size: int) -> None:
        """A piece at its place, through connections that are cut off."""
        from botocore.exceptions import BotoCoreError

        place, done, cuts = self._snapshot.key(source), 0, 0
        with asking(place):
            while True:
                answer = _ask(place, source, offset + done, size - done)
                before = done
                try:
                    while not self._stopped.is_set() and (chunk := answer["Body"].read(CHUNK)):
                        _write_all(file, chunk, offset + done)
                        done += len(chunk)
                except BotoCoreError as error:
                    cuts = 0 if done - before >= CHUNK else cuts + 1
                    if cuts > CUTS:
                        raise
                    logger.debug("%s: cut off after %d bytes (%s); going on", place, offset + done, error)
                    time.sleep(min(5.0, 0.1 * 2**cuts) * random.uniform(0.5, 1.0))  # so that many readers do not come back at once
                    continue
                if done >= size or self._stopped.is_set():
                    return
                raise OutdatedError(place, f"has {offset + done} bytes, {source.size} were expected")


def _write_all(file: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):  # a disk that is full takes a part of the last one, and refuses the rest
        written += os.pwrite(file, data[written:], offset + written)


def _ask(place: Place, source: Source, offset: int, size: int) -> "GetObjectOutputTypeDef":
    from botocore.exceptions import ClientError

    options = {"IfMatch": source.etag} if source.etag else {}
    if (offset, size) != (0, source.size):
        options["Range"] = f"bytes={offset}-{offset + size - 1}"
    try:
        return client(place).get_object(Bucket=place.bucket, Key=place.key, **options)  # type: ignore[arg-type]  # a dictionary of str is one of options
    except ClientError as error:
        if code_of(error) in MISSING:
            raise OutdatedError(place, "is gone") from error
        if code_of(error) in CHANGED:
            raise OutdatedError(place, "was replaced") from error
        raise


def _is_right(path: Path, source: Source) -> bool:
    if not path.is_file() or path.stat().st_size != source.size:
        return False
    if not source.sha256:
        return True  # another program's object: the size, and one ETag for all of its pieces, are what there is
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == source.sha256


def _check_space(snapshot: Snapshot, folder: Path) -> None:
    there = sum(path.stat().st_blocks * 512 for path in (folder / "files").rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if snapshot.size - there > free:
        needs = f"{snapshot.place} has {snapshot.size / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
        raise CannotWriteError(f"cannot write {folder.parent}: {needs}; free space or choose another folder")
