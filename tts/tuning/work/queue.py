"""Trials handed out and taken back, so that the budget holds exactly over all workers and none is lost.

A trial that is handed back keeps its number, its reports and its run folder and only waits again (RUNNING -> WAITING, one update). A failed copy
under a new number, as Optuna's retry callback makes it, would eat the budget and compete with itself in the pruner's rungs.

Whoever takes a trial signs it with a lease, a name for this one attempt, and every later write of the attempt is refused once another lease is
there: a worker that was paused, judged dead and woken again can report nothing. Whether a worker lives is told by its heartbeat in the database
and, on the host that it runs on, at once by a file lock that it holds: the kernel releases it however the worker ends.
"""

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tts.tuning.budget import Budget
from tts.tuning.database.attributes import (
    DEATHS,
    IMPORTED,
    INTERRUPTIONS,
    LEASE,
    LOG,
    METRICS,
    REASON,
    SECONDS,
    SPANS,
    STALE_SECONDS,
    TRACKING_RUN,
    WORKER,
)
from tts.tuning.database.failure import LeaseLostError
from tts.tuning.database.lock import study_lock
from tts.tuning.database.retry import persistently
from tts.tuning.search.space import suggest
from tts.tuning.search.strategy import pruner, sampler
from tts.tuning.study import Plan, Study, space_of
from tts.tuning.work.ground import ground_of, worker_lock

__all__ = [
    "DEATHS", "IMPORTED", "INTERRUPTIONS", "LEASE", "LOG", "METRICS", "REASON", "SECONDS", "SPANS", "TRACKING_RUN", "WORKER",
    "Held", "hand_back", "reclaim", "take", "worker_lock",
]  # fmt: skip

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Held:
    """A trial in a worker's hands."""

    trial: FrozenTrial
    """As it was when it was taken: its values, and what attempts before this one reported."""
    lease: str
    plan: Plan
    """The study's when it was taken."""

    @property
    def id(self) -> int:
        """The database's name of the trial."""
        return self.trial._trial_id  # noqa: SLF001  # Optuna has no public one

    @property
    def number(self) -> int:
        """The study's name of the trial."""
        return self.trial.number


def take(
    study: Study, worker: str, steady: Callable[[], float], stop: Callable[[], object] = lambda: False, *, stale_seconds: float = 0.0
) -> Held | None:
    """The next trial: one that waits, else a new one; None where the budget allows none to begin.

    The trials of dead workers are taken back first; those of workers on other hosts only where ours can tell: `steady` says for
    how many seconds its beats have gone through, and `stale_seconds` what it goes by where the study says less by now (see heartbeat).
    `stop` ends the waiting for a database that is away. Raises LeaseLostError, ServiceUnavailableError.
    """
    lease = f"{worker}:{uuid.uuid4().hex[:8]}"
    return persistently(lambda: _take(study, worker, lease, steady, stale_seconds), url=study.url, stop=stop)


def hand_back(study: Study, held: Held, reason: str, attributes: Mapping[str, Any], *, died: bool = False, seconds: float | None = None) -> bool:
    """Lets a trial wait for a worker that goes on from its checkpoint; whether it ended instead, for `died` counts against `tuning.max_retries`.

    The database is waited for `seconds` at most (as `persistently`). Raises LeaseLostError, ServiceUnavailableError.
    """
    retries = held.plan.config.tuning.max_retries

    def operation() -> None:
        if died:
            _bury(study, held.trial, reason, attributes, lease=held.lease, retries=retries)
        else:
            _release(study, held.trial, reason, attributes, lease=held.lease)

    persistently(operation, url=study.url, seconds=seconds)
    return died and _deaths(held.trial) > retries


