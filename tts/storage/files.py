"""Files that appear whole or not at all."""

import errno
import glob
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tts.errors import CannotWriteError, UsageError

logger = logging.getLogger(__name__)

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
    """A temporary folder beside `folder` that takes its name, replacing what was there, when the block ends without an error.

    A link is followed: the folder that it points to is replaced, the link stays. Raises CannotWriteError, before the block where it can be known.
    """
    place = replaceable(folder)
    with reporting(folder):
        place.parent.mkdir(parents=True, exist_ok=True)
        _clear_old(place)
        temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.", suffix=PARTIAL))
        try:
            yield temporary
            temporary.chmod(0o755)
            take_place(temporary, place)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def replaceable(folder: Path) -> Path:
    """The real path of a folder that `building` can replace; what a process killed while replacing it had moved aside is put back.

    Raises CannotWriteError for a file, a mount point and the current folder or one around it, which cannot be renamed.
    """
    place = Path(os.path.realpath(folder))
    with reporting(folder):
        if Path.cwd().is_relative_to(place):
            raise CannotWriteError(f"cannot write {folder}: it is or holds the current folder, and is replaced as a whole; name a folder inside it")
        if os.path.ismount(place):
            raise CannotWriteError(f"cannot write {folder}: it is a mount point, which cannot be replaced as a whole; name a folder inside it")
        if os.path.lexists(place) and not place.is_dir():
            raise CannotWriteError(f"cannot write {folder}: a file is in the way; choose another folder")
        aside = _aside(place)
        if aside.is_dir() and not place.exists():
            aside.replace(place)
            logger.warning("%s: a process was killed while replacing it; what was there before is back", folder)
    return place


def check_own(folder: Path, names: Collection[str], what: str) -> None:
    """Raises UsageError naming the first entry of a folder that is not one of `names`: replacing the folder would delete it with the rest."""
    with reporting(folder):
        entries = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    for entry in entries:
        half_written = entry.startswith(".") and entry.endswith(PARTIAL)
        if entry not in names and not half_written:
            raise UsageError(
                f"{folder} holds {entry!r}, which is not part of {what}; move it away or choose another folder, nothing there was touched"
            )


def take_place(new: Path, place: Path) -> None:
    """Renames twice, because a folder with content cannot be renamed over: at no moment is there neither the old nor the new one."""
    aside = _aside(place)
    if aside.is_dir():  # whoever moved it there got the new one into place, and was killed while deleting
        shutil.rmtree(aside)
    if not place.exists():
        new.replace(place)
        return
    place.replace(aside)
    try:
        new.replace(place)
    except BaseException:
        aside.replace(place)
        raise
    shutil.rmtree(aside)


def _aside(place: Path) -> Path:
    """Where the folder that is being replaced waits until the new one is in its place: not a name that is cleared for its age."""
    return place.parent / f".{place.name}{PARTIAL}"


def clear_partial(folder: Path) -> None:
    """Removes what a killed process left half-written in a folder. Only for one who holds the folder: nobody else may be writing there."""
    for left in folder.glob(f".*{PARTIAL}"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


def _clear_old(folder: Path) -> None:
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*{PARTIAL}"):
        if not left.is_dir():
            continue
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
        if error.errno == errno.EBUSY:
            raise CannotWriteError(f"cannot write {path}: the system uses it, such as a mount point; name a folder inside it") from error
        if error.errno == errno.ENOTEMPTY:
            raise CannotWriteError(f"cannot write {path}: another process writes there; wait for it or choose another folder") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise CannotWriteError(f"cannot write {path}: a file is in the way; choose another folder") from error
        raise
