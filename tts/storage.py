"""Files that appear whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tts.errors import CannotWriteError


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` only when the block ends without an error. Raises CannotWriteError."""
    with reporting(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
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
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            yield temporary
            temporary.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            temporary.replace(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


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
