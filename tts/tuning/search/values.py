"""Which trials are the best of a study: of one objective the lowest, of several the Pareto set and the compromise in it.

Imported trials are never among them: another study made them, on other steps or data perhaps, and their runs are not in this study's folder.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from tts.tuning.database.attributes import IMPORTED


def candidates(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The completed trials of the study's own."""
    return [trial for trial in trials if trial.state == TrialState.COMPLETE and IMPORTED not in trial.user_attrs]


def pareto(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The candidates that no other one dominates: is at most as high in every objective and lower in one. By number.

    Of one objective: those with the lowest value.
    """
    among = candidates(trials)
    values_KO = _values(among)
    return [trial for trial, own_O in zip(among, values_KO, strict=True) if not _dominated(own_O, values_KO)]


def chosen(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The trial for best.yaml; None where none completed.

    Of one objective the lowest. Of several the member of the Pareto set nearest to the ideal point, the lowest value of each objective in the
    set, where each objective is scaled to its range in the set: no objective counts more for being measured in larger numbers (the
    compromise solution of Zeleny 1973, Euclidean). The first of equals.
    """
    best = pareto(trials)
    if not best:
        return None
    values_KO = _values(best)
    low_O, range_O = values_KO.min(axis=0), np.ptp(values_KO, axis=0)
    distances_K = np.linalg.norm((values_KO - low_O) / np.where(range_O > 0, range_O, 1.0), axis=1)
    return best[int(distances_K.argmin())]


def _dominated(own_O: NDArray[np.float64], values_KO: NDArray[np.float64]) -> bool:
    return bool(((values_KO <= own_O).all(axis=1) & (values_KO < own_O).any(axis=1)).any())


def _values(trials: Sequence[FrozenTrial]) -> NDArray[np.float64]:
    """Shape (trials, objectives)."""
    return np.array([trial.values for trial in trials], dtype=np.float64)
