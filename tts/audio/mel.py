"""Mel analysis: log of clamped magnitudes in Slaney's bands, as NVIDIA/tacotron2 computes it and librosa confirms.

Transforms are in single precision, as in the recipes that vocoders are trained with; librosa's are in double. The logarithms agree to 1e-4,
but for cells 90 dB under the loudest of their frame, which carry its rounding (5e-4).
Shape letters: L samples, T frames, F frequency bins, M mels, W window.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tts.config import AudioConfig
from tts.errors import DataError

_LINEAR_HZ = 200.0 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ
_LOG_STEP = np.log(6.4) / 27
_BANDS = 16
_BLOCK = 128
"""Frames analysed at once: their windows fit into a core's cache, however long the clip is."""


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
    """Samples into log mel frames, on the CPU. Frame t is centred on sample t * hop_length; the ends are mirrored."""

    def __init__(self, config: AudioConfig) -> None:
        self.config = config
        self._window_W, self._groups = _constants(config)

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
        mirrored_BL = functional.pad(samples.reshape(-1, samples.shape[-1]), (half, half), mode="reflect")
        # Framing by hand, because torch.stft returns frequencies outermost and its magnitudes then cost as much as its transforms.
        frames_BTW = mirrored_BL.unfold(-1, self.config.window_length, self.config.hop_length)
        mel_BTM = torch.empty(*frames_BTW.shape[:2], self.config.mels)
        for first in range(0, frames_BTW.shape[1], _BLOCK):
            block = slice(first, first + _BLOCK)
            spectrum_BTF = torch.fft.rfft(frames_BTW[:, block] * self._window_W)
            # numpy's magnitude of complex numbers is ten times as fast as torch's.
            magnitude_BTF = torch.from_numpy(np.abs(spectrum_BTF.numpy()))
            for bands, bins, filters_FM in self._groups:
                mel_BTM[:, block, bands] = magnitude_BTF[..., bins] @ filters_FM
        mel_BTM.clamp_(min=self.config.log_floor).log_()
        return mel_BTM if samples.dim() > 1 else mel_BTM[0]


@lru_cache(maxsize=8)
def _constants(config: AudioConfig) -> tuple[Tensor, list[tuple[slice, slice, Tensor]]]:
    """Window (W,), and the filters in groups of neighbouring bands: which bands, which bins they hear, weights (F, M) between these.

    Each band hears few bins, so most of the whole matrix is zeros; groups leave most of those out.
    """
    groups = []
    for first in range(0, config.mels, _BANDS):
        bands = slice(first, min(first + _BANDS, config.mels))
        filters_FM = mel_filters(config)[bands].T
        heard = np.flatnonzero(filters_FM.any(axis=1))
        # A band narrower than the distance of two bins hears none; it stays at the floor.
        bins = slice(int(heard[0]), int(heard[-1]) + 1) if len(heard) else slice(0, 1)
        groups.append((bands, bins, torch.from_numpy(filters_FM[bins].copy())))
    return torch.hann_window(config.window_length), groups
