"""A corpus without any download: espeak-ng speaks sentences of our own.

The sentences are in `sentences/<language>.txt`, one a line. The same arguments give the same bytes.
"""

import io
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tts.audio.silence import trim
from tts.audio.wav import wav_bytes
from tts.config import AudioConfig
from tts.data import espeak
from tts.data.corpus import is_corpus
from tts.data.ljspeech import METADATA, WAVS
from tts.data.manifest import MANIFEST
from tts.errors import TtsError, UsageError
from tts.progress import Progress
from tts.storage import building, check_own, replaceable
from tts.text.normalise import normalise

ORIGIN = "demo-corpus.json"
"""Holds the arguments that the corpus was made with; its presence says that the folder is ours to replace."""
VOICES = {"en": "en-us", "ru": "ru"}
WORDS_PER_MINUTE = 150
"""A little slower than espeak's 175, so that each sound lasts for a few frames."""


class Speaker(NamedTuple):
    """One of espeak's variants of a voice."""

    name: str
    variant: str
    words_per_minute: int


SPEAKERS = (Speaker("mila", "+f2", 150), Speaker("viktor", "+m3", 135), Speaker("nadia", "+f4", 165), Speaker("boris", "+m7", 145))
"""Who speaks a corpus of several: different in pitch, timbre and pace."""


@dataclass(frozen=True)
class DemoSummary:
    """What was made."""

    utterances: int
    seconds: float
    reused: bool
    """The folder already held this very corpus."""


def write_demo_corpus(folder: Path, *, language: str, utterances: int, seed: int, progress: Progress, speakers: int = 1) -> DemoSummary:
    """Makes a corpus: `utterances` different sentences, drawn by `seed`, spoken by espeak-ng.

    One speaker makes the layout of LJSpeech; of several each says every so-manyth sentence, and a manifest names them. A sentence is never
    spoken twice: one that is held out and also trained on would flatter the voice.
    Raises UsageError for an unknown language, more utterances than sentences or more speakers than there are, CannotWriteError.
    """
    rows = _rows(language, utterances, seed)
    if not 1 <= speakers <= min(len(SPEAKERS), utterances):
        raise UsageError(f"speakers must be 1 to {min(len(SPEAKERS), utterances)}, and not more than utterances ({utterances}); got {speakers}")
    cast = [Speaker("", "", WORDS_PER_MINUTE)] if speakers == 1 else SPEAKERS[:speakers]
    origin: dict[str, object] = {"language": language, "utterances": utterances, "seed": seed, "words_per_minute": WORDS_PER_MINUTE, "rows": rows}
    if speakers > 1:
        origin["speakers"] = [list(speaker) for speaker in cast]
    made = _already_made(folder, origin, rows)
    if made is not None:
        return made
    seconds = 0.0
    with building(folder) as temporary, progress.task("demo corpus", utterances) as task:
        (temporary / WAVS).mkdir()
        for place, speaker in enumerate(cast):
            theirs = rows[place::speakers]
            sample_rate, speech = _speak([spoken for _, _, spoken in theirs], VOICES[language] + speaker.variant, speaker.words_per_minute)
            audio = AudioConfig(sample_rate=sample_rate)
            for (name, _, _), samples in zip(theirs, speech, strict=True):
                clip = trim(samples, audio)
                (temporary / WAVS / f"{name}.wav").write_bytes(wav_bytes(clip, sample_rate))
                seconds += len(clip) / sample_rate
                task.advance()
        _write_list(temporary, rows, [cast[place % speakers].name for place in range(utterances)], language)
        (temporary / ORIGIN).write_text(json.dumps(origin | {"seconds": seconds}, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return DemoSummary(utterances, seconds, reused=False)


def sentences(language: str) -> list[str]:
    """Our sentences in a language. Raises UsageError with the known languages."""
    if language not in VOICES:
        raise UsageError(f"language {language!r} has no demo sentences; choose one of {', '.join(VOICES)}")
    return (resources.files("tts.data") / "sentences" / f"{language}.txt").read_text(encoding="utf-8").splitlines()


def _rows(language: str, utterances: int, seed: int) -> list[list[str]]:
    """Id, text and normalised text of the chosen sentences, in the order of the file."""
    texts = sentences(language)
    if not 1 <= utterances <= len(texts):
        raise UsageError(f"utterances must be 1 to {len(texts)} (there are so many {language} sentences), got {utterances}")
    chosen = sorted(random.Random(seed).sample(range(len(texts)), utterances))
    return [[f"{language}-{line + 1:04d}", texts[line], normalise(texts[line], language)] for line in chosen]


def _write_list(folder: Path, rows: Sequence[Sequence[str]], speakers: Sequence[str], language: str) -> None:
    if not any(speakers):
        (folder / METADATA).write_text("".join("|".join(row) + "\n" for row in rows), encoding="utf-8")
        return
    entries = (
        {"audio": f"{WAVS}/{name}.wav", "text": spoken, "speaker": speaker, "language": language}
        for (name, _, spoken), speaker in zip(rows, speakers, strict=True)
    )
    (folder / MANIFEST).write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), encoding="utf-8")


def _already_made(folder: Path, origin: dict[str, object], rows: list[list[str]]) -> DemoSummary | None:
    replaceable(folder)
    check_own(folder, (METADATA, MANIFEST, WAVS, ORIGIN), "a demo corpus")
    if not folder.exists() or not any(folder.iterdir()):
        return None
    if not (folder / ORIGIN).is_file():
        raise UsageError(f"{folder} holds files that are not a demo corpus; choose another folder, nothing there was touched")
    try:
        before = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except ValueError:
        return None
    complete = all((folder / WAVS / f"{name}.wav").is_file() for name, _, _ in rows)
    if complete and is_corpus(folder) and before == origin | {"seconds": before.get("seconds")}:
        return DemoSummary(len(rows), before["seconds"], reused=True)
    return None


def _speak(texts: Sequence[str], voice: str, rate: int) -> tuple[int, list[NDArray[np.float32]]]:
    """The sample rate, and each text's samples (L,), spoken by a process of espeak's own. Some 2 MB for each minute of speech."""
    request = json.dumps({"voice": voice, "rate": rate, "texts": texts}).encode()
    # By its path and with -P, so that it starts wherever this package was imported from, and sees only what it imports itself.
    command = [sys.executable, "-P", str(Path(espeak.__file__))]
    finished = subprocess.run(command, input=request, capture_output=True, check=False)  # noqa: S603 - our own program
    if finished.returncode:
        reason = finished.stderr.decode(errors="replace").strip().rsplit("\n", maxsplit=1)[-1]
        raise TtsError(f"espeak-ng cannot speak ({reason or f'ended with {finished.returncode}'}); reinstall the package espeakng-loader")
    answer = io.BytesIO(finished.stdout)
    sample_rate = _number(answer)
    return sample_rate, [np.frombuffer(answer.read(_number(answer)), dtype="<i2").astype(np.float32) / np.float32(32768) for _ in texts]


def _number(answer: io.BytesIO) -> int:
    return int.from_bytes(answer.read(4), "little")
