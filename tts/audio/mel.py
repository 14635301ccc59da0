"""Mel analysis: log of clamped magnitudes in Slaney's bands, as NVIDIA/tacotron2 computes it and librosa confirms.

Shape letters: L samples, T frames, F frequency bins, M mels, W window.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tts.config import AudioConfig
from tts.errors import DataError

_LINEAR_HZ = 200.0 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ
_LOG_STEP = np.log(6.4) / 27


def hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's scale: linear up to 1000 Hz, then logarithmic."""
    return np.where(hz < _BREAK_HZ, hz / _LINEAR_HZ, _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP)


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of hz_to_mel."""
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ, _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL)))


def mel_filters(config: AudioConfig) -> NDArray[np.float32]:
    """(M, F) triangular filters of equal area (Slaney's norm), equal to `librosa.filters.mel`."""
    bins = np.linspace(0, config.sample_rate / 2, 1 + config.window_length // 2)
    low, high = hz_to_mel(np.array([config.min_hz, config.max_hz]))
    edges = mel_to_hz(np.linspace(low, high, config.mels + 2))
    rising = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.maximum(0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return filters.astype(np.float32)


class MelAnalysis:
    """Samples into log mel frames. Frame t is centred on sample t * hop_length; the ends are mirrored."""

    def __init__(self, config: AudioConfig) -> None:
        self.config = config
        self._window_W, self._filters_FM = _constants(config)

    def frames(self, samples: int) -> int:
        """Frames of a clip of so many samples: T = 1 + L // hop_length."""
        return 1 + samples // self.config.hop_length

    def __call__(self, samples: Tensor) -> Tensor:
        """(L,) or (B, L) float32 samples into (T, M) or (B, T, M) natural logs of magnitudes clamped to log_floor.

        Raises DataError for a clip that is too short to be mirrored at its ends (half a window).
        """
        half = self.config.window_length // 2
        if samples.shape[-1] <= half:
            raise DataError(f"a clip of {samples.shape[-1]} samples is too short to analyse: a window needs more than {half}")
        spectrum_FT = torch.stft(
            samples,
            self.config.window_length,
            self.config.hop_length,
            window=self._window_W,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        magnitude_TF = spectrum_FT.abs().transpose(-1, -2)
        return (magnitude_TF @ self._filters_FM).clamp_(min=self.config.log_floor).log_()


@lru_cache(maxsize=8)
def _constants(config: AudioConfig) -> tuple[Tensor, Tensor]:
    return torch.hann_window(config.window_length), torch.from_numpy(mel_filters(config).T.copy())
