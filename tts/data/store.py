"""The feature store: one memory-mapped array of mel frames, a small index, and what they were made from.

| file | holds |
|---|---|
| `mels.npy` | float32 (frames of all utterances, M) |
| `index.npz` | `offsets` (U+1), `symbols`, `symbol_offsets` (U+1), `held_out` (U), `speakers` (U) where the corpus names them |
| `texts.json` | ids, normalised and original texts; names of the speakers, where there are any, by their numbers |
| `held_out/<id>.wav` | recordings of the held-out utterances, as analysed |
| `config.json` | the configuration that it was prepared with |
| `quality.json` | what was rejected, and why |
| `features.json` | format, fingerprint, totals, sizes and hash of the files, mean and deviation of the mel bands |

Shape letters: U utterances, N symbols, T frames, M mels.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from tts.config import Config
from tts.config.load import flatten, from_mapping
from tts.data.fingerprint import fingerprint
from tts.errors import DataError, UsageError
from tts.text.symbols import SymbolTable

FORMAT = 2
MELS = "mels.npy"
INDEX = "index.npz"
TEXTS = "texts.json"
CONFIG = "config.json"
FEATURES = "features.json"
QUALITY = "quality.json"
HELD_OUT = "held_out"
NAMES = (MELS, INDEX, TEXTS, CONFIG, FEATURES, QUALITY, HELD_OUT)
"""All that a store holds."""
_REMEDY = "run `tts prepare` again"


class Summary(BaseModel):
    """What `features.json` holds."""

    model_config = ConfigDict(frozen=True)

    format: int
    fingerprint: str
    corpus: str
    """Hash of the corpus' content, one part of the fingerprint."""
    language: str
    symbols: int
    utterances: int
    held_out: int
    frames: int
    seconds: float
    """Of the accepted utterances, silence at their ends cut."""
    mel_mean: list[FiniteFloat]
    """Mean frame over all accepted utterances."""
    mel_deviation: list[FiniteFloat]
    """Standard deviation of each mel band over the same frames."""
    files: dict[str, int]
    """Size of each other file but config.json in bytes: a store that was cut short is recognised without reading it."""
    content: str
    """Hash of what is in these files."""


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """An opened store. Utterances are addressed by their number, 0 to U-1."""

    folder: Path
    config: Config
    """As prepared."""
    summary: Summary
    ids: Sequence[str]
    texts: Sequence[str]
    """Normalised, exactly what the symbols spell."""
    original_texts: Sequence[str]
    frames: NDArray[np.int64]
    """(U,)"""
    train: NDArray[np.int64]
    """Numbers of the utterances to train on."""
    held_out: NDArray[np.int64]
    """Numbers of the utterances to validate and evaluate on."""
    symbol_table: SymbolTable
    speakers: Sequence[str]
    """Names, by number; empty where the corpus names none, and then all utterances have number 0."""
    speaker_numbers: NDArray[np.int64]
    """(U,)"""
    _mels: NDArray[np.float32]
    _offsets: NDArray[np.int64]
    _symbols: NDArray[np.int16]
    _symbol_offsets: NDArray[np.int64]

    @staticmethod
    def open(folder: Path) -> "FeatureStore":
        """Opens a store without reading its frames.

        Raises DataError, with the remedy, if it is missing, cut short, of another format, or its config.json is not what it was made with.
        """
        summary = _summary(folder)
        for name, size in summary.files.items():
            found = (folder / name).stat().st_size if (folder / name).is_file() else None
            if found != size:
                state = "is missing" if found is None else f"has {found} bytes where {size} were written"
                raise DataError(f"feature store {folder}: {name} {state}; {_REMEDY}")
        try:
            config = from_mapping(_json(folder / CONFIG), str(folder / CONFIG))
            texts = _json(folder / TEXTS)
            mels = np.load(folder / MELS, mmap_mode="r", allow_pickle=False)
            with np.load(folder / INDEX, allow_pickle=False) as index:
                arrays = dict(index)
            return _assemble(folder, config, summary, texts, mels, arrays)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, UsageError) as error:
            raise DataError(f"feature store {folder} is damaged ({error}); {_REMEDY}") from error

    @property
    def fingerprint(self) -> str:
        """Hash of what the features were made from."""
        return self.summary.fingerprint

    @property
    def mel_mean(self) -> NDArray[np.float32]:
        """(M,) mean frame over all utterances."""
        return np.array(self.summary.mel_mean, dtype=np.float32)

    @property
    def quality(self) -> dict[str, Any]:
        """What quality control accepted, rejected and counted. Raises DataError."""
        try:
            return dict(_json(self.folder / QUALITY))
        except (OSError, ValueError) as error:
            raise DataError(f"feature store {self.folder}: {QUALITY} is damaged ({error}); {_REMEDY}") from error

    @property
    def mel_deviation(self) -> NDArray[np.float32]:
        """(M,) standard deviation of each band over all utterances."""
        return np.array(self.summary.mel_deviation, dtype=np.float32)

    def verify(self) -> None:
        """Reads all that the store holds. Raises DataError if a bit of it is not as it was written."""
        if content_digest(self.folder, self.summary.files) != self.summary.content:
            raise DataError(f"feature store {self.folder} is damaged (its files are not as they were written); {_REMEDY}")

    def mel(self, utterance: int) -> NDArray[np.float32]:
        """(T, M) read-only view into the memory map: nothing is read until it is used."""
        return self._mels[self._offsets[utterance] : self._offsets[utterance + 1]]

    def symbols(self, utterance: int) -> NDArray[np.int16]:
        """(N,) read-only symbol numbers, end of sequence included."""
        return self._symbols[self._symbol_offsets[utterance] : self._symbol_offsets[utterance + 1]]

    def speaker(self, utterance: int) -> str:
        """Who says it; empty where the corpus names nobody."""
        return self.speakers[int(self.speaker_numbers[utterance])] if self.speakers else ""

    def reference_audio(self, utterance: int) -> Path:
        """The recording of a held-out utterance. Raises DataError for one that is trained on: those are not kept."""
        path = self.folder / HELD_OUT / f"{self.ids[utterance]}.wav"
        if not path.is_file():
            raise DataError(f"feature store {self.folder} holds no recording of {self.ids[utterance]!r}; only held-out utterances have one")
        return path

    def check(self, config: Config) -> None:
        """Raises UsageError that names each text and audio knob in which `config` differs from what was prepared.

        Also for a speaker embedding where the features do not tell speakers apart: it would be a constant.
        """
        ours, theirs = flatten(self.config), flatten(config)
        different = [
            f"{name} is {theirs[name]!r}, the features were prepared with {ours[name]!r}"
            for name in ours
            if name.startswith(("text.", "audio.")) and ours[name] != theirs[name]
        ]
        if different:
            raise UsageError(f"feature store {self.folder} does not fit the configuration: {'; '.join(different)}; set them back or {_REMEDY}")
        if config.model.speaker_embedding and len(self.speakers) < 2:
            found = f"one speaker ({self.speakers[0]})" if self.speakers else "no names of speakers"
            raise UsageError(
                f"model.speaker_embedding is {config.model.speaker_embedding}, but feature store {self.folder} holds {found}; set it to 0, "
                f"or prepare a corpus whose manifest.jsonl names several"
            )


