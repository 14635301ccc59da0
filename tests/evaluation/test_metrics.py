"""Mel-cepstral distortion against loops and hand-made cases."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts.evaluation.metrics import mel_cepstral_distortion, mel_cepstrum, warp

RANDOM = np.random.default_rng(0)


def naive_warp(distance: np.ndarray) -> tuple[float, int]:
    """Cell by cell, in the order of the textbook."""
    rows, columns = distance.shape
    table = {(-1, -1): (0.0, 0)}
    wall = (math.inf, 0)
    for i in range(rows):
        for j in range(columns):
            steps = [table.get((i - 1, j - 1), wall), table.get((i - 1, j), wall), table.get((i, j - 1), wall)]
            best = min(steps, key=lambda step: step[0])
            table[i, j] = (best[0] + distance[i, j], best[1] + 1)
    return table[rows - 1, columns - 1]


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 15), columns=st.integers(1, 15), seed=st.integers(0, 2**16), ties=st.booleans())
def test_warp_equals_the_loop(rows: int, columns: int, seed: int, ties: bool):
    random = np.random.default_rng(seed)
    distance = random.integers(0, 3, (rows, columns)).astype(float) if ties else random.random((rows, columns))
    path = warp(distance)
    cost, length = naive_warp(distance)
    assert path.cost == pytest.approx(cost)
    assert path.length == length


def test_warp_without_frames_is_refused():
    with pytest.raises(ValueError, match="got 0 and 3"):
        warp(np.zeros((0, 3)))


def test_cepstrum_equals_the_formula():
    mel = RANDOM.normal(size=(4, 20))
    bands = (np.arange(20) + 0.5) / 20
    expected = [[2 / 20 * sum(x * math.cos(math.pi * k * b) for x, b in zip(row, bands, strict=True)) for k in range(1, 14)] for row in mel]
    np.testing.assert_allclose(mel_cepstrum(mel), expected, atol=1e-12)


def test_one_coefficient_by_hand():
    # Spectra that differ by a cosine of amplitude a over the bands differ in one coefficient, by a.
    bands = (np.arange(80) + 0.5) / 80
    reference = np.zeros((3, 80))
    generated = reference + 0.5 * np.cos(np.pi * 4 * bands)
    distortion = mel_cepstral_distortion(reference, generated)
    assert distortion == pytest.approx(10 / math.log(10) * math.sqrt(2 * 0.5**2))
    # And that is the root mean square difference of the two magnitude spectra in dB.
    decibel = 20 / math.log(10) * (generated - reference)
    assert distortion == pytest.approx(math.sqrt((decibel**2).mean()))


def test_identical_is_zero_and_symmetric():
    one, other = RANDOM.normal(size=(50, 80)), RANDOM.normal(size=(40, 80))
    assert mel_cepstral_distortion(one, one) == 0
    assert mel_cepstral_distortion(one, other) == pytest.approx(mel_cepstral_distortion(other, one))
    assert mel_cepstral_distortion(one, other) > 1


def test_loudness_and_slower_speech_cost_nothing():
    mel = RANDOM.normal(size=(30, 80)).astype(np.float32)
    assert mel_cepstral_distortion(mel, mel + 2) == pytest.approx(0, abs=1e-5)
    assert mel_cepstral_distortion(mel, np.repeat(mel, 2, axis=0)) == 0


@pytest.mark.parametrize("spoilt", [np.zeros((0, 80)), np.full((3, 80), np.nan), np.full((3, 80), np.inf)])
def test_what_cannot_be_measured_is_not_a_number(spoilt: np.ndarray):
    good = np.zeros((4, 80))
    assert math.isnan(mel_cepstral_distortion(good, spoilt))
    assert math.isnan(mel_cepstral_distortion(spoilt, good))
