"""Recordings in and out: any format of libsndfile in, 16-bit WAV out."""

import io
import math
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
LOUDEST = 8.0
"""Level, 18 dB beyond full scale, above which a floating-point file counts as damaged: no mastering leaves that much."""
BLOCK = 1 << 16
"""Frames decoded at once: memory follows what a file holds, not what its header claims."""
DENSEST = 8192
"""Frames that one byte of a file stands for at most. Digital silence in FLAC, the densest there is, has some 6,500."""


class TooLongError(DataError):
    """A recording beyond the length that the caller asked for; it was not decoded."""


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


def read_wav(path: Path, sample_rate: int, *, longest: float = math.inf) -> Recording:
    """One recording as float32 mono at `sample_rate`.

    Raises DataError with the reason when it cannot be read, and TooLongError when its header says more than `longest` seconds.
    """
    samples, rate = _decoded(path, longest)
    if not np.isfinite(samples).all():
        raise DataError(f"{path} holds samples that are not finite numbers")
    # So bounded, neither the mean over channels nor the resampling can overflow.
    magnitude = np.abs(samples)
    if magnitude.max() > LOUDEST:
        raise DataError(f"{path} holds a sample of level {magnitude.max():.3g}, far beyond full scale (at most {LOUDEST} is read): it is damaged")
    clipped = float(np.mean(magnitude >= FULL_SCALE))
    mono = samples.mean(axis=1, dtype=np.float64) if samples.shape[1] > 1 else samples[:, 0]
    if rate != sample_rate:
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


def _decoded(path: Path, longest: float) -> tuple[NDArray[np.float32], int]:
    """(L, channels) samples, at least one, and their rate."""
    try:
        with soundfile.SoundFile(path) as file:
            claimed, rate = file.frames, file.samplerate
            if claimed > DENSEST * path.stat().st_size:
                raise DataError(f"{path} cannot be read as audio: its header claims {claimed:,} samples, more than the file can hold")
            if claimed > longest * rate:
                raise TooLongError(f"{path} lasts {claimed / rate:,.1f} s by its header")
            blocks = [np.zeros((0, file.channels), dtype=np.float32)]
            while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                blocks.append(block)
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"{path} cannot be read as audio: {_reason(error)}") from error
    samples = np.concatenate(blocks)
    if len(samples) < claimed:
        raise DataError(f"{path} cannot be read as audio: it is cut short ({len(samples):,} of {claimed:,} samples)")
    if not len(samples):
        raise DataError(f"{path} holds no samples")
    return samples, rate


def _reason(error: Exception) -> str:
    if isinstance(error, soundfile.LibsndfileError):
        return str(error.error_string).strip().rstrip(".")
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
