"""Files and folders that appear whole or not at all, on this machine and in an object store.

A place is a path of this machine, `s3://BUCKET/KEY` or `minio://BUCKET/KEY`. boto3 is loaded when a store is asked, not before.
"""

from tts.storage.archive import is_archive, opened, unpacked
from tts.storage.cache import cached, cached_file, default_cache, local
from tts.storage.fetch import fetch, fetch_file
from tts.storage.files import (
    OLD_AFTER,
    PARTIAL,
    building,
    check_own,
    clear_partial,
    prepare_folder,
    replaceable,
    reporting,
    write_text,
    writing,
)
from tts.storage.objects import Entry, entries, exists, read_bytes, remove, write_bytes
from tts.storage.place import is_remote, join
from tts.storage.publish import publish, published
from tts.storage.s3 import greet, is_named

__all__ = [
    "OLD_AFTER",
    "PARTIAL",
    "Entry",
    "building",
    "cached",
    "cached_file",
    "check_own",
    "clear_partial",
    "default_cache",
    "entries",
    "exists",
    "fetch",
    "fetch_file",
    "greet",
    "is_archive",
    "is_named",
    "is_remote",
    "join",
    "local",
    "opened",
    "prepare_folder",
    "publish",
    "published",
    "read_bytes",
    "remove",
    "replaceable",
    "reporting",
    "unpacked",
    "write_bytes",
    "write_text",
    "writing",
]
