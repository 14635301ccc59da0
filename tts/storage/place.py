"""Where something is kept: a folder on this machine, or a prefix of an object store."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tts.errors import DataError, UsageError

SCHEMES = ("s3", "minio")
"""Of object stores. Both speak S3; `minio` is how Kubeflow Pipelines writes a store of its own, named by an endpoint."""
LONGEST_KEY = 1024
"""Bytes that S3 allows a key."""
LONGEST_PART = 255
"""Bytes that file systems allow a name."""
_FORMS = "a folder on this machine, s3://BUCKET/KEY or minio://BUCKET/KEY"


@dataclass(frozen=True)
class Place:
    """An object, or all objects below a prefix. The key is taken as it stands: spaces and letters of any language need no escapes."""

    scheme: str
    bucket: str
    key: str
    """Without a slash at either end; empty for the whole bucket."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".rstrip("/")

    @property
    def prefix(self) -> str:
        """What the keys of the objects below begin with."""
        return f"{self.key}/" if self.key else ""

    @property
    def name(self) -> str:
        """The last part, for messages and folder names."""
        return (self.key or self.bucket).rsplit("/", 1)[-1]

    @staticmethod
    def of(text: str) -> "Place":
        """The place that a URI names. Raises UsageError."""
        if not is_remote(text):
            raise UsageError(f"{text} is no place in an object store; expected s3://BUCKET/KEY or minio://BUCKET/KEY")
        scheme, _, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", bucket):
            raise UsageError(f"{text}: {bucket!r} is no name of a bucket; expected {scheme.lower()}://BUCKET/KEY")
        key = key.rstrip("/")
        if key:
            check_name(key, text, UsageError)
        if len(key.encode()) > LONGEST_KEY:
            raise UsageError(f"{text[:80]}...: the key has {len(key.encode())} bytes, S3 allows {LONGEST_KEY}")
        return Place(scheme.lower(), bucket, key)

    def below(self, name: str) -> "Place":
        """The object of that name under this prefix."""
        return Place(self.scheme, self.bucket, self.prefix + name)


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Whether a place is in an object store. Raises UsageError for a URI of another kind, of which it shows no more than the scheme."""
    text = os.fspath(place)
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)(:/{0,2})", text)
    if not found:
        return False
    scheme, sign = found[1].lower(), found[2]
    if scheme in SCHEMES and sign == ":/":
        raise UsageError(f"{text} has one slash too few; expected {scheme}://BUCKET/KEY")
    if sign != "://":
        return False
    if scheme not in SCHEMES:
        raise UsageError(f"{found[1]}://... is no place for files; expected {_FORMS}")
    return True


def join(place: str | os.PathLike[str], *parts: str) -> str:
    """The place of that name below another. Raises UsageError for a part that leads out of it."""
    text = os.fspath(place)
    for part in parts:
        check_name(part, text, UsageError)
    if not is_remote(text):
        return str(Path(text, *parts))
    return str(Place.of("/".join((text.rstrip("/"), *parts))))


def check_name(name: str, where: object, kind: type[UsageError | DataError] = DataError) -> None:
    """Refuses a name that a folder cannot hold, or that leads out of it: "a/../../b" in a bucket is a name like any other."""
    parts = name.split("/")
    wrong = next((part for part in parts if part in ("", ".", "..") or "\0" in part), None)
    if wrong is not None:
        raise kind(f"{where}: {name!r} cannot be the name of a file below a folder ({wrong!r} is in it)")
    too_long = next((part for part in parts if len(part.encode(errors="surrogateescape")) > LONGEST_PART), None)
    if too_long is not None:
        raise kind(f"{where}: {too_long[:60]!r}... has more than {LONGEST_PART} bytes, which no file system takes as a name")