def reclaim(study: Study, plan: Plan, steady: Callable[[], float], stale_seconds: float) -> int:
    """Takes back the trials of workers that died; how many. The caller holds the study's lock.

    A worker beats as often as the study said when it began. Each is judged by the longest time that it, this worker or the study goes by.
    """
    running = study.trials.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if not running:
        return 0
    retries, least = plan.config.tuning.max_retries, max(plan.config.tuning.stale_seconds, stale_seconds)
    allowed = {trial.number: max(least, trial.user_attrs.get(STALE_SECONDS, 0.0)) for trial in running}
    stale = {seconds: set(study.storage.stale(study.id, seconds)) for seconds in set(allowed.values())}
    through = steady()  # asked after the database has answered: it may have been away in between
    taken, ground = 0, ground_of(study, plan)
    for trial in running:
        worker, seconds = trial.user_attrs.get(WORKER), allowed[trial.number]
        if LEASE not in trial.user_attrs or worker is None:
            # Its worker died, or lost its connection, between asking and signing, both of which need the lock that we hold.
            taken += _release(study, trial, "it was never signed for", {}, lease=None)
        elif ground.lives(worker) is False:
            taken += _bury(study, trial, "its worker died", {}, lease=None, retries=retries)
        elif through >= seconds and trial._trial_id in stale[seconds]:  # noqa: SLF001
            taken += _bury(study, trial, f"its worker gave no sign of life for {seconds:g} s", {}, lease=None, retries=retries)
    return taken


def _take(study: Study, worker: str, lease: str, steady: Callable[[], float], stale_seconds: float) -> Held | None:
    """Takes a trial, or goes on with the one that an interrupted call with this lease took."""
    with _forgetting(study), study_lock(study.url, study.name):
        plan = study.read_plan()
        if reclaim(study, plan, steady, stale_seconds):
            study.forget()
        trials = study.trials.get_trials(deepcopy=False)
        ours = next((trial for trial in trials if trial.state == TrialState.RUNNING and trial.user_attrs.get(LEASE) == lease), None)
        next_one = ours or next((trial for trial in trials if trial.state == TrialState.WAITING), None)
        space = space_of(plan)
        study.trials.pruner = pruner(plan.config.tuning)  # both as the study says now
        study.trials.sampler = sampler(plan.config.tuning, next_one.number if next_one else len(trials), space)
        if ours:
            asked = optuna.Trial(study.trials, ours._trial_id)  # noqa: SLF001
            study.storage.adopt(asked._trial_id, lease)  # noqa: SLF001
        elif Budget.of(plan.config.tuning, trials).may_begin:
            asked = study.trials.ask()
            study.storage.sign(asked._trial_id, lease, {WORKER: worker, STALE_SECONDS: max(plan.config.tuning.stale_seconds, stale_seconds)})  # noqa: SLF001
        else:
            return None
    # Outside the lock: a sampler may think for a while, and the others would wait for it. What the trial has already, it keeps.
    suggest(asked, plan.config.tuning, space)
    held = Held(study.storage.get_trial(asked._trial_id), lease, plan)  # noqa: SLF001
    if held.trial.state != TrialState.RUNNING or held.trial.user_attrs.get(LEASE) != lease:
        raise LeaseLostError(held.id, lease)
    return held


@contextmanager
def _forgetting(study: Study) -> Iterator[None]:
    """What was read inside a transaction that failed is not so."""
    try:
        yield
    except BaseException:
        study.forget()
        raise


def _bury(study: Study, trial: FrozenTrial, reason: str, attributes: Mapping[str, Any], *, lease: str | None, retries: int) -> bool:
    deaths = _deaths(trial)
    if deaths <= retries:
        return _release(study, trial, reason, {**attributes, DEATHS: deaths}, lease=lease)
    reason = f"given up after {deaths} interrupted attempts, the last one: {reason}"
    ended = True
    if lease is None:
        ended = study.storage.fail(trial._trial_id, {**attributes, REASON: reason})  # noqa: SLF001
    else:
        study.storage.finish(trial._trial_id, lease, TrialState.FAIL, None, {**attributes, REASON: reason})  # noqa: SLF001
    if ended:
        logger.warning("trial %d failed: %s", trial.number, reason)
    return ended


def _deaths(trial: FrozenTrial) -> int:
    """Of the trial's attempts, with the one that just died."""
    deaths: int = trial.user_attrs.get(DEATHS, 0)
    return deaths + 1


def _release(study: Study, trial: FrozenTrial, reason: str, attributes: Mapping[str, Any], *, lease: str | None) -> bool:
    interruptions = [*trial.user_attrs.get(INTERRUPTIONS, []), reason]
    released = study.storage.release(trial._trial_id, {**attributes, INTERRUPTIONS: interruptions}, lease=lease)  # noqa: SLF001
    if released:
        logger.warning("trial %d waits to be taken up again: %s", trial.number, reason)
    return released
