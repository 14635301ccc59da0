import librosa
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from tts.audio.mel import MelAnalysis, hz_to_mel, mel_filters, mel_to_hz
from tts.config import AudioConfig
from tts.data.corpus import read_corpus
from tts.errors import DataError

CONFIGS = {
    "default": AudioConfig(),
    "16 kHz": AudioConfig(sample_rate=16000, window_length=800, hop_length=200, mels=64, min_hz=50, max_hz=7600),
    "short windows": AudioConfig(sample_rate=8000, window_length=64, hop_length=32, mels=8, max_hz=4000, log_floor=1e-3),
}


def by_librosa(samples, config):
    magnitude = librosa.feature.melspectrogram(
        y=samples, sr=config.sample_rate, n_fft=config.window_length, hop_length=config.hop_length, n_mels=config.mels, fmin=config.min_hz,
        fmax=config.max_hz, power=1, pad_mode="reflect",
    )  # fmt: skip
    return np.log(np.maximum(magnitude, config.log_floor)).T


def sound(samples, seed=0):
    """Noise under a falling tone: energy in every band."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / 22050
    return (0.3 * np.sin(2 * np.pi * 3000 * time**0.7) + random.normal(0, 0.02, samples)).astype(np.float32)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_agrees_with_librosa(config):
    samples = sound(30_000)
    ours = MelAnalysis(config)(torch.from_numpy(samples)).numpy()
    theirs = by_librosa(samples, config)
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


def test_agrees_with_librosa_on_speech(corpus):
    """librosa transforms in double precision. In single precision, cells 90 dB under the loudest of their frame carry its rounding: up to 5e-4."""
    for clip in read_corpus(corpus):
        samples, _ = soundfile.read(clip.audio, dtype="float32")
        ours, theirs = MelAnalysis(AudioConfig())(torch.from_numpy(samples)).numpy(), by_librosa(samples, AudioConfig())
        np.testing.assert_allclose(ours, theirs, atol=5e-4, rtol=0)
        assert (np.abs(ours - theirs) > 1e-4).mean() < 5e-3
        assert np.abs(ours - theirs).mean() < 1e-5


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_filters_are_librosas(config):
    theirs = librosa.filters.mel(sr=config.sample_rate, n_fft=config.window_length, n_mels=config.mels, fmin=config.min_hz, fmax=config.max_hz)
    np.testing.assert_allclose(mel_filters(config), theirs, atol=1e-7)


@given(st.floats(0, 24_000))
def test_mel_scale_is_slaneys_and_inverts(hz):
    mel = hz_to_mel(np.array(hz))
    assert mel == pytest.approx(librosa.hz_to_mel(hz), abs=1e-9)
    assert mel_to_hz(mel) == pytest.approx(hz, rel=1e-9, abs=1e-9)


@given(st.integers(513, 70_000))
def test_frames_for_any_length(samples):
    analysis = MelAnalysis(AudioConfig())
    mel = analysis(torch.from_numpy(sound(samples)))
    assert mel.shape == (1 + samples // 256, 80)
    assert len(mel) == analysis.frames(samples)
    assert torch.isfinite(mel).all()


def test_long_clips_are_analysed_as_one():
    """More frames than one block holds, and a length that is no multiple of it."""
    samples = sound(256 * 300 + 77)
    np.testing.assert_allclose(MelAnalysis(AudioConfig())(torch.from_numpy(samples)).numpy(), by_librosa(samples, AudioConfig()), atol=1e-4, rtol=0)


def test_rows_of_a_batch_do_not_mix():
    rows = torch.from_numpy(np.stack([sound(9000, seed) for seed in range(3)]))
    analysis = MelAnalysis(AudioConfig())
    batch = analysis(rows)
    for row, mel in zip(rows, batch, strict=True):
        torch.testing.assert_close(analysis(row), mel, rtol=0, atol=1e-6)


def test_silence_lies_at_the_floor():
    config = AudioConfig()
    mel = MelAnalysis(config)(torch.zeros(4000))
    torch.testing.assert_close(mel, torch.full_like(mel, np.log(config.log_floor)))


@pytest.mark.parametrize("samples", [0, 1, 512])
def test_too_short_to_mirror(samples):
    with pytest.raises(DataError, match=f"{samples} samples is too short"):
        MelAnalysis(AudioConfig())(torch.zeros(samples))
