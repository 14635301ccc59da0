"""Whether a voice passes: figures over the sentences against the thresholds of the configuration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tts.config import EvaluationConfig
from tts.evaluation.synthesis import StopReason


@dataclass(frozen=True)
class Judged:
    """One sentence, spoken and measured."""

    id: str
    text: str
    """Normalised."""
    symbols: int
    """End of sequence included."""
    reference_seconds: float
    generated_seconds: float
    stop_reason: StopReason
    mel_cepstral_distortion: float
    """dB; NaN where nothing could be measured."""
    duration_ratio: float
    """Generated over recorded."""
    attention: dict[str, float]
    network_seconds: float
    vocoder_seconds: float
    recogniser_error_rate: float | None = None
    """Errors of what the voice's own recogniser heard, a label of the text; None where it has none."""
    speaker: str = ""
    """Empty where the features name none."""


@dataclass(frozen=True)
class Criterion:
    """One requirement. A value that is not finite never passes."""

    name: str
    value: float
    requirement: Literal["at most", "at least"]
    threshold: float
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """Passed when every criterion is."""

    passed: bool
    criteria: tuple[Criterion, ...]


def total(sentences: Sequence[Judged]) -> dict[str, float]:
    """Figures over all sentences: means of what was measured in each, and the speed.

    A mean over sentences one of which could not be measured is NaN: leaving it out would make a voice better by failing.
    real_time_factor: time for network and vocoder per second of speech; below 1 is faster than speech.
    recogniser_error_rate: only of a voice with a recogniser.
    failed_attention_share: sentences that repeat or skip text, or do not reach its end, or whose attention is none.
    """
    attention = {name: _mean([sentence.attention[name] for sentence in sentences]) for name in sentences[0].attention}
    spoken = sum(sentence.generated_seconds for sentence in sentences)
    spent = sum(sentence.network_seconds + sentence.vocoder_seconds for sentence in sentences)
    heard = [sentence.recogniser_error_rate for sentence in sentences if sentence.recogniser_error_rate is not None]
    return {
        "mel_cepstral_distortion": _mean([sentence.mel_cepstral_distortion for sentence in sentences]),
        "stopped_share": _mean([float(sentence.stop_reason == "gate") for sentence in sentences]),
        "duration_ratio": _mean([sentence.duration_ratio for sentence in sentences]),
        "real_time_factor": spent / spoken if spoken else math.nan,
        "failed_attention_share": _mean([float(attention_failed(sentence.attention)) for sentence in sentences]),
        **{f"attention_{name}": value for name, value in attention.items()},
        **({"recogniser_error_rate": _mean(heard)} if heard else {}),
    }


def attention_failed(attention: dict[str, float]) -> bool:
    """Whether a sentence was not read through once from beginning to end, by its attention."""
    return not (attention["repetitions"] == 0 and attention["skips"] == 0 and attention["end_reached"] == 1)


def judge(figures: dict[str, float], config: EvaluationConfig) -> Verdict:
    """The figures against the thresholds."""
    criteria = (
        _at_most("mel_cepstral_distortion", figures, config.max_mel_cepstral_distortion),
        _at_least("stopped_share", figures, config.min_stopped_share),
        _at_least("attention_diagonality", figures, config.min_diagonality),
    )
    return Verdict(all(criterion.passed for criterion in criteria), criteria)


def _at_most(name: str, figures: dict[str, float], threshold: float) -> Criterion:
    return Criterion(name, figures[name], "at most", threshold, passed=figures[name] <= threshold)


def _at_least(name: str, figures: dict[str, float], threshold: float) -> Criterion:
    return Criterion(name, figures[name], "at least", threshold, passed=math.isfinite(figures[name]) and figures[name] >= threshold)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
