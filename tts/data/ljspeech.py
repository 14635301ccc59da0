"""The layout of LJSpeech (https://keithito.com/LJ-Speech-Dataset/).

`metadata.csv` has a line `id|text` or `id|text|normalised` for each `wavs/<id>.wav`. Quotation marks are text, not quoting.
"""

from collections.abc import Iterator
from pathlib import Path

from tts.data.clip import Clip, lines_of
from tts.errors import DataError

METADATA = "metadata.csv"
WAVS = "wavs"
EXAMPLE = "'clip0001|What is said in wavs/clip0001.wav.'"


def read_metadata(corpus: Path) -> Iterator[tuple[str, Clip]]:
    """Each clip, and where it stands, for errors. The third column is its text where it is filled, else the second. Raises DataError."""
    for number, line in enumerate(lines_of(corpus / METADATA), start=1):
        if line.strip():
            where = f"{corpus / METADATA}, line {number}"
            yield where, _clip(corpus, line, where)


def _clip(corpus: Path, line: str, where: str) -> Clip:
    columns = [column.strip() for column in line.split("|")]
    if len(columns) not in (2, 3):
        raise DataError(f"{where}: expected 2 or 3 columns divided by '|', as in id|text or id|text|normalised, got {len(columns)}: {line.strip()!r}")
    name, text = columns[0], columns[2] if len(columns) == 3 and columns[2] else columns[1]
    if not name or name.startswith(".") or any(character in name for character in "/\\\0"):
        raise DataError(f"{where}: id {name!r} must be a plain file name without its ending, without '/' or a leading dot")
    return Clip(name, corpus / WAVS / f"{name}.wav", text)
