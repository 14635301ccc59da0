"""Single objects and listings, in an object store or on this machine."""

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tts.errors import DataError, UsageError
from tts.storage.files import PARTIAL, reporting, writing
from tts.storage.manifest import MANIFEST, UNDER_WAY
from tts.storage.place import Place, is_remote
from tts.storage.s3 import MISSING, asking, client, code_of
from tts.storage.together import together

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One file of a listing."""

    name: str
    """Below the place, with slashes."""
    size: int
    """Bytes."""
    etag: str = ""
    """What the object store calls this version of it; empty on this machine."""


def read_bytes(place: str | os.PathLike[str]) -> bytes:
    """A small object or file, whole. Raises DataError where there is none, and what `asking` raises."""
    if not is_remote(place):
        return _read_file(Path(place))
    content = get(Place.of(os.fspath(place)))
    if content is None:
        raise DataError(f"{place} does not exist")
    return content


def write_bytes(place: str | os.PathLike[str], data: bytes) -> None:
    """A small object or file, whole or not at all. Raises CannotWriteError, and what `asking` raises."""
    if not is_remote(place):
        with writing(Path(place)) as file:
            file.write(data)
        return
    put(_object(place), data)


def exists(place: str | os.PathLike[str]) -> bool:
    """Whether there is an object or file of that name, or anything below it."""
    if not is_remote(place):
        return Path(place).exists()
    where = Place.of(os.fspath(place))
    return (bool(where.key) and head(where) is not None) or next(listing(where), None) is not None


def remove(place: str | os.PathLike[str]) -> None:
    """Removes the object or file of that name and all that is below it; nothing there is no error.

    A manifest goes after the files that it lists: whoever is fetching then meets a missing file, never half of a folder without knowing.
    Raises UsageError for a whole bucket.
    """
    if not is_remote(place):
        _remove_path(Path(place))
        return
    where = _object(place)
    found = [where.below(entry.name) for entry in listing(where)]
    last = [thing for thing in found if thing.name in (MANIFEST, UNDER_WAY)]
    remove_objects([thing for thing in found if thing not in last])
    remove_objects([*last, where])


def entries(place: str | os.PathLike[str]) -> list[Entry]:
    """All files below a place, by name; none where nothing is there. Raises DataError for a file."""
    if not is_remote(place):
        return _list_folder(Path(place))
    return sorted(listing(Place.of(os.fspath(place))), key=lambda entry: entry.name)


def _object(place: str | os.PathLike[str]) -> Place:
    where = Place.of(os.fspath(place))
    if not where.key:
        raise UsageError(f"{place} is a whole bucket; name something in it, as in {where}/KEY")
    return where


def get(place: Place) -> bytes | None:
    """An object's content, or None where there is none."""
    from botocore.exceptions import ClientError

    with asking(place):
        try:
            return client(place).get_object(Bucket=place.bucket, Key=place.key)["Body"].read()
        except ClientError as error:
            if code_of(error) in MISSING:
                return None
            raise


def put(place: Place, data: bytes, sha256: str = "") -> None:
    """Writes an object; `sha256` is noted with it."""
    with asking(place):
        client(place).put_object(Bucket=place.bucket, Key=place.key, Body=data, Metadata={"sha256": sha256} if sha256 else {})


@dataclass(frozen=True)
class Head:
    """What is known of an object without its content."""

    size: int
    etag: str
    sha256: str
    """As noted when we wrote it; else empty."""


def head(place: Place) -> Head | None:
    """What is known of an object, or None where there is none."""
    from botocore.exceptions import ClientError

    with asking(place):
        try:
            found = client(place).head_object(Bucket=place.bucket, Key=place.key)
        except ClientError as error:
            if code_of(error) in MISSING:
                return None
            raise
    return Head(found["ContentLength"], found["ETag"], found.get("Metadata", {}).get("sha256", ""))


def listing(place: Place) -> Iterator[Entry]:
    """The objects below a prefix, in the order of their keys. What marks an empty folder (a key that ends in a slash) is left out."""
    with asking(place):
        pages = client(place).get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=place.prefix)
        for page in pages:
            for found in page.get("Contents", []):
                if not found["Key"].endswith("/"):
                    yield Entry(found["Key"].removeprefix(place.prefix), found["Size"], found.get("ETag", ""))


def remove_objects(places: list[Place]) -> None:
    """Removes objects, several at a time; one that is not there is no error.

    One request each: the one for many needs a checksum on which stores do not agree.
    """
    together(_remove_object, places)


def _remove_object(place: Place) -> None:
    with asking(place):
        client(place).delete_object(Bucket=place.bucket, Key=place.key)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _remove_path(path: Path) -> None:
    with reporting(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _list_folder(folder: Path) -> list[Entry]:
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file, not a folder")
    found = [path for path in folder.rglob("*") if path.is_file() and not is_half_written(path.name)]
    return sorted((Entry(path.relative_to(folder).as_posix(), path.stat().st_size) for path in found), key=lambda entry: entry.name)


def is_half_written(name: str) -> bool:
    """Whether a file or folder of that name is being written, or was when its writer was killed."""
    return name.startswith(".") and name.endswith(PARTIAL)
