"""Folders as dictionaries: names to contents."""

from pathlib import Path

FILES = {
    "a": b"1",
    "deep/er/b.bin": bytes(range(256)) * 10,
    "empty": b"",
    "with spaces/\u00fcn\u00ef-\u0434\u043e\u043c #?%41+&.txt": "\u0434\u043e\u043c".encode(),
    ".hidden": b"x",
}


def tree(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """A folder with these files more."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
