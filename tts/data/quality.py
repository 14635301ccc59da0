"""Quality control: which clips are not trained on, each with its reason.

Pure functions of measures; reading the clips is extraction's work.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tts.config import QualityConfig
from tts.errors import DataError

Reason = Literal["unreadable", "empty_text", "unknown_symbol", "silent", "clipped", "too_short", "too_long", "rate_outlier", "duplicate"]
MAD_TO_DEVIATION = 1.4826
"""Turns the median absolute deviation of normal data into its standard deviation."""
LEAST_DEVIATION = 0.05
"""Share of the median that a deviation counts for at least: in very even speech, small differences are no reason."""

FEWEST_RATES = 10
"""Clips below which speaking rates are not compared: a median of so few says little of the others."""


@dataclass(frozen=True)
class Rejection:
    """A clip that is left out."""

    id: str
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Measures:
    """What quality control knows of a readable clip."""

    id: str
    text: str
    """Normalised."""
    seconds: float
    """Without silence at the ends."""
    trimmed_seconds: float
    """Silence that was cut from the ends."""
    peak: float
    """Largest magnitude, full scale is 1."""
    clipped_share: float
    digest: str
    """Hash of the samples."""
    resampled: bool
    mixed_down: bool
    dropped_characters: int
    speaker: str = ""
    """Empty where the corpus names none."""

    @property
    def rate(self) -> float:
        """Characters per second."""
        return len(self.text) / self.seconds


def check_clip(clip: Measures, config: QualityConfig) -> Rejection | None:
    """The first reason to reject a clip that shows in the clip alone."""
    peak_dbfs = 20 * np.log10(max(clip.peak, 1e-10))
    if not any(character.isalpha() for character in clip.text):
        return Rejection(clip.id, "empty_text", f"text {clip.text!r} has no letter")
    if peak_dbfs < config.silence_dbfs:
        return Rejection(clip.id, "silent", f"peak {peak_dbfs:.1f} dBFS is below quality.silence_dbfs ({config.silence_dbfs})")
    if clip.clipped_share > config.max_clipped_share:
        detail = f"{clip.clipped_share:.1%} of the samples are at full scale, more than quality.max_clipped_share ({config.max_clipped_share:.1%})"
        return Rejection(clip.id, "clipped", detail)
    if clip.seconds < config.min_seconds:
        return Rejection(clip.id, "too_short", f"{clip.seconds:.2f} s is below quality.min_seconds ({config.min_seconds})")
    if clip.seconds > config.max_seconds:
        return Rejection(clip.id, "too_long", f"{clip.seconds:.2f} s is above quality.max_seconds ({config.max_seconds})")
    return None


def check_corpus(clips: Sequence[Measures], config: QualityConfig) -> list[Rejection]:
    """Reasons that show only beside the other clips: duplicates and, from FEWEST_RATES clips of a speaker on, speech too fast or slow for its text.

    Rates are compared within a speaker's clips: people differ by more than a clip with a wrong transcript does.
    """
    rejections: list[Rejection] = []
    first: dict[tuple[str, str], str] = {}
    for clip in clips:
        twin = first.setdefault((clip.text, clip.digest), clip.id)
        if twin != clip.id:
            rejections.append(Rejection(clip.id, "duplicate", f"text and sound are those of {twin!r}"))
    duplicates = {rejection.id for rejection in rejections}
    for name in sorted({clip.speaker for clip in clips}):
        of_speaker = [clip for clip in clips if clip.speaker == name]
        if len(of_speaker) >= FEWEST_RATES:
            rejections += _odd_rates(of_speaker, duplicates, config)
    return rejections


def _odd_rates(clips: Sequence[Measures], duplicates: set[str], config: QualityConfig) -> list[Rejection]:
    """Of one speaker's clips."""
    rejections: list[Rejection] = []
    deviations, median = _robust_deviations(np.array([clip.rate for clip in clips]))
    for clip, deviation in zip(clips, deviations, strict=True):
        if abs(deviation) > config.rate_deviations and clip.id not in duplicates:
            detail = (
                f"{clip.rate:.1f} characters a second against a median of {median:.1f}: {abs(deviation):.1f} robust deviations, "
                f"more than quality.rate_deviations ({config.rate_deviations})"
            )
            rejections.append(Rejection(clip.id, "rate_outlier", detail))
    return rejections


def refuse_if_too_many(rejections: Sequence[Rejection], clips: int, config: QualityConfig) -> None:
    """Raises DataError with the commonest reasons if more than max_rejected_share of the clips are rejected."""
    if len(rejections) <= config.max_rejected_share * clips:
        return
    counts = Counter(rejection.reason for rejection in rejections)
    examples = {rejection.reason: rejection for rejection in reversed(rejections)}
    reasons = "; ".join(f"{count} {reason} (such as {examples[reason].id}: {examples[reason].detail})" for reason, count in counts.most_common(3))
    raise DataError(
        f"{len(rejections)} of {clips} clips are rejected, more than quality.max_rejected_share ({config.max_rejected_share:.0%}) allows: {reasons}"
    )


def report(accepted: Sequence[Measures], rejections: Sequence[Rejection]) -> dict[str, Any]:
    """What `quality.json` holds. `repeated_texts` counts clips that say what an accepted clip before them says: further takes.

    `speakers` is there where the corpus names them.
    """
    names = sorted({clip.speaker for clip in accepted} - {""})
    return {
        "accepted": len(accepted),
        "rejected": [asdict(rejection) for rejection in rejections],
        "counts": {
            **{reason: sum(rejection.reason == reason for rejection in rejections) for reason in get_args(Reason)},
            "resampled": sum(clip.resampled for clip in accepted),
            "mixed_down": sum(clip.mixed_down for clip in accepted),
            "dropped_characters": sum(clip.dropped_characters for clip in accepted),
            "trimmed": sum(clip.trimmed_seconds > 0 for clip in accepted),
            "repeated_texts": len(accepted) - len({clip.text for clip in accepted}),
        },
        "seconds": round(sum(clip.seconds for clip in accepted), 3),
        "trimmed_seconds": round(sum(clip.trimmed_seconds for clip in accepted), 3),
        **_pace(accepted),
        **({"speakers": {name: _share([clip for clip in accepted if clip.speaker == name]) for name in names}} if names else {}),
    }


def _share(clips: Sequence[Measures]) -> dict[str, Any]:
    """What one speaker has of the corpus."""
    return {"accepted": len(clips), "seconds": round(sum(clip.seconds for clip in clips), 3), **_pace(clips)}


def _pace(clips: Sequence[Measures]) -> dict[str, float | None]:
    return {"characters_per_second": round(float(np.median([clip.rate for clip in clips])), 3) if clips else None}


def _robust_deviations(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Distance of each value from the median in robust deviations, and the median."""
    median = float(np.median(values))
    deviation = max(MAD_TO_DEVIATION * float(np.median(np.abs(values - median))), LEAST_DEVIATION * median)
    return (values - median) / deviation, median
