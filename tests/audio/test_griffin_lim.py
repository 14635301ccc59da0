import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import get_window, istft, stft

from tts.audio.griffin_lim import mel_to_magnitude, mel_to_wave
from tts.audio.mel import MelAnalysis, mel_filters
from tts.config import AudioConfig
from tts.data.corpus import read_corpus

CONFIG = AudioConfig()


@pytest.fixture(scope="module")
def speech(corpus):
    samples, _ = soundfile.read(read_corpus(corpus)[0].audio, dtype="float32")
    return samples[: 256 * 120]


@pytest.fixture(scope="module")
def mel(speech):
    return MelAnalysis(CONFIG)(torch.from_numpy(speech)).numpy()


def distance(samples, mel):
    """Mean difference of log mel cells, the mirrored ends left out."""
    again = MelAnalysis(CONFIG)(torch.from_numpy(samples)).numpy()
    return np.abs(again[2:-2] - mel[2:-2]).mean()


def test_sound_has_the_mel_it_was_made_from(mel):
    samples = mel_to_wave(mel, CONFIG, iterations=30, seed=0)
    assert samples.dtype == np.float32
    assert len(samples) == (len(mel) - 1) * CONFIG.hop_length
    assert distance(samples, mel) < 0.35


def plain_griffin_lim(magnitude_FT, iterations):
    """Griffin and Lim 1984 without momentum, by scipy."""
    size = {"nperseg": 1024, "noverlap": 768}
    angles = np.exp(2j * np.pi * np.random.default_rng(0).random(magnitude_FT.shape))
    for _ in range(iterations):
        _, samples = istft(magnitude_FT * angles, **size)
        angles = np.exp(1j * np.angle(stft(samples, **size)[2][:, : magnitude_FT.shape[1]]))
    # scipy scales spectra by the window's sum.
    return (istft(magnitude_FT * angles, **size)[1] / get_window("hann", 1024).sum()).astype(np.float32)


def test_momentum_comes_closer_than_the_plain_algorithm(mel):
    """From the same magnitudes, so that only the phases are compared."""
    magnitude_FT = mel_to_magnitude(torch.from_numpy(mel), CONFIG).numpy()
    ours = mel_to_wave(mel, CONFIG, iterations=30, seed=0)
    plain = plain_griffin_lim(magnitude_FT, 30)
    assert len(plain) == len(ours)
    assert distance(ours, mel) < distance(plain, mel) < 0.5


def test_more_iterations_come_closer(mel):
    few, many = (mel_to_wave(mel, CONFIG, iterations=count, seed=0) for count in (1, 30))
    assert distance(many, mel) < 0.8 * distance(few, mel)


def test_magnitudes_give_back_the_mel(mel):
    magnitude_FT = mel_to_magnitude(torch.from_numpy(mel), CONFIG).numpy()
    assert (magnitude_FT >= 0).all()
    again = np.log(np.maximum(mel_filters(CONFIG) @ magnitude_FT, CONFIG.log_floor)).T
    assert np.abs(again - mel).mean() < 0.01
    # Above max_hz no band listens, so nothing is made up there.
    assert magnitude_FT[373:].max() == 0


def test_seed_decides(mel):
    first, again, other = (mel_to_wave(mel, CONFIG, iterations=2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.parametrize("frames", range(7))
def test_few_frames(mel, frames):
    samples = mel_to_wave(mel[:frames], CONFIG, iterations=2, seed=0)
    assert samples.shape == (max(0, frames - 1) * CONFIG.hop_length,)
    assert np.isfinite(samples).all()


def test_silence_stays_silent():
    samples = mel_to_wave(np.full((20, 80), np.log(CONFIG.log_floor), dtype=np.float32), CONFIG, iterations=5, seed=0)
    assert np.abs(samples).max() < 1e-3
