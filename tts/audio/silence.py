"""Silence at the ends of a recording."""

import numpy as np
from numpy.typing import NDArray

from tts.config import AudioConfig


def trim(samples: NDArray[np.float32], config: AudioConfig) -> NDArray[np.float32]:
    """A view of the samples (L,) without the ends whose level stays trim_db below the loudest frame's; all if no frame has a level.

    Levels are root mean squares over centred windows, as in `librosa.effects.trim`.
    """
    if config.trim_db == 0 or len(samples) == 0:
        return samples
    level = frame_levels(samples, config)
    loudest = level.max()
    if loudest == 0:
        return samples
    # Not `>`: where trim_db is so small that the factor rounds to 1, the loudest frame itself still counts.
    loud = np.flatnonzero(level >= loudest * 10 ** (-config.trim_db / 20))
    if not len(loud):
        return samples
    first, last = int(loud[0]), int(loud[-1])
    return samples[first * config.hop_length : min(len(samples), (last + 1) * config.hop_length)]


def frame_levels(samples: NDArray[np.float32], config: AudioConfig) -> NDArray[np.float64]:
    """Root mean square (T,) over windows centred on each frame; zeros stand beyond the ends. T = 1 + L // hop_length."""
    # Sums over windows as differences of one running sum: the cost does not depend on the window.
    energy = np.concatenate(([0.0], np.cumsum(np.square(samples, dtype=np.float64))))
    centres = np.arange(0, len(samples) + 1, config.hop_length)
    half = config.window_length // 2
    ends = np.minimum(centres + config.window_length - half, len(samples))
    starts = np.maximum(centres - half, 0)
    levels: NDArray[np.float64] = np.sqrt(np.maximum(energy[ends] - energy[starts], 0) / config.window_length)
    return levels
