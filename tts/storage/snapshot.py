"""What is at a place in an object store at one moment: by its manifest, or where somebody else put it there, by its listing."""

import hashlib
import re
from dataclasses import dataclass

from tts.errors import DataError
from tts.storage.manifest import MANIFEST, UNDER_WAY, Manifest
from tts.storage.objects import Entry, get, head, listing
from tts.storage.place import Place, check_name

LOOKS = 3
"""Times that a place is looked at again which was just being published."""


@dataclass(frozen=True)
class Source:
    """One object to fetch."""

    name: str
    """Below the folder that it is fetched into."""
    size: int
    version: str
    """SHA-256 where our manifest tells it, else the ETag of the listing."""
    key: str
    """Of the object, below the place; empty where the place is the object."""

    @property
    def sha256(self) -> str:
        """SHA-256, or empty where it is not known."""
        return self.version if re.fullmatch(r"[0-9a-f]{64}", self.version) else ""

    @property
    def etag(self) -> str:
        """ETag, or empty where the content is known by its hash."""
        return "" if self.sha256 else self.version


@dataclass(frozen=True)
class Snapshot:
    """All objects to fetch."""

    place: Place
    sources: tuple[Source, ...]
    digest: str
    """Equal where all files are."""

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(source.size for source in self.sources)

    def key(self, source: Source) -> Place:
        """Where an object lies."""
        return self.place.below(source.key) if source.key else self.place

    @property
    def single(self) -> bool:
        """Whether the place is one object, and not a prefix."""
        return len(self.sources) == 1 and not self.sources[0].key


def folder_snapshot(place: Place) -> Snapshot:
    """The files below a prefix. Raises DataError where there are none, where only a part was published, and for names that no folder can hold."""
    for _ in range(LOOKS):
        content = get(place.below(MANIFEST))
        if content is not None:
            manifest = Manifest.read(place, content)
            return Snapshot(place, tuple(Source(file.name, file.size, file.sha256, file.key) for file in manifest.files), manifest.digest())
        found = list(listing(place))
        names = {entry.name for entry in found}
        if MANIFEST in names:
            continue  # published between the two requests
        if UNDER_WAY in names:
            raise DataError(
                f"{place} is being published, or was when its publisher was stopped: it is not whole; publish it to its end, then try again"
            )
        return _listed(place, found)
    raise DataError(f"{place} appears and vanishes while it is looked at; try again when nobody writes there")


def _listed(place: Place, found: list[Entry]) -> Snapshot:
    if not found:
        if place.key and head(place) is not None:
            raise DataError(f"{place} is one object, not a folder of them")
        raise DataError(f"{place} does not exist: there is no object below it")
    files = [entry for entry in found if entry.name.rsplit("/", 1)[-1] not in (MANIFEST, UNDER_WAY)]
    names = {entry.name for entry in files}
    for name in names:
        check_name(name, place)
        parents = {name.rsplit("/", depth)[0] for depth in range(1, name.count("/") + 1)}
        if clash := parents & names:
            raise DataError(f"{place}: {min(clash)!r} is an object and has others below it ({name!r}); a folder cannot hold both")
    sources = tuple(Source(entry.name, entry.size, entry.etag, entry.name) for entry in sorted(files, key=lambda entry: entry.name))
    return Snapshot(place, sources, _digest(sources))


def object_snapshot(place: Place) -> Snapshot:
    """One object. Raises DataError where there is none."""
    found = head(place) if place.key else None
    if found is None:
        folder = next(listing(place), None) is not None
        raise DataError(f"{place} is a folder of objects, not one" if folder else f"{place} does not exist")
    sources = (Source(place.name, found.size, found.sha256 or found.etag, ""),)
    return Snapshot(place, sources, _digest(sources))


def _digest(sources: tuple[Source, ...]) -> str:
    return hashlib.sha256("\n".join(f"{source.name} {source.size} {source.version}" for source in sources).encode()).hexdigest()
