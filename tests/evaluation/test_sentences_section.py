"""Players and pictures of sentences: what fits the page, and what cannot be heard."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.diagnostics.html_page import ReadPage
from tts.audio.wav import wav_bytes
from tts.config import Config
from tts.diagnostics.page import Page, render
from tts.evaluation import sentences_section
from tts.evaluation.sentences_section import Sample, listening_section
from tts.evaluation.synthesis import Utterance
from tts.evaluation.verdict import Judged

ATTENTION = {
    "entropy": 0.2, "focus": 0.8, "diagonality": 0.9, "coverage": 1.0, "monotonicity": 1.0, "repetitions": 1.0, "skips": 2.0, "end_reached": 0.0,
}  # fmt: skip
WAV = wav_bytes(np.zeros(2205, dtype=np.float32), 22050)


def sample(name: str, mel: float = -5.0, wav: bytes = WAV) -> Sample:
    judged = Judged(name, "so it is", 9, 0.5, 0.5, "length limit", 4.0, 1.0, ATTENTION, 0.1, 0.1)
    utterance = Utterance(
        np.full((12, 80), mel, np.float32), np.zeros(12, np.float32), np.eye(4, 9, dtype=np.float32), "length limit", ATTENTION, 0.1
    )
    return Sample(judged, np.full((10, 80), -4.0, np.float32), utterance, WAV, wav)


def shown(samples: list[Sample]) -> ReadPage:
    return ReadPage(render(Page("t", "s", [listening_section(samples, Config()), sentences_section.sentences_section(samples)])))


def test_how_the_text_was_read_is_said():
    page = shown([sample("a")])
    page.check()
    assert "1 repetition, 2 skips, end not reached" in page.sections["listen"]
    assert page.tables["sentences"][0][-1] == "1 repetition, 2 skips, end not reached"
    assert page.audio == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"repetitions": 0.0, "skips": 0.0, "end_reached": 1.0}, "once through"),
        ({"repetitions": 0.0, "skips": 0.0}, "end not reached"),
        ({"end_reached": 1.0, "skips": 0.0}, "1 repetition"),
        ({"skips": float("nan")}, "the alignment is no attention"),
    ],
)
def test_only_what_went_wrong_is_listed(change: dict[str, float], words: str):
    first = sample("a")
    judged = replace(first.judged, attention=ATTENTION | change)
    page = shown([replace(first, judged=judged)])
    assert page.tables["sentences"][0][-1] == words


def test_sound_beyond_what_a_page_may_carry_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sentences_section, "AUDIO_BYTES", 5 * len(WAV))
    page = shown([sample("a"), sample("b"), sample("c")])
    assert page.audio == 4
    assert "the sound is in audio/c.reference.wav" in page.sections["listen"]
    assert "the sound is in audio/c.generated.wav" in page.sections["listen"]
    assert page.pictures["listen"] == 12


def test_a_spectrogram_that_is_not_finite_has_no_player():
    page = shown([sample("a", mel=np.nan, wav=b"")])
    assert page.audio == 1
    assert "It has no sound: it holds values that are not finite." in page.sections["listen"]


def test_long_pages_stay_below_ten_megabytes(tmp_path: Path):
    random = np.random.default_rng(0)
    judged = sample("a").judged
    mel = random.normal(size=(1300, 80)).astype(np.float32)
    utterance = Utterance(mel, np.zeros(1300, np.float32), random.random((260, 200)).astype(np.float32), "gate", ATTENTION, 0.1)
    document = render(Page("t", "s", [listening_section([Sample(judged, mel, utterance, b"", b"")], Config())]))
    assert 6 * len(document.encode()) + sentences_section.AUDIO_BYTES * 4 / 3 < 9_500_000
