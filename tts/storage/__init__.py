"""Files and folders that appear whole or not at all, on this machine and in an object store."""

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

__all__ = [
    "OLD_AFTER",
    "PARTIAL",
    "building",
    "check_own",
    "clear_partial",
    "prepare_folder",
    "replaceable",
    "reporting",
    "write_text",
    "writing",
]
