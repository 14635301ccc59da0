"""The speaking style that somebody asks for: that of a recording, or weights of the style tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tts.audio.mel import MelAnalysis
from tts.audio.silence import trim
from tts.audio.wav import read_wav
from tts.errors import UsageError
from tts.training.checkpoint import LoadedModel


@dataclass(frozen=True)
class Style:
    """Nothing set is the mean style of training."""

    reference: Path | None = None
    """A recording to speak like."""
    weights: Sequence[float] | None = None
    """One number for each style token, the same in all heads. They need not add up to 1: more is more of it, less than 0 its opposite."""


def style_weights(style: Style, voice: LoadedModel) -> torch.Tensor | None:
    """(H, K) weights on the voice's device; None for the mean of training. Raises UsageError, and DataError for a damaged recording."""
    if style.reference is None and style.weights is None:
        return None
    bank = voice.model.style
    if bank is None:
        raise UsageError("the voice has no speaking styles (model.style_tokens is 0); leave reference and style out")
    if style.reference is not None and style.weights is not None:
        raise UsageError("a reference and a style were both given; the style is that of one of them")
    heads, tokens = bank.mean_HK.shape
    if style.weights is not None:
        if len(style.weights) != tokens:
            raise UsageError(f"a style has {tokens} numbers, one for each style token of this voice, got {len(style.weights)}")
        return torch.tensor(list(style.weights)).to(bank.mean_HK).expand(heads, tokens)
    return _style_of(style.reference, voice) if style.reference else None


def parsed_weights(text: str) -> tuple[float, ...]:
    """Numbers divided by commas, such as 0.3,0,0.7. Raises UsageError."""
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = ()
    if not weights or not all(abs(weight) < float("inf") for weight in weights):
        raise UsageError(f"a style is numbers divided by commas, such as 0.3,0,0.7; got {text!r}")
    return weights


def _style_of(reference: Path, voice: LoadedModel) -> torch.Tensor:
    audio = voice.config.audio
    samples = trim(read_wav(reference, audio.sample_rate).samples, audio)
    mel_TM = MelAnalysis(audio)(torch.from_numpy(samples)).to(next(voice.model.parameters()).device)
    return voice.model.style_of(mel_TM[None], torch.tensor([len(mel_TM)], device=mel_TM.device))[0]
