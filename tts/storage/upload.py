"""One file into an object store, with its hash noted beside it."""

import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tts.errors import DataError
from tts.storage.manifest import File
from tts.storage.objects import put
from tts.storage.place import Place
from tts.storage.s3 import asking, client

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig

SMALL = 8 * 2**20
"""Bytes up to which a file is read at once and sent in one request."""
PART = 16 * 2**20
"""Bytes of a part of a larger one."""


class ChangedError(Exception):
    """A file is gone, or another than it was a moment ago."""


def describe(name: str, path: Path) -> File:
    """A file's size and hash. Raises ChangedError, DataError."""
    with _reading(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return File(name=name, size=file.tell(), sha256=digest)


def upload(file: File, path: Path, place: Place, count: Callable[[int], None], *, clear: bool) -> File:
    """Sends a file to its key below `place`; returns what was sent, which differs from `file` where a small one was written anew meanwhile.

    `clear` removes what killed uploads of it left unfinished, which costs money and is seen by nobody.
    Raises ChangedError for a large file that is written to, DataError, and what `asking` raises.
    """
    if clear:
        _clear_unfinished(place.below(file.key))
    with _reading(path) as content:
        if file.size <= SMALL:
            data = content.read(SMALL + 1)
            if len(data) > SMALL:
                raise ChangedError(f"{path} grows")
            file = File(name=file.name, size=len(data), sha256=hashlib.sha256(data).hexdigest(), staged=file.staged)
            put(place.below(file.key), data, file.sha256)
            count(len(data))
            return file
        target, options = place.below(file.key), {"Metadata": {"sha256": file.sha256}}
        with asking(target):
            client(target).upload_fileobj(content, target.bucket, target.key, ExtraArgs=options, Callback=count, Config=_transfer())
    if describe(file.name, path) != file.settled():
        raise ChangedError(f"{path} changes")
    return file


def settle(file: File, place: Place) -> File:
    """Copies a staged file to its own name, inside the store."""
    source, target = place.below(file.key), place.below(file.name)
    options = {"Metadata": {"sha256": file.sha256}, "MetadataDirective": "REPLACE"}  # a copy in parts forgets what is noted
    with asking(target):
        client(target).copy({"Bucket": source.bucket, "Key": source.key}, target.bucket, target.key, ExtraArgs=options, Config=_transfer())
    return file.settled()


def _clear_unfinished(place: Place) -> None:
    with asking(place):
        pages = client(place).get_paginator("list_multipart_uploads").paginate(Bucket=place.bucket, Prefix=place.key)
        for found in [found for page in pages for found in page.get("Uploads", []) if found["Key"] == place.key]:
            client(place).abort_multipart_upload(Bucket=place.bucket, Key=place.key, UploadId=found["UploadId"])


@lru_cache(maxsize=1)
def _transfer() -> "TransferConfig":
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=SMALL, multipart_chunksize=PART, max_concurrency=4)


def _reading(path: Path) -> Any:
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")
    except FileNotFoundError:
        raise ChangedError(f"{path} vanished") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
