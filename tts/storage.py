"""Files that appear whole or not at all."""

import errno
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tts.errors import CannotWriteError

PARTIAL = ".partial"
"""Ending of the names that files and folders have while they are being written."""
OLD_AFTER = 3600.0
"""Seconds after which a partial folder that nobody writes to counts as left behind by a killed process."""


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` only when the block ends without an error. Raises CannotWriteError."""
    with reporting(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text whole or not at all. Raises CannotWriteError."""
    with writing(path) as file:
        file.write(text.encode())


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its name, replacing what was there, when the block ends without an error."""
    with reporting(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_old(folder)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=PARTIAL))
        try:
            yield temporary
            temporary.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            temporary.replace(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def clear_partial(folder: Path) -> None:
    """Removes what a killed process left half-written in a folder. Only for one who holds the folder: nobody else may be writing there."""
    for left in folder.glob(f".*{PARTIAL}"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


def _clear_old(folder: Path) -> None:
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*{PARTIAL}"):
        newest = max(entry.lstat().st_mtime for entry in (left, *left.iterdir()))
        if time.time() - newest > OLD_AFTER:
            shutil.rmtree(left)


def prepare_folder(folder: Path) -> Path:
    """Creates an output folder and proves that it can be written to, before any work is done. Raises CannotWriteError."""
    with reporting(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    return folder


@contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Turns the system's refusal to write to `path` into CannotWriteError with its remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CannotWriteError(f"cannot write {path}: the disk is full; free space or choose another folder") from error
        if error.errno == errno.EFBIG:
            raise CannotWriteError(f"cannot write {path}: larger than this system or its limits (ulimit -f) allow") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise CannotWriteError(f"cannot write {path}: no permission (read-only?); choose another folder") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise CannotWriteError(f"cannot write {path}: a file is in the way; choose another folder") from error
        raise
