"""Trials handed out and taken back, so that the budget holds exactly over all workers and none is lost.

A trial that is handed back keeps its number, its reports and its run folder and only waits again (RUNNING -> WAITING, one update). A failed copy
under a new number, as Optuna's retry callback makes it, would eat the budget and compete with itself in the pruner's rungs.
Whether a worker lives is told by a file lock that it holds: the kernel releases it however the worker ends.
"""

import logging
from collections import Counter
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from tts.tuning.search import sampler
from tts.tuning.storage import is_locked, locked, reaching
from tts.tuning.study import Study, study_lock

logger = logging.getLogger(__name__)

WORKER, INTERRUPTIONS, DEATHS, REASON, LOG, METRICS, SECONDS, TRACKING_RUN = (
    "worker", "interruptions", "deaths", "reason", "log", "metrics", "seconds", "tracking_run",
)  # fmt: skip
"""Names of a trial's attributes."""


def worker_lock(folder: Path, worker: str) -> Path:
    """The lock that a worker holds as long as it lives."""
    return folder / ".locks" / f"worker-{worker}"


def take(study: Study, worker: str) -> optuna.Trial | None:
    """The next trial: one that waits, else a new one; None where as many as the budget allows are finished or under way."""
    plan = study.plan
    with locked(study_lock(plan.folder)), reaching(study.url):
        reclaim(study, plan.folder)
        trials = study.trials.get_trials(deepcopy=False)
        begun = sum(trial.state != TrialState.WAITING for trial in trials)
        if begun >= plan.config.tuning.trials:
            return None
        study.trials.sampler = sampler(plan.config.tuning, len(trials))
        trial = study.trials.ask(study.space)
        trial.set_user_attr(WORKER, worker)
        return trial


def is_spent(study: Study) -> bool:
    """Whether as many trials are finished as the budget asks for."""
    counts = count(study)
    return sum(counts[state] for state in TrialState if state.is_finished()) >= study.plan.config.tuning.trials


def count(study: Study) -> Counter[TrialState]:
    """Trials by state."""
    with reaching(study.url):
        return Counter(trial.state for trial in study.trials.get_trials(deepcopy=False))


def hand_back(study: Study, number: int, reason: str, *, died: bool = False) -> None:
    """Lets a trial wait for a worker that goes on from its checkpoint; `died` counts against `tuning.max_retries`."""
    with locked(study_lock(study.plan.folder)), reaching(study.url):
        trial = study.trials.get_trials(deepcopy=False)[number]
        if died:
            _bury(study, trial, reason)
        else:
            _release(study, trial, reason)


def reclaim(study: Study, folder: Path) -> None:
    """Takes back the trials of workers that died. The caller holds the study's lock."""
    for trial in study.trials.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get(WORKER)
        # Without a name its worker died between asking and signing, both of which need the lock that we hold.
        if worker is None or not is_locked(worker_lock(folder, worker)):
            _bury(study, trial, "its worker died")


def _bury(study: Study, trial: FrozenTrial, reason: str) -> None:
    deaths = trial.user_attrs.get(DEATHS, 0) + 1
    if deaths > study.plan.config.tuning.max_retries:
        reason = f"given up after {deaths} interrupted attempts, the last one: {reason}"
        logger.warning("trial %d failed: %s", trial.number, reason)
        study.storage.set_trial_user_attr(trial._trial_id, REASON, reason)  # noqa: SLF001  # ask and tell only know the asker's own trial
        study.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # noqa: SLF001
        return
    study.storage.set_trial_user_attr(trial._trial_id, DEATHS, deaths)  # noqa: SLF001
    _release(study, trial, reason)


def _release(study: Study, trial: FrozenTrial, reason: str) -> None:
    logger.warning("trial %d waits to be taken up again: %s", trial.number, reason)
    identity = trial._trial_id  # noqa: SLF001
    study.storage.set_trial_user_attr(identity, INTERRUPTIONS, [*trial.user_attrs.get(INTERRUPTIONS, []), reason])
    study.storage.set_trial_state_values(identity, TrialState.WAITING)
