"""What a published prefix holds: each file's size and SHA-256, in one object that is written last.

An object that a manifest names is not touched before another manifest is there: a file that replaces one is staged under its hash, and takes its
name once no manifest needs the old content there. So whoever is killed at any moment leaves all of the old or all of the new files.
"""

import hashlib
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tts.errors import DataError
from tts.storage.place import Place, check_name

MANIFEST = ".manifest.json"
"""Its name below the prefix. Where it is, every file that it lists was uploaded."""
UNDER_WAY = ".publishing.json"
"""Names of the files that a publication uploads or removes; it is there from before the first of them until after the last."""
STAGED = ".staged"
"""Where files wait that replace others."""


class File(BaseModel):
    """One file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    """Below the prefix, with slashes."""
    size: Annotated[int, Field(ge=0)]
    """Bytes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    staged: bool = False
    """Whether it is still below STAGED, under its hash."""

    @property
    def key(self) -> str:
        """Where it lies below the prefix."""
        return f"{STAGED}/{self.sha256}" if self.staged else self.name

    def settled(self) -> "File":
        """The same file under its own name."""
        return self.model_copy(update={"staged": False})


class Manifest(BaseModel):
    """All files, by name."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1]
    files: tuple[File, ...]

    @staticmethod
    def of(files: Iterable[File]) -> "Manifest":
        """In the order of names."""
        return Manifest(format=1, files=tuple(sorted(files, key=lambda file: file.name)))

    @staticmethod
    def read(place: Place, content: bytes) -> "Manifest":
        """Raises DataError for what is no manifest, or names a file that would lie outside the folder."""
        try:
            manifest = Manifest.model_validate_json(content)
        except ValidationError as error:
            reason = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()[:3])
            raise DataError(f"{place.below(MANIFEST)} is no manifest of a published folder ({reason}); publish again, or remove it") from None
        for file in manifest.files:
            check_name(file.name, place.below(MANIFEST))
        return manifest

    @cached_property
    def by_name(self) -> dict[str, File]:
        """Each file by its name."""
        return {file.name: file for file in self.files}

    def content(self) -> bytes:
        """As it is stored."""
        return self.model_dump_json(indent=1, exclude_defaults=True).encode() + b"\n"

    def digest(self) -> str:
        """Hash of what is published: equal where all files are, staged or not."""
        return hashlib.sha256("\n".join(f"{file.size} {file.sha256} {file.name}" for file in self.files).encode()).hexdigest()
