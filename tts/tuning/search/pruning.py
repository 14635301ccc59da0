"""A report and its verdict, at the price of one transaction.

Optuna's `Trial.should_prune` reads the whole trial anew at each report (six statements through the ORM), and Hyperband asks for the study's id
besides; on PostgreSQL this made two thirds of the time of a trial with ten reports (Optuna 5.0). A worker knows its own trial. The pruner
is Optuna's own, on a study whose storage hands through what pruners read and keeps back what they write: it is written with the report.
"""

import copy
from collections.abc import Container, Sequence
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tts.tuning.database.attributes import PRUNED_AT
from tts.tuning.database.study_storage import StudyStorage


def judge(study: optuna.Study, storage: StudyStorage, trial: FrozenTrial, lease: str, step: int, value: float) -> bool:
    """Reports a trial's value at a step and says whether the trial is to be pruned, as `Trial.report` and `Trial.should_prune` would.

    `trial` is the caller's copy of its own trial; it is kept up to date here. A step that was reported before keeps its first value. May be
    repeated after a failure: the trial changes only once everything is written. Raises LeaseLostError, SQLAlchemyError.
    """
    known = step in trial.intermediate_values
    seen = copy.copy(trial)
    seen.intermediate_values = trial.intermediate_values if known else {**trial.intermediate_values, step: value}
    desk = _Desk(study)
    verdict = study.pruner.prune(optuna.Study(study.study_name, desk, study.sampler, study.pruner), seen)  # type: ignore[arg-type]
    if verdict:
        desk.marks[PRUNED_AT] = step  # a worker that is killed before it acts on it leaves the verdict to the next
    if not known or desk.marks:
        storage.report(trial._trial_id, lease, step, seen.intermediate_values[step], marks=desk.marks)  # noqa: SLF001  # its only name in the database
    trial.intermediate_values = seen.intermediate_values
    trial.system_attrs = {**trial.system_attrs, **desk.marks}
    return verdict


class _Desk:
    """What a pruner sees of the storage. It may read; what it writes about the trial stays in `marks`."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._storage = study._storage  # noqa: SLF001  # Optuna's cache of finished trials is there
        self.marks: dict[str, Any] = {}

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._study._study_id  # noqa: SLF001

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._study.directions

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None) -> Sequence[FrozenTrial]:
        return self._storage.get_all_trials(study_id, deepcopy=deepcopy, states=states)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return self._storage.get_best_trial(study_id)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.marks[key] = value
