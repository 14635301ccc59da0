"""A folder of recordings and transcripts in the layout of LJSpeech (https://keithito.com/LJ-Speech-Dataset/).

`metadata.csv` has a line `id|text` or `id|text|normalised` for each `wavs/<id>.wav`. Quotation marks are text, not quoting.
"""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tts.data.parallel import in_order
from tts.errors import DataError
from tts.progress import Progress, Silent

METADATA = "metadata.csv"
WAVS = "wavs"


@dataclass(frozen=True)
class Clip:
    """One recording and what is said in it."""

    id: str
    audio: Path
    text: str
    """The third column where it is filled, else the second."""


def read_corpus(path: Path) -> list[Clip]:
    """The clips of a corpus in the order of `metadata.csv`; the recordings are not opened.

    Raises DataError for a missing or empty corpus, and for a malformed line, with its number.
    """
    clips: dict[str, Clip] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        clip = _clip(path, line, f"{path / METADATA}, line {number}")
        if clip.id in clips:
            raise DataError(f"{path / METADATA}, line {number}: id {clip.id!r} appears a second time; ids must be unique")
        clips[clip.id] = clip
    if not clips:
        raise DataError(f"{path / METADATA} is empty; expected lines such as 'clip0001|What is said in wavs/clip0001.wav.'")
    if not any(clip.audio.is_file() for clip in clips.values()):
        first = next(iter(clips.values()))
        raise DataError(f"{path / WAVS} holds none of the {len(clips)} recordings that {METADATA} names; the first would be {first.audio}")
    return list(clips.values())


def corpus_digest(path: Path, clips: Sequence[Clip], progress: Progress | None = None) -> str:
    """Hash of the metadata and of every recording's bytes, so that the same corpus elsewhere is recognised. Shown as the task `read`."""
    digest = hashlib.sha256((path / METADATA).read_bytes())
    shown = (progress or Silent()).task("read", len(clips))
    with shown as task, closing(in_order(_content_digest, [clip.audio for clip in clips])) as contents:
        for clip, content in zip(clips, contents, strict=True):
            digest.update(f"{clip.id}:{content}\n".encode())
            task.advance()
    return digest.hexdigest()


def _content_digest(audio: Path) -> str:
    try:
        with audio.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        # The clip will be rejected as unreadable; until it is repaired the corpus is this one.
        return f"unreadable: {error.strerror}"


def _lines(path: Path) -> list[str]:
    expected = f"expected a folder with {METADATA} and {WAVS}/"
    if not path.exists():
        raise DataError(f"corpus {path} does not exist; {expected}")
    if not path.is_dir():
        raise DataError(f"corpus {path} is a file; {expected}")
    try:
        # Not str.splitlines: a transcript may hold a form feed or U+2028, which are no line ends here.
        return (path / METADATA).read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise DataError(f"corpus {path} has no {METADATA}; {expected}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path / METADATA} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path / METADATA} cannot be read: {error.strerror}") from None


def _clip(corpus: Path, line: str, where: str) -> Clip:
    columns = [column.strip() for column in line.split("|")]
    if len(columns) not in (2, 3):
        raise DataError(f"{where}: expected 2 or 3 columns divided by '|', as in id|text or id|text|normalised, got {len(columns)}: {line.strip()!r}")
    name, text = columns[0], columns[2] if len(columns) == 3 and columns[2] else columns[1]
    if not name or name.startswith(".") or any(character in name for character in "/\\\0"):
        raise DataError(f"{where}: id {name!r} must be a plain file name without its ending, without '/' or a leading dot")
    return Clip(name, corpus / WAVS / f"{name}.wav", text)
