"""Folders that come as one file: tar, also compressed."""

import hashlib
import os
import re
import tarfile
import zlib
from lzma import LZMAError
from pathlib import Path

from tts.errors import DataError
from tts.progress import Progress
from tts.storage.cache import LOCK, cached_file, default_cache, holding, local
from tts.storage.files import building
from tts.storage.place import is_remote

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def is_archive(place: str | os.PathLike[str]) -> bool:
    """Whether a name is that of an archive."""
    return os.fspath(place).lower().rstrip("/").endswith(ENDINGS)


def opened(place: str, progress: Progress | None = None) -> Path:
    """A folder of this machine with what is at a place, which is a folder or an archive of one: through the cache what is not here as a folder.

    Raises DataError, CannotWriteError, UsageError, ServiceUnavailableError.
    """
    if not is_archive(place):
        return local(place, progress=progress)
    cache = default_cache()
    return unpacked(cached_file(place, cache, progress) if is_remote(place) else Path(place), cache)


def unpacked(archive: Path, cache: Path) -> Path:
    """The folder that an archive holds, unpacked once into the cache; its outermost folder where that is all it holds.

    Names that lead out of it, links to elsewhere and devices are refused, as are owners and odd permissions ignored (tarfile's filter `data`).
    Raises DataError and CannotWriteError.
    """
    try:
        there = archive.stat()
    except OSError as error:
        raise DataError(f"{archive} cannot be read: {error.strerror}") from None
    key = hashlib.sha256(f"{archive.resolve()}\n{there.st_size}\n{there.st_mtime_ns}".encode()).hexdigest()[:24]
    entry = cache / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', archive.name).strip('.-')[:60]}-{key}"
    folder = entry / "files"
    if not folder.is_dir():
        with holding(entry.with_name(entry.name + LOCK), f"another process is unpacking {archive}"):
            if not folder.is_dir():
                with building(folder) as new:
                    _unpack(archive, new)
    os.utime(entry)
    inner = list(folder.iterdir())
    return inner[0] if len(inner) == 1 and inner[0].is_dir() else folder


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as content:
            content.extractall(folder, filter="data")
    except tarfile.FilterError as error:
        raise DataError(f"{archive} is refused: {error}") from None
    except (tarfile.TarError, EOFError, zlib.error, LZMAError) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}); it is damaged or no tar archive") from None
