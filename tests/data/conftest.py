"""Small corpora by hand: tones whose length fits their text."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

WriteCorpus = Callable[..., Path]
CHARACTERS_A_SECOND = 16


def tone(text: str, rate: int = 22050, channels: int = 1, hz: float = 300.0) -> np.ndarray:
    """(L,) or (L, channels) of a length that suits the text."""
    time = np.arange(round(len(text) / CHARACTERS_A_SECOND * rate)) / rate
    samples = 0.3 * np.sin(2 * np.pi * hz * time) + 0.1 * np.sin(2 * np.pi * 3.3 * hz * time)
    return np.stack([samples] * channels, axis=1) if channels > 1 else samples


@pytest.fixture
def write_corpus(tmp_path: Path) -> WriteCorpus:
    """Writes a corpus of tones from ids and texts; `rate` and `channels` are those of the recordings."""

    def write(texts: Mapping[str, str], name: str = "corpus", rate: int = 22050, channels: int = 1) -> Path:
        folder = tmp_path / name
        (folder / "wavs").mkdir(parents=True)
        (folder / "metadata.csv").write_text("".join(f"{key}|{text}\n" for key, text in texts.items()), encoding="utf-8")
        for number, (key, text) in enumerate(texts.items()):
            soundfile.write(folder / "wavs" / f"{key}.wav", tone(text, rate, channels, hz=200 + 30 * number), rate)
        return folder

    return write


@pytest.fixture
def texts() -> dict[str, str]:
    """Ten texts of different lengths."""
    words = ["one", "small", "step", "for", "people", "and", "a", "rather", "long", "walk", "for", "cats"]
    return {f"clip{number:02d}": " ".join(words[number % 4 : number % 4 + 4 + number % 5]) + "." for number in range(10)}
