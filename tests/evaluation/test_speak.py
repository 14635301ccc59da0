"""Text to speech from a run's folder alone."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tts.config import Config
from tts.config.load import override
from tts.data.store import FeatureStore
from tts.errors import CannotWriteError, DataError, UsageError
from tts.evaluation.evaluate import evaluate
from tts.evaluation.metrics import mel_cepstral_distortion
from tts.evaluation.speak import synthesise_text
from tts.evaluation.style import Style, parsed_weights, style_weights
from tts.evaluation.synthesis import synthesise
from tts.progress import Silent
from tts.training.checkpoint import Checkpoints, load_model
from tts.training.loop import train
from tts.training.preemption import StopFlag


@pytest.fixture(scope="module")
def bare(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's configuration and checkpoints, nothing else."""
    folder = tmp_path_factory.mktemp("bare") / "run"
    shutil.copytree(trained / "checkpoints", folder / "checkpoints")
    shutil.copy(trained / "config.json", folder)
    return folder


def test_speaks_normalised_text_and_warns_at_the_length_limit(bare: Path, patient: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        speech = synthesise_text(bare, "I have 3 cats", tmp_path / "new" / "a.wav", patient)
    assert speech.text == "i have three cats"
    assert speech.stop_reason == "length limit"
    assert "the stop gate did not open: the speech was cut at" in caplog.text
    samples, rate = soundfile.read(tmp_path / "new" / "a.wav")
    assert rate == 22050
    frames = 4 * (len(speech.text) + 1)
    assert speech.seconds == pytest.approx(frames * 256 / 22050)
    assert len(samples) == (frames - 1) * 256
    assert np.abs(samples).max() > 0


def test_same_seed_same_speech_and_the_runs_own_settings_are_the_default(bare: Path, tiny: Config, tmp_path: Path):
    for name, config in (("a", tiny), ("b", None)):
        synthesise_text(bare, "hello", tmp_path / f"{name}.wav", config)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    synthesise_text(bare, "hello", tmp_path / "c.wav", override(tiny, {"synthesis.seed": 1, "synthesis.gate_threshold": 0.95}))
    assert (tmp_path / "a.wav").read_bytes() != (tmp_path / "c.wav").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Привет", r"cannot say 'п' \(U\+043F\) in 'Привет': its language is en and it knows the characters .*abc"),
        ("", "there is nothing to say in ''"),
        (" ... !", "there is nothing to say"),
    ],
)
def test_what_cannot_be_said_is_named_and_nothing_is_written(bare: Path, tmp_path: Path, text: str, message: str):
    with pytest.raises(UsageError, match=message):
        synthesise_text(bare, text, tmp_path / "a.wav")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def voices(voices_features: Path, tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two speakers, whose vectors are far apart."""
    folder = tmp_path_factory.mktemp("voices") / "run"
    config = override(tiny, {"model.speaker_embedding": 4, "training.steps": 2, "optimiser.learning_rate": 0.1, "optimiser.warmup_steps": 0})
    for _ in train(FeatureStore.open(voices_features), config, folder, progress=Silent(), stop=StopFlag()):
        pass
    return folder


def test_who_is_to_be_heard_is_heard(voices: Path, patient: Config, tmp_path: Path):
    for name in ("mila", "viktor"):
        synthesise_text(voices, "hello", tmp_path / f"{name}.wav", patient, speaker=name)
    synthesise_text(voices, "hello", tmp_path / "again.wav", patient, speaker="mila")
    assert (tmp_path / "mila.wav").read_bytes() == (tmp_path / "again.wav").read_bytes() != (tmp_path / "viktor.wav").read_bytes()


def test_speakers_that_a_voice_does_not_have_or_needs(voices: Path, bare: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="the voice has several speakers; choose one with --speaker: mila, viktor"):
        synthesise_text(voices, "hello", tmp_path / "a.wav")
    with pytest.raises(UsageError, match="the voice has no speaker 'anna'; it has mila, viktor"):
        synthesise_text(voices, "hello", tmp_path / "a.wav", speaker="anna")
    with pytest.raises(UsageError, match=r"does not tell speakers apart .*so it has no 'mila'; leave --speaker out"):
        synthesise_text(bare, "hello", tmp_path / "a.wav", speaker="mila")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def stylish(features: Path, tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three style tokens, which a few bold steps have moved."""
    folder = tmp_path_factory.mktemp("styles") / "run"
    knobs = {"model.style_tokens": 3, "model.style_heads": 2, "model.style_width": 8, "optimiser.learning_rate": 0.1, "optimiser.warmup_steps": 0}
    for _ in train(FeatureStore.open(features), override(tiny, knobs), folder, progress=Silent(), stop=StopFlag()):
        pass
    return folder


def test_a_style_is_that_of_a_recording_of_weights_or_the_mean(stylish: Path, corpus: Path, patient: Config, tmp_path: Path):
    voice = load_model(stylish)
    recording = min((corpus / "wavs").iterdir())
    weights = style_weights(Style(reference=recording), voice)
    assert torch.allclose(weights.sum(1), torch.ones(2))
    assert torch.equal(style_weights(Style(weights=(2.0, 0.0, -1.0)), voice), torch.tensor([[2.0, 0.0, -1.0]] * 2))
    assert style_weights(Style(), voice) is None
    heard = {}
    for name, style in (("mean", None), ("like", Style(reference=recording)), ("mixed", Style(weights=(5.0, 0.0, -5.0)))):
        synthesise_text(stylish, "hello", tmp_path / f"{name}.wav", patient, style=style)
        heard[name] = (tmp_path / f"{name}.wav").read_bytes()
    assert len(set(heard.values())) == 3
    mean = style_weights(Style(), voice)
    (spoken,) = next(synthesise(voice.model, [[5, 6, 1]], patient.synthesis, torch.device("cpu"), None, mean))
    (given,) = next(synthesise(voice.model, [[5, 6, 1]], patient.synthesis, torch.device("cpu"), None, voice.model.style.mean_HK))
    np.testing.assert_array_equal(spoken.mel_TM, given.mel_TM)


def test_styles_that_cannot_be(stylish: Path, bare: Path, corpus: Path, tmp_path: Path):
    recording = min((corpus / "wavs").iterdir())
    with pytest.raises(UsageError, match="a style has 3 numbers, one for each style token of this voice, got 2"):
        synthesise_text(stylish, "hello", tmp_path / "a.wav", style=Style(weights=(1.0, 0.0)))
    with pytest.raises(UsageError, match="a reference and a style were both given"):
        synthesise_text(stylish, "hello", tmp_path / "a.wav", style=Style(recording, (1.0, 0.0, 0.0)))
    with pytest.raises(UsageError, match=r"no speaking styles \(model\.style_tokens is 0\)"):
        synthesise_text(bare, "hello", tmp_path / "a.wav", style=Style(recording))
    with pytest.raises(DataError, match=r"noise\.wav"):
        (tmp_path / "noise.wav").write_bytes(b"no sound")
        synthesise_text(stylish, "hello", tmp_path / "a.wav", style=Style(tmp_path / "noise.wav"))
    for text in ("", "a,b", "1,,2", "nan", "1,inf"):
        with pytest.raises(UsageError, match=r"numbers divided by commas, such as 0\.3,0,0\.7"):
            parsed_weights(text)
    assert parsed_weights("0.3, -1,2e-1") == (0.3, -1.0, 0.2)


def test_held_out_sentences_are_spoken_by_their_own_speakers(voices: Path, voices_features: Path, patient: Config, tmp_path: Path):
    made = evaluate(voices, voices_features, tmp_path / "out", patient, study=None, progress=Silent())
    store, voice = FeatureStore.open(voices_features), load_model(voices)
    places = [store.ids.index(sentence.id) for sentence in made.sentences]
    assert [sentence.speaker for sentence in made.sentences] == [store.speaker(place) for place in places]
    assert len({sentence.speaker for sentence in made.sentences}) == 2
    for place, sentence in zip(places, made.sentences, strict=True):
        number = [int(store.speaker_numbers[place])]
        (own,) = next(synthesise(voice.model, [store.symbols(place).tolist()], patient.synthesis, torch.device("cpu"), number))
        assert sentence.mel_cepstral_distortion == pytest.approx(mel_cepstral_distortion(store.mel(place), own.mel_TM), rel=1e-4)
    assert "viktor" in (tmp_path / "out" / "report.html").read_text()


def test_places_that_cannot_be_written(bare: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="is a folder; name the WAV file"):
        synthesise_text(bare, "hello", tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotWriteError, match="a file is in the way"):
        synthesise_text(bare, "hello", tmp_path / "file" / "a.wav")


def test_a_voice_that_is_not_finite_does_not_speak(bare: Path, tmp_path: Path):
    shutil.copytree(bare, tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run")
    entry = checkpoints.index().checkpoints[-1]
    content = checkpoints.read(entry, torch.device("cpu"))
    name = next(name for name in content["model"] if name.startswith("postnet") and name.endswith("weight"))
    content["model"][name].fill_(float("nan"))
    step = content.pop("step") + 1
    content.pop("format")
    checkpoints.save(step, content, mel_loss=0.0, keep=1)
    with pytest.raises(DataError, match=rf"\(step {step}\) makes values that are not finite"):
        synthesise_text(tmp_path / "run", "hello", tmp_path / "a.wav")
    assert not (tmp_path / "a.wav").exists()
