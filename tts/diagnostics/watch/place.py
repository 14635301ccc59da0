"""Where a watched run is: a folder of this machine, or a copy of an object store's, without its checkpoints, that follows it."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tts.errors import DataError
from tts.storage import Entry, entries, is_remote, join, read_bytes

READ = re.compile(r"(run|config|corpus)\.json|(metrics|modules)\.jsonl|anomalies/step-\d+\.json|restarts/\d+/restart\.json|snapshots/step-\d+\.npz")
"""Files that the view reads, by their names in the run's folder."""
SNAPSHOTS = 3
"""Newest snapshots that are fetched."""

Signature = frozenset[tuple[str, object]]
"""Differs where a file that the view reads has changed."""


class Place(Protocol):
    """Where a run is looked at."""

    folder: Path
    seconds: float
    """Between two looks."""

    def look(self) -> Signature:
        """Brings the folder up to date. Raises DataError, ServiceUnavailableError."""


@contextmanager
def watched(place: str) -> Iterator[Place]:
    """A place, for as long as the block runs."""
    if is_remote(place):
        with tempfile.TemporaryDirectory(prefix="tts-watch-") as folder:
            yield _Copy(place, Path(folder) / place.rstrip("/").rsplit("/", 1)[-1])
    else:
        yield _Folder(Path(place))


class _Folder:
    """On this machine."""

    seconds = 1.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def look(self) -> Signature:
        """Sizes and times of the files."""
        found = (path for path in self.folder.rglob("*") if READ.fullmatch(path.relative_to(self.folder).as_posix()))
        return frozenset((str(path), _time_and_size(path)) for path in found)


def _time_and_size(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except FileNotFoundError:  # a run that is resumed removes what it will make again
        return None
    return state.st_mtime_ns, state.st_size


class _Copy:
    """In an object store."""

    seconds = 10.0

    def __init__(self, place: str, folder: Path) -> None:
        self._place, self.folder = place, folder
        self._known: dict[str, Entry] = {}

    def look(self) -> Signature:
        """Fetches what has changed, and removes what is there no more."""
        there = {entry.name: entry for entry in entries(self._place) if READ.fullmatch(entry.name)}
        snapshots = sorted(name for name in there if name.startswith("snapshots/"))
        for name in snapshots[:-SNAPSHOTS]:
            del there[name]
        if not there:
            raise DataError(f"{self._place} is not a run folder: it has no run.json; expected what `tts train` published")
        for name in self._known.keys() - there.keys():
            (self.folder / name).unlink(missing_ok=True)
        for name, entry in there.items():
            if self._known.get(name) != entry:
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(read_bytes(join(self._place, name)))
        self._known = there
        return frozenset(there.items())
