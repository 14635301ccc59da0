"""One recording and what is said in it, whatever layout of a corpus it comes from."""

from dataclasses import dataclass
from pathlib import Path

from tts.errors import DataError


@dataclass(frozen=True)
class Clip:
    """One recording and what is said in it."""

    id: str
    """A plain file name without ending, unique in the corpus."""
    audio: Path
    text: str
    speaker: str = ""
    """Empty in a corpus that names no speakers."""


def lines_of(path: Path) -> list[str]:
    """The lines of a text file, which may be empty. Raises DataError where it is not there, cannot be read or is not UTF-8."""
    try:
        # Not str.splitlines: a transcript may hold a form feed or U+2028, which are no line ends here.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
