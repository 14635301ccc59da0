"""From this machine into an object store: files first, the manifest last."""

import json
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from tts.errors import CannotWriteError, DataError, UsageError
from tts.progress import Progress, Silent
from tts.storage.download import MEGABYTE, Counter
from tts.storage.files import building
from tts.storage.manifest import MANIFEST, STAGED, UNDER_WAY, File, Manifest
from tts.storage.objects import get, head, is_half_written, listing, put, remove_objects
from tts.storage.place import Place, check_name, is_remote
from tts.storage.together import together
from tts.storage.upload import ChangedError, describe, settle, upload

TRIES = 3
"""Times that a folder may change while it is read."""


def publish(folder: Path, place: str | os.PathLike[str], progress: Progress | None = None, *, over: str | None = None) -> str:
    """Uploads a folder; the place then holds its files and nothing that an earlier publication put there. Returns the manifest's digest.

    What is there already with the same content is not sent again, also by a publication that was killed. Until the manifest is written, last,
    readers get the old files, or that the place is not whole; from then on the new ones. Two must not publish to one place at once. Files that are
    being written (`.*.partial`) are left out, empty folders too.

    Args:
        folder: What to publish; nobody should write there meanwhile.
        place: Prefix of an object store, or a folder on this machine (then the digest is empty).
        progress: Where megabytes are shown.
        over: Digest of the manifest that this publication replaces, empty for none; None: whatever is there.

    Raises:
        UsageError: A link or a device in the folder; denied; a place that is a whole bucket.
        DataError: A folder that changes all the time; another publication than `over` is there.
        CannotWriteError: The store is full, or the place is an object.
        ServiceUnavailableError: Out of reach after retries.
    """
    if not is_remote(place):
        _copy(_walk(folder), Path(place))
        return ""
    where = Place.of(os.fspath(place))
    if not where.key:
        raise UsageError(f"{place} is a whole bucket; name a folder in it, as in {where}/NAME")
    for number in range(TRIES):
        try:
            return _publish(_walk(folder), where, progress or Silent(), over)
        except ChangedError as error:
            if number == TRIES - 1:
                raise DataError(f"{error} while it is published, time and again; publish it when nobody writes there") from error
    raise AssertionError


def published(place: str | os.PathLike[str]) -> str:
    """Digest of what is published at a place in an object store, empty where nothing is. Raises DataError for a manifest that is none."""
    where = Place.of(os.fspath(place))
    content = get(where.below(MANIFEST))
    return "" if content is None else Manifest.read(where, content).digest()


def _walk(folder: Path) -> dict[str, Path]:
    """The files to publish, by name. Raises UsageError, DataError."""
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, not a folder" if folder.exists() else f"{folder} does not exist")
    found: dict[str, Path] = {}
    for root, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not is_half_written(name))
        for name in [*folders, *files]:
            path = Path(root, name)
            mode = path.lstat().st_mode
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                kind = "a link" if stat.S_ISLNK(mode) else "no regular file"
                raise UsageError(f"{path} is {kind}, which an object store cannot hold; put a file in its place or remove it")
        for name in files:
            relative = Path(root, name).relative_to(folder).as_posix()
            if not is_half_written(name) and relative not in (MANIFEST, UNDER_WAY):
                if relative.startswith(f"{STAGED}/"):
                    raise UsageError(f"{folder} holds {STAGED}, a name that published folders need for themselves; rename it")
                check_name(relative, folder)
                _check_unicode(relative, folder)
                found[relative] = Path(root, name)
    return found


def _raise(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


def _check_unicode(name: str, folder: Path) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{folder}: the name {name!r} is not UTF-8, which an object store cannot hold; rename the file") from None


def _copy(paths: dict[str, Path], place: Path) -> None:
    with building(place) as new:
        for name, path in paths.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, new / name)


@dataclass(frozen=True)
class _There:
    """What is at the place before."""

    manifest: Manifest
    digest: str
    """Of the manifest; empty where there is none."""
    sizes: dict[str, int]
    """Bytes of all objects, by name."""
    interrupted: bool
    """Whether a publication did not end, or is under way."""
    doubtful: frozenset[str]
    """Names that it may have written, or was to remove."""

    @staticmethod
    def look(place: Place) -> "_There":
        content, note = get(place.below(MANIFEST)), get(place.below(UNDER_WAY))
        if head(place) is not None:
            raise CannotWriteError(f"cannot write {place}: an object of that name is in the way; choose another place")
        manifest = Manifest.read(place, content) if content is not None else Manifest.of(())
        digest = manifest.digest() if content is not None else ""
        sizes = {entry.name: entry.size for entry in listing(place)}
        return _There(manifest, digest, sizes, note is not None, frozenset(_noted(place, note) if note is not None else ()))

    def has(self, place: Place, file: File) -> bool:
        """Whether a file is there with this content, where its key says."""
        if self.sizes.get(file.key) != file.size:
            return False
        old = self.manifest.by_name.get(file.name)
        if old == file and file.name not in self.doubtful:
            return True
        found = head(place.below(file.key)) if file.staged or self.interrupted else None
        return found is not None and found.sha256 == file.sha256

    def placed(self, file: File) -> File:
        """Staged, if the manifest still needs another content under its name."""
        old = self.manifest.by_name.get(file.name)
        return file.model_copy(update={"staged": old is not None and not old.staged and old != file})


def _publish(paths: dict[str, Path], place: Place, progress: Progress, over: str | None) -> str:
    there = _There.look(place)
    if over is not None and there.digest != over:
        raise DataError(f"{place} was published by another process meanwhile, which is not overwritten; choose another place, or remove that one")
    files = [there.placed(file) for file in together(lambda name: describe(name, paths[name]), paths)]
    known = together(lambda file: there.has(place, file), files)
    new = [file for file, is_there in zip(files, known, strict=True) if not is_there]
    gone = {*there.manifest.by_name, *there.doubtful} - paths.keys()
    if there.digest and not new and not gone and not there.interrupted:
        return there.digest
    note = {"names": sorted({*there.doubtful, *gone, *(file.name for file in files if file.staged), *(file.name for file in new)})}
    put(place.below(UNDER_WAY), json.dumps(note, indent=1).encode())
    with progress.task(f"publish {place.name} (MB)", sum(file.size for file in new) // MEGABYTE) as task:
        count = Counter(task).add
        sent = together(lambda file: upload(file, paths[file.name], place, count, clear=there.interrupted), new)
    manifest = Manifest.of(({file.name: file for file in files} | {file.name: file for file in sent}).values())
    _write_manifest(place, manifest)
    staged = {file.key for file in manifest.files if file.staged} | {name for name in there.sizes if name.startswith(f"{STAGED}/")}
    remove_objects([place.below(name) for name in sorted(gone | staged)])
    remove_objects([place.below(UNDER_WAY)])
    return manifest.digest()


def _write_manifest(place: Place, manifest: Manifest) -> None:
    """From here on the new files are what is published; then those that were staged take their names."""
    put(place.below(MANIFEST), manifest.content())
    if any(file.staged for file in manifest.files):
        settled = together(lambda file: settle(file, place) if file.staged else file, manifest.files)
        put(place.below(MANIFEST), Manifest.of(settled).content())


def _noted(place: Place, content: bytes) -> list[str]:
    try:
        names = [str(name) for name in json.loads(content)["names"]]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{place.below(UNDER_WAY)} is no note of a publication; remove it") from None
    for name in names:
        check_name(name, place.below(UNDER_WAY))
    return names
