"""Pictures: inline, in the page's colours, the same for the same figures, and drawn for odd input too."""

import math
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.config import AudioConfig
from tts.diagnostics.figures import COLOURS, HALF, INK, WHOLE, legend_above, line, scale_for, sketch
from tts.diagnostics.images import COLUMNS, alignment_picture, alignment_strip, colour_range, gate_picture, mel_picture, seconds

AUDIO = AudioConfig()


def parse(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314  our own


def images(svg: str) -> list[str]:
    return [element.get("{http://www.w3.org/1999/xlink}href", "") for element in parse(svg).iter("{http://www.w3.org/2000/svg}image")]


def words(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in parse(svg).iter("{http://www.w3.org/2000/svg}text")]


def draw(label: str = "a <label>") -> str:
    with sketch(HALF, label) as picture:
        axes = picture.axes("steps", "loss, nats")
        line(axes, [0, 1, 2], [1, math.nan, 3], 0, "training")
        line(axes, [1], [2], 1, "single")
        legend_above(axes)
    return picture.svg


def test_svg_is_sized_and_coloured_by_the_page():
    svg = draw()
    root = parse(svg)
    assert root.get("viewBox")
    assert root.get("width") is None
    assert root.get("height") is None
    assert root.get("aria-label") == "a <label>"
    assert INK not in svg
    assert "currentColor" in svg
    assert f"var(--colour-0, {COLOURS[0]})" in svg
    assert {"steps", "loss, nats", "training", "single"} <= set(words(svg))


def test_same_figures_same_bytes():
    assert draw() == draw()
    assert draw("other") != draw()


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=8))
def test_scale_is_logarithmic_only_for_positive_values(values: list[float]):
    finite = [value for value in values if math.isfinite(value)]
    expected = bool(finite) and min(finite) > 0 and max(finite) > 20 * min(finite)
    assert (scale_for(values) == "log") == expected


def test_alignment_names_the_words_and_the_end():
    text = "see the cat"
    svg = alignment_picture(np.eye(24, len(text) + 1, dtype=np.float32), text, 1.2)
    assert {"see", "the", "cat", "end"} <= set(words(svg))
    assert len(images(svg)) == 2  # the matrix and the colour bar
    assert all(source.startswith("data:image/png;base64,") for source in images(svg))


def test_words_of_a_long_text_do_not_overlap():
    text = " ".join(["a"] * 120)
    svg = alignment_picture(np.full((50, len(text) + 1), 0.1, dtype=np.float32), text, 3.0)
    assert 5 < words(svg).count("a") < 40


def test_symbols_are_numbered_where_they_are_no_characters():
    assert "symbol number" in words(alignment_picture(np.eye(4, 9, dtype=np.float32), "see", 1.0))


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (3, 0), (2, 9)])
def test_odd_alignments_are_drawn(shape: tuple[int, int]):
    svg = alignment_picture(np.full(shape, np.nan, dtype=np.float32), "abc", 0.1)
    assert ("no decoder step" in words(svg)) == (0 in shape)


def test_strip_has_a_panel_for_each_step():
    svg = alignment_strip([(100, np.eye(5)), (2000, np.eye(5)), (30000, np.eye(5))], size=WHOLE)
    assert {"training step 100", "2,000", "30,000"} <= set(words(svg))
    assert len(images(svg)) == 3


def test_gate_shows_threshold_and_true_end_if_known():
    gate = np.linspace(0, 1, 50, dtype=np.float32)
    assert {"stop gate", "threshold 0.5", "true end"} <= set(words(gate_picture(gate, AUDIO, size=HALF, true_frames=40)))
    unknown = words(gate_picture(gate[:1], AUDIO, size=HALF, threshold=0.4))
    assert "threshold 0.4" in unknown
    assert "true end" not in unknown


@pytest.mark.parametrize("frames", [0, 1, 2, COLUMNS, 3 * COLUMNS])
def test_spectrograms_of_any_length(frames: int):
    mel = np.random.default_rng(0).normal(size=(frames, 80)).astype(np.float32)
    svg = mel_picture(mel, AUDIO, size=HALF, frames=frames, low=-3, high=3)
    assert ("no frame" in words(svg)) == (frames == 0)
    assert len(svg) < 450_000


def test_a_spectrogram_that_is_not_finite_is_drawn():
    svg = mel_picture(np.full((5, 80), np.nan), AUDIO, size=HALF, frames=5, low=0, high=1)
    assert len(images(svg)) == 2


def test_colour_range():
    assert colour_range(np.full((3, 4), np.nan)) == (0, 1)
    low, high = colour_range(np.array([[1.0, np.inf], [2.0, 3.0]]))
    assert 1 <= low < high <= 3
    assert colour_range(np.zeros((2, 2))) == (0, pytest.approx(1e-3))


def test_seconds():
    assert seconds(22050 / 256, AUDIO) == pytest.approx(1)