def content_digest(folder: Path, names: Iterable[str]) -> str:
    """Hash of the names and contents of a store's files."""
    digest = hashlib.sha256()
    for name in sorted(names):
        with (folder / name).open("rb") as file:
            digest.update(f"{name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _summary(folder: Path) -> Summary:
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"feature store {folder} {state}; expected a folder made by `tts prepare`")
    try:
        summary = Summary.model_validate(_json(folder / FEATURES))
    except FileNotFoundError:
        raise DataError(f"{folder} is not a feature store: it has no {FEATURES}; expected a folder made by `tts prepare`") from None
    except ValidationError as error:
        raise DataError(f"feature store {folder}: {FEATURES} is damaged ({error.error_count()} wrong fields); {_REMEDY}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"feature store {folder}: {FEATURES} is damaged ({error}); {_REMEDY}") from error
    if summary.format != FORMAT:
        raise DataError(f"feature store {folder} has format {summary.format}, this version reads {FORMAT}; {_REMEDY}")
    return summary


def _assemble(
    folder: Path, config: Config, summary: Summary, texts: dict[str, list[str]], mels: NDArray[np.float32], arrays: dict[str, NDArray[Any]]
) -> FeatureStore:
    offsets, symbol_offsets = arrays["offsets"].astype(np.int64), arrays["symbol_offsets"].astype(np.int64)
    held_out = arrays["held_out"]
    table = SymbolTable.for_language(summary.language)
    speakers = texts.get("speakers", [])
    speaker_numbers = arrays["speakers"].astype(np.int64) if speakers else np.zeros(summary.utterances, dtype=np.int64)
    consistent = (
        len(offsets) == len(symbol_offsets) == summary.utterances + 1
        and all(len(texts[name]) == summary.utterances for name in ("ids", "normalised", "original"))
        and len(held_out) == len(speaker_numbers) == summary.utterances
        and set(speaker_numbers.tolist()) <= set(range(max(1, len(speakers))))
        and mels.shape == (offsets[-1], config.audio.mels)
        and symbol_offsets[-1] == len(arrays["symbols"])
        and len(table) == summary.symbols
    )
    if not consistent:
        raise ValueError("its files do not belong together")
    if fingerprint(config, table, summary.corpus) != summary.fingerprint:
        raise ValueError(f"its {CONFIG} is not what it was made with, or another version of this program made it")
    return FeatureStore(
        folder=folder,
        config=config,
        summary=summary,
        ids=texts["ids"],
        texts=texts["normalised"],
        original_texts=texts["original"],
        frames=np.diff(offsets),
        train=np.flatnonzero(~held_out),
        held_out=np.flatnonzero(held_out),
        symbol_table=table,
        speakers=speakers,
        speaker_numbers=speaker_numbers,
        _mels=mels,
        _offsets=offsets,
        _symbols=arrays["symbols"],
        _symbol_offsets=symbol_offsets,
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
