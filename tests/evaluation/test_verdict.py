"""Figures over sentences, and the thresholds."""

import math
from dataclasses import replace

import pytest

from tts.config import EvaluationConfig
from tts.evaluation.verdict import Judged, attention_failed, judge, total

ATTENTION = {
    "entropy": 0.2, "focus": 0.8, "diagonality": 0.9, "coverage": 1.0, "monotonicity": 1.0, "repetitions": 0.0, "skips": 0.0, "end_reached": 1.0,
}  # fmt: skip
GOOD = Judged("a", "hello", 6, 2.0, 2.5, "gate", 4.0, 1.25, ATTENTION, 0.5, 0.5)
LIMITED = replace(GOOD, id="b", stop_reason="length limit", generated_seconds=7.5, duration_ratio=3.75, mel_cepstral_distortion=8.0)
BROKEN = replace(GOOD, id="c", mel_cepstral_distortion=math.nan, attention=dict.fromkeys(ATTENTION, math.nan))
CONFIG = EvaluationConfig(max_mel_cepstral_distortion=6.0, min_stopped_share=0.5, min_diagonality=0.9)


def test_figures_are_means_over_sentences():
    figures = total([GOOD, LIMITED])
    assert figures["mel_cepstral_distortion"] == pytest.approx(6)
    assert figures["stopped_share"] == 0.5
    assert figures["duration_ratio"] == pytest.approx(2.5)
    assert figures["real_time_factor"] == pytest.approx(2.0 / 10)
    assert figures["failed_attention_share"] == 0
    assert figures["attention_diagonality"] == pytest.approx(0.9)


def test_at_the_thresholds_a_voice_passes():
    verdict = judge(total([GOOD, LIMITED]), CONFIG)
    assert verdict.passed
    assert [(criterion.name, criterion.threshold, criterion.passed) for criterion in verdict.criteria] == [
        ("mel_cepstral_distortion", 6.0, True),
        ("stopped_share", 0.5, True),
        ("attention_diagonality", 0.9, True),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("mel_cepstral_distortion", 6.01), ("stopped_share", 0.49), ("attention_diagonality", 0.89)],
)
@pytest.mark.parametrize("spoilt", [False, True])
def test_each_criterion_alone_fails_a_voice(name: str, value: float, spoilt: bool):
    verdict = judge(total([GOOD, LIMITED]) | {name: math.nan if spoilt else value}, CONFIG)
    assert not verdict.passed
    assert [criterion.name for criterion in verdict.criteria if not criterion.passed] == [name]


def test_infinite_figures_never_pass():
    figures = total([GOOD]) | {"attention_diagonality": math.inf}
    assert not judge(figures, CONFIG).passed


def test_a_sentence_that_could_not_be_measured_is_not_left_out():
    figures = total([GOOD, BROKEN])
    assert math.isnan(figures["mel_cepstral_distortion"])
    assert math.isnan(figures["attention_diagonality"])
    assert figures["failed_attention_share"] == 0.5
    assert not judge(figures, CONFIG).passed


@pytest.mark.parametrize(
    ("change", "failed"),
    [({}, False), ({"repetitions": 1.0}, True), ({"skips": 2.0}, True), ({"end_reached": 0.0}, True), ({"skips": math.nan}, True)],
)
def test_attention_fails_by_repeating_skipping_or_ending_early(change: dict[str, float], failed: bool):
    assert attention_failed(ATTENTION | change) == failed


def test_a_voice_with_a_recogniser_has_one_figure_more():
    heard = [replace(GOOD, recogniser_error_rate=rate) for rate in (0.1, 0.4)]
    assert total(heard) == pytest.approx(total([GOOD]) | {"recogniser_error_rate": 0.25})
