"""From an object store onto this machine, whole or not at all."""

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tts.errors import CannotWriteError, DataError
from tts.progress import Progress
from tts.storage.download import OutdatedError, download
from tts.storage.files import building, replaceable, take_place, writing
from tts.storage.manifest import UNDER_WAY
from tts.storage.objects import head
from tts.storage.partial import partial
from tts.storage.place import Place, is_remote
from tts.storage.snapshot import Snapshot, folder_snapshot, object_snapshot

logger = logging.getLogger(__name__)

TRIES = 6
"""Times that a place is looked at anew because it was being replaced, or held something else than its manifest says."""
PAUSE = 0.25
"""Seconds before the second look; each pause is twice the one before."""


def fetch(place: str | os.PathLike[str], folder: Path, progress: Progress | None = None) -> Path:
    """All files below a place into a folder, which takes its name, replacing what was there, when each was checked.

    A fetch that was killed goes on where it was. A place that is replaced meanwhile gives all of the old or all of the new files.
    Raises DataError (nothing there, not whole, or damaged), CannotWriteError, UsageError and ServiceUnavailableError.
    """
    if not is_remote(place):
        return _copy_folder(Path(place), folder)
    where = Place.of(os.fspath(place))
    trying(where, lambda: fetch_snapshot(folder_snapshot(where), folder, progress))
    return folder


def fetch_file(place: str | os.PathLike[str], path: Path, progress: Progress | None = None) -> Path:
    """One object into a file, whole or not at all. Raises what `fetch` raises."""
    if not is_remote(place):
        return _copy_file(Path(place), path)
    where = Place.of(os.fspath(place))
    trying(where, lambda: fetch_snapshot(object_snapshot(where), path, progress))
    return path


def trying(place: Place, act: Callable[[], None]) -> None:
    """Acts until what is at the place stays the same for long enough, a bounded number of times. Raises DataError."""
    for number in range(TRIES):
        try:
            act()
        except OutdatedError as error:
            under_way = head(place.below(UNDER_WAY)) is not None
            if number == TRIES - 1 or (number > 0 and not under_way):
                reason = "it is being published all the time" if under_way else "it is damaged, or was written by two at once; publish it again"
                raise DataError(f"{error}; {reason}") from error
            logger.info("%s; looking again", error)
            time.sleep(PAUSE * 2**number)
        else:
            return


def fetch_snapshot(snapshot: Snapshot, target: Path, progress: Progress | None) -> None:
    """The files of a snapshot under the name `target`: a folder, or where the snapshot is of one object, a file. Raises OutdatedError."""
    real = Path(os.path.realpath(target)) if snapshot.single else replaceable(target)
    if snapshot.single and real.is_dir():
        raise CannotWriteError(f"cannot write {target}: a folder is in the way; choose another file")
    with partial(real) as held:
        download(snapshot, held, progress)
        if snapshot.single:
            (held.files / snapshot.sources[0].name).replace(real)
        else:
            take_place(held.files, real)


def _copy_folder(source: Path, folder: Path) -> Path:
    if not source.is_dir():
        raise DataError(f"{source} is a file, not a folder" if source.exists() else f"{source} does not exist")
    with building(folder) as new:
        shutil.copytree(source, new, dirs_exist_ok=True)
    return folder


def _copy_file(source: Path, path: Path) -> Path:
    if not source.is_file():
        raise DataError(f"{source} is a folder, not a file" if source.exists() else f"{source} does not exist")
    with writing(path) as new, source.open("rb") as old:
        shutil.copyfileobj(old, new)
    return path
