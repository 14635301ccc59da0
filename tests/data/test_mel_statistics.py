import numpy as np
import pytest

from tts.data.store import FeatureStore


def test_mean_and_deviation_of_each_band_are_those_of_all_frames(features):
    store = FeatureStore.open(features)
    frames = np.load(features / "mels.npy").astype(np.float64)
    assert store.mel_mean == pytest.approx(frames.mean(axis=0), abs=1e-5)
    assert store.mel_deviation == pytest.approx(frames.std(axis=0), abs=1e-5)
