"""Log mel frames back into sound, without a trained vocoder.

Magnitudes by non-negative least squares, phases by the fast Griffin-Lim algorithm (Griffin and Lim 1984; momentum by Perraudin, Balazs and
Søndergaard 2013, with 0.99 as in librosa). Shape letters: L samples, T frames, F frequency bins, M mels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tts.audio.mel import mel_filters
from tts.config import AudioConfig

MOMENTUM = 0.99
INVERSION_STEPS = 50
"""Multiplicative updates of the magnitudes; more change nothing that can be heard."""


def mel_to_wave(mel_TM: NDArray[np.float32], config: AudioConfig, *, iterations: int, seed: int) -> NDArray[np.float32]:
    """Samples (L,) with L = (T - 1) * hop_length, full scale 1, not normalised. The same seed gives the same samples."""
    if len(mel_TM) < 2:
        return np.zeros(0, dtype=np.float32)
    with torch.inference_mode():
        magnitude_FT = mel_to_magnitude(torch.from_numpy(np.array(mel_TM, dtype=np.float32)), config)
        samples: NDArray[np.float32] = _griffin_lim(magnitude_FT, config, iterations, seed).numpy()
    return samples


def mel_to_magnitude(mel_TM: Tensor, config: AudioConfig) -> Tensor:
    """(F, T) magnitudes whose mel bands come closest to the frames: non-negative least squares by the updates of Lee and Seung 1999."""
    filters_MF = torch.from_numpy(mel_filters(config))
    target_TM = mel_TM.exp()
    # A band that no bin falls into says nothing; bins outside all bands stay silent.
    wanted_TF = target_TM @ filters_MF
    magnitude_TF = wanted_TF / filters_MF.square().sum(dim=0).clamp(min=1e-10)
    for _ in range(INVERSION_STEPS):
        got_TF = (magnitude_TF @ filters_MF.T) @ filters_MF
        magnitude_TF = magnitude_TF * wanted_TF / got_TF.clamp(min=1e-10)
    return magnitude_TF.T


def _griffin_lim(magnitude_FT: Tensor, config: AudioConfig, iterations: int, seed: int) -> Tensor:
    size, hop = config.window_length, config.hop_length
    window = torch.hann_window(size)
    length = (magnitude_FT.shape[1] - 1) * hop
    generator = torch.Generator().manual_seed(seed)
    phases_FT = torch.polar(torch.ones_like(magnitude_FT), 2 * torch.pi * torch.rand(magnitude_FT.shape, generator=generator))
    previous_FT = torch.zeros_like(phases_FT)
    for _ in range(iterations):
        samples = torch.istft(magnitude_FT * phases_FT, size, hop, window=window, length=length)
        rebuilt_FT = torch.stft(samples, size, hop, window=window, pad_mode="constant", return_complex=True)
        ahead_FT = rebuilt_FT - MOMENTUM / (1 + MOMENTUM) * previous_FT
        phases_FT = ahead_FT / ahead_FT.abs().clamp(min=1e-16)
        previous_FT = rebuilt_FT
    return torch.istft(magnitude_FT * phases_FT, size, hop, window=window, length=length)
