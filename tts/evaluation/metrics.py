"""How far generated speech is from the recording: mel-cepstral distortion along the best time warping.

Shape letters: T and U frames of the two utterances, M mels, K coefficients.

Kubichek 1993, with the mel cepstrum taken from the log mel spectrogram that the network predicts, so that the vocoder plays no part.
Figures of papers that fit the cepstrum by SPTK or WORLD are near these but not comparable with them.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import dct
from scipy.spatial.distance import cdist

COEFFICIENTS = 13
"""c1 to c13; c0, the loudness, is left out."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Warping:
    """The cheapest path that pairs the frames of two utterances, first with first and last with last."""

    cost: float
    """Sum of the paired frames' distances."""
    length: int
    """Pairs on the path."""


def mel_cepstrum(mel_TM: npt.NDArray[np.floating]) -> Floats:
    """Coefficients c1..c13 (T, K) of a log mel spectrogram.

    c_k = 2/M sum_m x_m cos(pi k (m + 1/2) / M): the orthonormal DCT-II times sqrt(2/M). With this scale x = c_0 + sum_k c_k cos(...),
    as in the cepstrum that the distortion's formula is made for, and a distortion is the root mean square over bands in dB.
    """
    mels = mel_TM.shape[1]
    coefficients: Floats = dct(np.asarray(mel_TM, dtype=np.float64), type=2, norm="ortho", axis=1)
    return coefficients[:, 1 : COEFFICIENTS + 1] * math.sqrt(2 / mels)


def mel_cepstral_distortion(reference_TM: npt.NDArray[np.floating], generated_UM: npt.NDArray[np.floating]) -> float:
    """Mean over the warping path of 10/ln 10 * sqrt(2 sum_k (c_k - c'_k)^2), in dB; 0 for equal spectra.

    NaN when either utterance has no frame or holds a value that is not finite: nothing was measured, and nothing else may be read from it.
    """
    usable = len(reference_TM) and len(generated_UM) and np.isfinite(reference_TM).all() and np.isfinite(generated_UM).all()
    if not usable:
        return math.nan
    distance_TU = 10 / math.log(10) * math.sqrt(2) * cdist(mel_cepstrum(reference_TM), mel_cepstrum(generated_UM))
    path = warp(distance_TU)
    return path.cost / path.length


def warp(distance_TU: Floats) -> Warping:
    """Dynamic time warping with steps (1,1), (1,0) and (0,1), all of weight 1; of equally cheap steps the first of these is taken.

    Cells of one anti-diagonal depend on the two before only, so each is computed as one vector: T + U vector operations instead of T * U.
    Raises ValueError without cells.
    """
    T, U = distance_TU.shape
    if not T or not U:
        raise ValueError(f"warping needs frames on both sides, got {T} and {U}")
    # Row i of these holds cell (i - 1, k - i + 1) of an anti-diagonal k; row 0 and cells outside the matrix are walls.
    cost, before = np.full(T + 1, np.inf), np.full(T + 1, np.inf)
    length, length_before = np.zeros(T + 1, dtype=np.int64), np.zeros(T + 1, dtype=np.int64)
    before[0] = 0.0  # the path comes from outside the corner
    for k in range(T + U - 1):
        low, high = max(0, k - U + 1), min(T - 1, k)
        i = np.arange(low, high + 1)
        candidates = np.stack([before[i], cost[i], cost[i + 1]])
        lengths = np.stack([length_before[i], length[i], length[i + 1]])
        chosen = candidates.argmin(0)
        here, here_length = np.full(T + 1, np.inf), np.zeros(T + 1, dtype=np.int64)
        columns = np.arange(len(i))
        here[i + 1] = candidates[chosen, columns] + distance_TU[i, k - i]
        here_length[i + 1] = lengths[chosen, columns] + 1
        before, length_before, cost, length = cost, length, here, here_length
    return Warping(float(cost[T]), int(length[T]))
