"""A folder of this machine in which what was fetched is kept, shared by all its processes: whoever comes first fetches, the others wait."""

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tts.progress import Progress
from tts.storage.fetch import fetch_snapshot, trying
from tts.storage.files import reporting
from tts.storage.place import Place, is_remote
from tts.storage.snapshot import Snapshot, folder_snapshot, object_snapshot

logger = logging.getLogger(__name__)

VARIABLE = "TTS_CACHE"
"""Environment variable that names the folder."""
KEPT_DAYS = 30
"""Days after its last use that an entry is removed by whoever adds another one."""
LOCK = ".lock"


def default_cache() -> Path:
    """TTS_CACHE, or `tts` in the user's folder for caches."""
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(os.environ.get(VARIABLE) or Path(home) / "tts")


def local(place: str | os.PathLike[str], cache: Path | None = None, progress: Progress | None = None) -> Path:
    """A path of this machine as it is; what is in an object store through the cache. Read only. Raises what `cached` raises."""
    return cached(place, cache or default_cache(), progress) if is_remote(place) else Path(place)


def cached(place: str | os.PathLike[str], cache: Path, progress: Progress | None = None) -> Path:
    """The folder of all files below a place, as they are there now, in a cache that processes share: fetched once, by whoever comes first.

    What is at the place is asked for each time; an entry belongs to one content and never changes. Read only. Raises what `fetch` raises.
    """
    where = Place.of(os.fspath(place))
    made: list[Path] = []
    trying(where, lambda: made.append(_entry(folder_snapshot(where), cache, progress)))
    return made[-1]


def cached_file(place: str | os.PathLike[str], cache: Path, progress: Progress | None = None) -> Path:
    """The same for one object. Raises what `fetch_file` raises."""
    where = Place.of(os.fspath(place))
    made: list[Path] = []
    trying(where, lambda: made.append(_entry(object_snapshot(where), cache, progress)))
    return made[-1]


def _entry(snapshot: Snapshot, cache: Path, progress: Progress | None) -> Path:
    """The entry of a snapshot, which is there afterwards. Raises OutdatedError."""
    place = snapshot.place
    key = hashlib.sha256(f"{place}\n{snapshot.digest}".encode()).hexdigest()[:24]
    folder = cache / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', place.name).strip('.-')[:60]}-{key}"
    entry = folder / place.name if snapshot.single else folder / "files"
    if not _is_whole(entry, snapshot):
        with holding(folder.with_name(folder.name + LOCK), f"another process is fetching {place}"):
            if not _is_whole(entry, snapshot):
                fetch_snapshot(snapshot, entry, progress)
                _protect(entry)
                _clear_old(cache, folder)
    with contextlib.suppress(OSError):  # a cache that is mounted read-only serves as well
        os.utime(folder)
    return entry


def _is_whole(entry: Path, snapshot: Snapshot) -> bool:
    """Whether every file has its size: after a power failure names can be there without content."""
    try:
        paths = [entry if snapshot.single else entry / source.name for source in snapshot.sources]
        sizes = [path.stat().st_size for path in paths]
    except (FileNotFoundError, NotADirectoryError):
        return False
    return entry.exists() and sizes == [source.size for source in snapshot.sources]


def _protect(entry: Path) -> None:
    """Files are for reading: many processes share them."""
    for path in [entry] if entry.is_file() else entry.rglob("*"):
        if path.is_file():
            path.chmod(0o444)


@contextmanager
def holding(lock: Path, waiting: str) -> Iterator[None]:
    """Holds a lock file while the block runs; says once what it waits for. Raises CannotWriteError."""
    with reporting(lock.parent):
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("%s; waiting for it", waiting)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _clear_old(cache: Path, kept: Path) -> None:
    """Removes entries that nobody asked for in a long time. Open files of theirs stay readable to who has them open."""
    for lock in cache.glob(f"*{LOCK}"):
        folder = lock.with_name(lock.name.removesuffix(LOCK))
        if folder == kept or not folder.is_dir() or time.time() - folder.stat().st_mtime < KEPT_DAYS * 86400:
            continue
        with lock.open("ab") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
            logger.info("%s: nobody asked for it in %d days; removed", folder, KEPT_DAYS)
