"""A folder of recordings and transcripts: in the layout of LJSpeech (ljspeech.py), or with a manifest that names speakers (manifest.py)."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tts.data.clip import Clip
from tts.data.ljspeech import EXAMPLE as METADATA_EXAMPLE
from tts.data.ljspeech import METADATA, WAVS, read_metadata
from tts.data.manifest import EXAMPLE as MANIFEST_EXAMPLE
from tts.data.manifest import MANIFEST, read_manifest
from tts.data.parallel import in_order
from tts.errors import DataError
from tts.progress import Progress, Silent


def read_corpus(path: Path, language: str | None = None) -> list[Clip]:
    """The clips of a corpus in the order of its list; the recordings are not opened.

    Raises DataError for a missing or empty corpus, for a malformed line, with its number, and for a clip that is said to be in another
    language than `language`.
    """
    listed = path / _list_of(path)
    clips: dict[str, Clip] = {}
    for where, clip in read_metadata(path) if listed.name == METADATA else read_manifest(path, language):
        if clip.id in clips:
            raise DataError(f"{where}: id {clip.id!r} appears a second time; ids must be unique")
        clips[clip.id] = clip
    if not clips:
        raise DataError(f"{listed} is empty; expected lines such as {METADATA_EXAMPLE if listed.name == METADATA else MANIFEST_EXAMPLE}")
    if not any(clip.audio.is_file() for clip in clips.values()):
        first, folder = next(iter(clips.values())), path / WAVS if listed.name == METADATA else path
        raise DataError(f"{folder} holds none of the {len(clips)} recordings that {listed.name} names; the first would be {first.audio}")
    return list(clips.values())


def is_corpus(path: Path) -> bool:
    """Whether a folder has the list of a corpus."""
    return any((path / name).exists() for name in (METADATA, MANIFEST))


def corpus_digest(path: Path, clips: Sequence[Clip], progress: Progress | None = None) -> str:
    """Hash of the list and of every recording's bytes, so that the same corpus elsewhere is recognised. Shown as the task `read`."""
    digest = hashlib.sha256((path / _list_of(path)).read_bytes())
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


def _list_of(path: Path) -> str:
    expected = f"expected a folder with {METADATA} and {WAVS}/, or with {MANIFEST}"
    if not path.exists():
        raise DataError(f"corpus {path} does not exist; {expected}")
    if not path.is_dir():
        raise DataError(f"corpus {path} is a file; {expected}")
    there = [name for name in (METADATA, MANIFEST) if (path / name).exists()]
    if not there:
        raise DataError(f"corpus {path} has no {METADATA} and no {MANIFEST}; {expected}")
    if len(there) > 1:
        raise DataError(f"corpus {path} has both {METADATA} and {MANIFEST}; remove the one that does not hold")
    return there[0]
