"""A tiny voice, evaluated from end to end."""

import json
import math
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.diagnostics.html_page import ReadPage
from tts.config import Config
from tts.config.load import flatten, override
from tts.data.prepare import prepare
from tts.data.store import FeatureStore
from tts.errors import DataError, UsageError
from tts.evaluation.evaluate import evaluate
from tts.evaluation.metrics import mel_cepstral_distortion
from tts.evaluation.synthesis import synthesise
from tts.evaluation.verdict import judge
from tts.progress import Silent
from tts.training.checkpoint import load_model

SECTIONS = [
    "summary", "listen", "sentences", "corpus", "study", "overview", "training", "alignments", "gates", "anomalies", "configuration",
]  # fmt: skip


@pytest.fixture(scope="module")
def document(evaluated: Path) -> dict:
    return json.loads((evaluated / "evaluation.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(evaluated: Path) -> ReadPage:
    return ReadPage((evaluated / "report.html").read_text(encoding="utf-8"))


def test_sentences_are_the_first_held_out_ones_measured_against_their_recordings(document: dict, trained: Path, features: Path, patient: Config):
    store, voice = FeatureStore.open(features), load_model(trained)
    chosen = store.held_out[:2].tolist()
    assert [sentence["id"] for sentence in document["sentences"]] == [store.ids[number] for number in chosen]
    sequences = [store.symbols(number).tolist() for number in chosen]
    spoken = next(synthesise(voice.model, sequences, patient.synthesis, next(voice.model.parameters()).device))
    for sentence, number, utterance in zip(document["sentences"], chosen, spoken, strict=True):
        assert sentence["text"] == store.texts[number]
        assert sentence["mel_cepstral_distortion"] == pytest.approx(mel_cepstral_distortion(store.mel(number), utterance.mel_TM))
        assert sentence["duration_ratio"] == pytest.approx(len(utterance.mel_TM) / store.frames[number])
        assert sentence["stop_reason"] == utterance.stop_reason
        assert sentence["generated_seconds"] == pytest.approx(len(utterance.mel_TM) * 256 / 22050)


def test_verdict_follows_from_the_figures(document: dict, tiny: Config):
    names = ("mel_cepstral_distortion", "duration_ratio")
    for name in names:
        assert document["metrics"][name] == pytest.approx(np.mean([sentence[name] for sentence in document["sentences"]]))
    figures = {name: float(value) for name, value in document["metrics"].items()}
    verdict = judge(figures, tiny.evaluation)
    assert document["passed"] == verdict.passed
    assert [criterion["passed"] for criterion in document["criteria"]] == [criterion.passed for criterion in verdict.criteria]
    assert all(math.isfinite(value) for value in figures.values())
    assert figures["real_time_factor"] > 0


def test_audio_is_the_recording_and_as_long_as_what_was_spoken(evaluated: Path, document: dict, features: Path):
    names = {f"{sentence['id']}.{kind}.wav" for sentence in document["sentences"] for kind in ("reference", "generated")}
    assert {path.name for path in (evaluated / "audio").iterdir()} == names
    for sentence in document["sentences"]:
        reference = evaluated / "audio" / f"{sentence['id']}.reference.wav"
        assert reference.read_bytes() == (features / "held_out" / f"{sentence['id']}.wav").read_bytes()
        samples, rate = soundfile.read(evaluated / "audio" / f"{sentence['id']}.generated.wav")
        assert rate == 22050
        assert len(samples) / rate == pytest.approx(sentence["generated_seconds"], abs=256 / 22050 + 1e-6)


def test_report_tells_the_whole_story_and_loads_nothing(page: ReadPage, evaluated: Path, document: dict):
    page.check()
    assert page.ids == SECTIONS
    assert page.absent == {"anomalies": True}
    assert page.audio == 4
    assert page.pictures["listen"] == 8
    assert page.pictures["study"] == 3
    assert page.pictures["corpus"] == 2
    assert len(page.tables["sentences"]) == 2
    for criterion, row in zip(document["criteria"], page.tables["summary"], strict=True):
        assert row[3] == ("passed" if criterion["passed"] else "failed")
    assert (evaluated / "report.html").stat().st_size < 10_000_000


def test_configuration_shows_every_knob_and_what_differs(page: ReadPage, tiny: Config):
    rows = page.tables["configuration"]
    assert ["training.steps", "6", "100000", "Updates in all."] in rows
    assert ["evaluation.sentences", "2", "16", "Held-out sentences that are spoken, at most."] in rows
    changed = rows[: len(rows) - len(flatten(tiny))]
    assert changed
    assert all(value != default for _, value, default, _ in changed)
    assert [row[0] for row in rows[len(changed) :]] == list(flatten(tiny))


def test_again_replaces_what_was_there(trained: Path, features: Path, patient: Config, tmp_path: Path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "older.wav").write_text("older")
    lenient = override(
        patient,
        {"evaluation.max_mel_cepstral_distortion": 99, "evaluation.min_stopped_share": 0, "evaluation.min_diagonality": 0, "evaluation.sentences": 1},
    )
    result = evaluate(trained, features, tmp_path, lenient, study=None, progress=Silent())
    assert result.passed
    assert len(result.sentences) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio", "evaluation.json", "report.html"]
    assert len(list((tmp_path / "audio").iterdir())) == 2
    page = ReadPage((tmp_path / "report.html").read_text(encoding="utf-8"))
    page.check()
    assert page.audio == 2
    assert "Passed" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.absent == {"study": True, "anomalies": True}


def test_a_voice_that_ends_at_once_or_is_not_finite_has_no_sound_and_it_is_said(trained: Path, features: Path, tiny: Config, tmp_path: Path):
    hasty = override(tiny, {"synthesis.gate_threshold": 0.001})
    result = evaluate(trained, features, tmp_path, hasty, study=None, progress=Silent())
    assert [sentence.stop_reason for sentence in result.sentences] == ["gate", "gate"]
    assert not list((tmp_path / "audio").glob("*.generated.wav"))
    page = ReadPage((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.sections["listen"].count("It has no sound: it ended at once.") == 2
    assert page.audio == 2


def test_other_features_are_refused(trained: Path, corpus: Path, tiny: Config, tmp_path: Path):
    prepare(corpus, tmp_path / "other", override(tiny, {"audio.trim_db": 30}), progress=Silent())
    with pytest.raises(UsageError, match=r"was trained on features [0-9a-f]{16}, but .*other holds [0-9a-f]{16}; give those"):
        evaluate(trained, tmp_path / "other", tmp_path / "out", tiny, study=None, progress=Silent())
    assert not list((tmp_path / "out").iterdir())


def test_an_interrupted_evaluation_leaves_nothing_half_written(trained: Path, features: Path, tiny: Config, tmp_path: Path):
    class Pressed:
        """Ctrl-C after the first sentence."""

        def advance(self, steps: int = 1, **figures: float | str) -> None:
            raise KeyboardInterrupt

    class Interrupted(Silent):
        @contextmanager
        def task(self, title: str, total: int, done: int = 0):
            yield Pressed()

    with pytest.raises(KeyboardInterrupt):
        evaluate(trained, features, tmp_path, tiny, study=None, progress=Interrupted())
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_checkpoint_is_refused(features: Path, tiny: Config, tmp_path: Path):
    with pytest.raises(DataError, match="holds no checkpoint"):
        evaluate(tmp_path / "run", features, tmp_path / "out", tiny, study=None, progress=Silent())
