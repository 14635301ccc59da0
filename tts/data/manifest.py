"""The layout that names speakers: `manifest.jsonl`, a JSON object a line.

`{"audio": "anna/0001.wav", "text": "What is said.", "speaker": "anna", "language": "en"}`. `audio` is a path in the corpus; `speaker` stands in
all lines or in none; `language` may stand anywhere, and is then that of the configuration: a voice has one alphabet.

A clip's id is its path without the ending, folders joined by "-" and a leading `wavs/` left out, so that a corpus in LJSpeech layout and its
manifest name clips alike.
"""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tts.data.clip import Clip, lines_of
from tts.errors import DataError

MANIFEST = "manifest.jsonl"
FIELDS = ("audio", "text", "speaker", "language")
EXAMPLE = """'{"audio": "anna/0001.wav", "text": "What is said.", "speaker": "anna"}'"""


def read_manifest(corpus: Path, language: str | None = None) -> Iterator[tuple[str, Clip]]:
    """Each clip, and where it stands, for errors. Raises DataError, with line and field; also for a line in another language than `language`."""
    named: bool | None = None
    for number, line in enumerate(lines_of(corpus / MANIFEST), start=1):
        if not line.strip():
            continue
        where = f"{corpus / MANIFEST}, line {number}"
        entry = _entry(line, where)
        told = entry.get("language")
        if language is not None and told not in (None, language):
            remedy = f"set --text.language {told}, or take such lines out: a voice has one language"
            raise DataError(f"{where}: language is {told!r}, the configuration's is {language!r}; {remedy}")
        if named not in (None, "speaker" in entry):
            raise DataError(f"{where}: {'a speaker' if 'speaker' in entry else 'no speaker'}, unlike the lines before; name all of them or none")
        named = "speaker" in entry
        yield where, Clip(_id(entry["audio"], where), corpus / entry["audio"], entry["text"].strip(), entry.get("speaker", "").strip())


def _entry(line: str, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}); expected an object such as {EXAMPLE}") from None
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected an object such as {EXAMPLE}, got {line.strip()[:80]!r}")
    for field, value in entry.items():
        if field not in FIELDS:
            close = difflib.get_close_matches(field, FIELDS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"fields are {', '.join(FIELDS)}"
            raise DataError(f"{where}: {field!r} is no field; {hint}")
        # An empty text is a matter for quality control, as in the other layout.
        if not isinstance(value, str) or (field != "text" and not value.strip()):
            raise DataError(f"{where}: {field} must be a text{'' if field == 'text' else ' that is not empty'}, got {value!r}")
    missing = [field for field in ("audio", "text") if field not in entry]
    if missing:
        raise DataError(f"{where}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; expected an object such as {EXAMPLE}")
    return entry


def _id(audio: str, where: str) -> str:
    path = PurePosixPath(audio)
    parts = path.with_suffix("").parts if path.name else ()
    if not parts or path.is_absolute() or any(part.startswith(".") or "\\" in part or "\0" in part for part in parts):
        raise DataError(f"{where}: audio {audio!r} must be a file's path in the corpus, without '..' or names with a leading dot")
    return "-".join(parts[1:] if len(parts) > 1 and parts[0] == "wavs" else parts)
