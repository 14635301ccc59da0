"""Recordings in and out: any format of libsndfile in, 16-bit WAV out."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from tts.errors import DataError
from tts.storage import writing

FULL_SCALE = 32767 / 32768
"""The largest positive sample of 16 bits."""


@dataclass(frozen=True)
class Recording:
    """Mono samples at the wanted rate, and what it took to get there."""

    samples: NDArray[np.float32]
    """(L,), full scale is 1."""
    sample_rate: int
    """Hz."""
    resampled: bool
    mixed_down: bool
    """More than one channel was averaged into one."""
    clipped_share: float
    """Share of the samples as recorded, over all channels, that stand at full scale."""


def read_wav(path: Path, sample_rate: int) -> Recording:
    """One recording as float32 mono at `sample_rate`. Raises DataError with the reason when it cannot be read."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"{path} cannot be read as audio: {_reason(error)}") from error
    if not np.isfinite(samples).all():
        raise DataError(f"{path} holds samples that are not finite numbers")
    clipped = float(np.mean(np.abs(samples) >= FULL_SCALE)) if samples.size else 0.0
    mono = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    if rate != sample_rate and len(mono):
        mono = soxr.resample(mono, rate, sample_rate, quality="HQ")
    return Recording(np.ascontiguousarray(mono, dtype=np.float32), sample_rate, rate != sample_rate, samples.shape[1] > 1, clipped)


def write_wav(path: Path, samples: NDArray[np.float32], sample_rate: int) -> None:
    """Writes 16-bit mono WAV whole or not at all; samples beyond full scale are clipped. Raises CannotWriteError."""
    with writing(path) as file:
        file.write(wav_bytes(samples, sample_rate))


def wav_bytes(samples: NDArray[np.float32], sample_rate: int) -> bytes:
    """A 16-bit mono WAV file in memory; samples (L,) beyond full scale are clipped."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1.0, 1.0), sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _reason(error: Exception) -> str:
    if isinstance(error, soundfile.LibsndfileError):
        return str(error.error_string).strip().rstrip(".")
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
