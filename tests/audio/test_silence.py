import librosa
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.audio.silence import frame_levels, trim
from tts.config import AudioConfig


def clip(before, during, after, seed=0):
    random = np.random.default_rng(seed)
    levels = np.concatenate((np.full(before, 1e-4), np.full(during, 0.3), np.full(after, 1e-4)))
    return (random.normal(0, 1, len(levels)) * levels).astype(np.float32)


def by_librosa(samples, config):
    return librosa.effects.trim(samples, top_db=config.trim_db, frame_length=config.window_length, hop_length=config.hop_length)[0]


@given(st.integers(0, 9000), st.integers(1, 9000), st.integers(0, 9000), st.sampled_from([20.0, 45.0, 80.0]))
def test_agrees_with_librosa(before, during, after, trim_db):
    config = AudioConfig(trim_db=trim_db)
    samples = clip(before, during, after)
    np.testing.assert_array_equal(trim(samples, config), by_librosa(samples, config))


def test_levels_are_librosas():
    samples = clip(1000, 5000, 123)
    theirs = librosa.feature.rms(y=samples, frame_length=1024, hop_length=256)[0]
    np.testing.assert_allclose(frame_levels(samples, AudioConfig()), theirs, rtol=1e-4)


def test_zero_keeps_all():
    samples = clip(5000, 5000, 5000)
    assert trim(samples, AudioConfig(trim_db=0)) is samples


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(4000, np.float32)], ids=["empty", "silent"])
def test_nothing_to_measure_by(samples):
    assert len(trim(samples, AudioConfig())) == len(samples)


@pytest.mark.parametrize("trim_db", [1e-3, 1e-20])
def test_a_tiny_limit_keeps_the_loudest_frame(trim_db):
    # Built past the configuration's own bounds: the arithmetic holds by itself.
    config = AudioConfig().model_copy(update={"trim_db": trim_db})
    assert 256 <= len(trim(clip(5000, 5000, 5000), config)) < 5000


def test_samples_without_a_level_stay_as_they_are():
    samples = np.full(4000, np.nan, dtype=np.float32)
    assert trim(samples, AudioConfig()) is samples


def test_no_copy():
    samples = clip(5000, 5000, 5000)
    assert np.shares_memory(trim(samples, AudioConfig()), samples)
