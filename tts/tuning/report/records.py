"""A study for readers, as `study.json` holds it: files, page, live view and `tts study show` are all made from it."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict

from tts.config import ObjectiveTerm
from tts.tuning.budget import Budget, devices
from tts.tuning.database.attributes import DEATHS, IMPORTED, INTERRUPTIONS, LOG, METRICS, REASON, SECONDS, SPANS, WORKER
from tts.tuning.database.retry import persistently
from tts.tuning.database.storage import public
from tts.tuning.report.fleet import FleetRecord
from tts.tuning.search.objective import Objective
from tts.tuning.search.values import chosen, pareto
from tts.tuning.study import Study

IMPORTANCE_TRIALS = 4
"""Completed trials below which importances would be noise: PED-ANOVA compares the best tenth, at least two, with the rest."""
FINISHED = ("complete", "pruned", "fail")
"""States of trials that are over."""


class TrialRecord(BaseModel):
    """A trial."""

    model_config = ConfigDict(frozen=True)

    number: int
    state: str
    """complete, pruned, fail, running or waiting."""
    value: float | None
    """Of the first objective; for completed trials only."""
    values: list[float]
    """One for each objective; empty unless completed."""
    params: dict[str, Any]
    metrics: dict[str, float | None]
    """Of the last validation; null where not finite."""
    intermediate: list[tuple[int, float | None]]
    """Training step and value of the objective; null where not finite."""
    start: datetime | None
    """Of the last attempt; UTC."""
    end: datetime | None
    seconds: float | None
    """In training, over all attempts."""
    spans: list[tuple[float, float]]
    """Begin and end of each attempt, in seconds since 1970."""
    worker: str
    """Had the trial last; empty before one took it."""
    deaths: int
    """Attempts that their worker did not end itself."""
    reason: str
    """Why it failed."""
    log: str
    """Last lines of a failed trial's log."""
    interruptions: list[str]
    """Why earlier attempts ended before the trial did."""
    imported: str
    """The study that it was taken from; empty for the study's own."""

    @property
    def step(self) -> int:
        """Of the last report; 0 before the first."""
        return self.intermediate[-1][0] if self.intermediate else 0

    @property
    def short_worker(self) -> str:
        """Its worker in short: the host, without the start of its kernel, and four digits that tell its workers apart."""
        host, _, rest = self.worker.rpartition("-")
        known = host.rpartition("-")[0]
        return f"{known[:14]}-{rest[:4]}" if known else self.worker

    @property
    def last_value(self) -> float | None:
        """Reported last."""
        return self.intermediate[-1][1] if self.intermediate else None


class Best(BaseModel):
    """The trial of best.yaml: the best, or with several objectives the compromise among the best."""

    model_config = ConfigDict(frozen=True)

    number: int
    value: float
    """Of the first objective."""
    values: list[float]
    params: dict[str, Any]


class Limit(BaseModel):
    """One of the study's budgets. Of hours, `used` grows with each attempt's heartbeat."""

    model_config = ConfigDict(frozen=True)

    knob: str
    used: float
    limit: float

    @property
    def left(self) -> float:
        """Never below zero."""
        return max(0.0, self.limit - self.used)


class StudyRecord(BaseModel):
    """`study.json`."""

    model_config = ConfigDict(frozen=True)

    name: str
    direction: str
    """Every objective is minimised: a term that is maximised enters it with a minus."""
    objective: tuple[ObjectiveTerm, ...]
    objectives: list[str]
    """Names, in the order of `values`."""
    features: str
    """Fingerprint."""
    storage: str
    """Without its password."""
    budget: int
    """Finished trials asked for."""
    budgets: list[Limit]
    """Every limit that is set."""
    spent: str
    """Why the study is over; empty while it is not."""
    steps: int
    """Of a trial that is not pruned."""
    devices: int
    """That a trial trains on, for the hours of training."""
    sampler: str
    pruner: str
    counts: dict[str, int]
    """Own trials by state; and `imported`, where there are any."""
    best: Best | None
    pareto: list[int]
    """With several objectives: the trials that no other beats in all of them."""
    trials: list[TrialRecord]
    importances: dict[str, float] | None
    fleet: FleetRecord
    """Workers that ended before the study did, and what others waited for."""

    @property
    def own(self) -> list[TrialRecord]:
        """Trials that were not imported."""
        return [trial for trial in self.trials if not trial.imported]

    @property
    def finished(self) -> int:
        """Own trials that are over."""
        return sum(self.counts.get(state, 0) for state in FINISHED)

    @property
    def several(self) -> bool:
        """Whether there is more than one objective."""
        return len(self.objectives) > 1


def record(study: Study, *, importances: bool = True, stop: Callable[[], object] = lambda: False) -> StudyRecord:
    """The study as it stands; without importances it costs milliseconds.

    `stop` ends the waiting for a database that is away. Raises ServiceUnavailableError.
    """
    plan = persistently(study.read_plan, url=study.url, stop=stop)
    tuning = plan.config.tuning
    frozen = persistently(lambda: study.trials.get_trials(deepcopy=False), url=study.url, stop=stop)
    own = [trial for trial in frozen if IMPORTED not in trial.user_attrs]
    names = list(Objective(tuning.objective).names)
    counts = Counter(trial.state.name.lower() for trial in own)
    if len(own) < len(frozen):
        counts["imported"] = len(frozen) - len(own)
    budget = Budget.of(tuning, frozen)
    complete = [trial for trial in own if trial.state == TrialState.COMPLETE]
    best = chosen(complete) if complete else None
    return StudyRecord(
        name=study.trials.study_name,
        direction="minimise",
        objective=tuning.objective,
        objectives=names,
        features=plan.features,
        storage=public(study.url),
        budget=tuning.trials,
        budgets=_limits(budget),
        spent=budget.spent,
        steps=tuning.steps,
        devices=devices(tuning),
        sampler=tuning.sampler,
        pruner=tuning.pruner,
        counts=dict(counts),
        best=Best(number=best.number, value=best.values[0], values=best.values, params=best.params) if best else None,
        pareto=[trial.number for trial in pareto(complete)] if complete and len(names) > 1 else [],
        trials=[_trial(trial) for trial in frozen],
        importances=_importances(study.trials, own) if importances else None,
        fleet=persistently(lambda: FleetRecord.of(study), url=study.url, stop=stop),
    )


def _trial(trial: FrozenTrial) -> TrialRecord:
    attributes = trial.user_attrs
    between = trial.datetime_start and trial.datetime_complete and (trial.datetime_complete - trial.datetime_start).total_seconds()
    metrics = {name: _finite(value) for name, value in attributes.get(METRICS, {}).items() if name != "step"}
    values = list(trial.values) if trial.state == TrialState.COMPLETE else []
    return TrialRecord(
        number=trial.number,
        state=trial.state.name.lower(),
        value=values[0] if values else None,
        values=values,
        params=trial.params,
        metrics=metrics,
        intermediate=[(step, _finite(value)) for step, value in sorted(trial.intermediate_values.items())],
        start=utc(trial.datetime_start),
        end=utc(trial.datetime_complete),
        seconds=attributes.get(SECONDS, between),
        spans=attributes.get(SPANS, []),
        worker=attributes.get(WORKER, ""),
        deaths=attributes.get(DEATHS, 0),
        reason=attributes.get(REASON, ""),
        log=attributes.get(LOG, ""),
        interruptions=attributes.get(INTERRUPTIONS, []),
        imported=attributes.get(IMPORTED, ""),
    )


def utc(local: datetime | None) -> datetime | None:
    """Optuna's times are this machine's, and do not say so."""
    return local and local.astimezone(UTC)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _limits(budget: Budget) -> list[Limit]:
    limits = [
        Limit(knob="trials", used=budget.finished, limit=budget.trials),
        Limit(knob="gpu_hours", used=budget.gpu_hours_used, limit=budget.gpu_hours),
        Limit(knob="hours", used=budget.hours_used, limit=budget.hours),
        Limit(knob="plateau_trials", used=budget.since_better, limit=budget.plateau_trials),
    ]
    return [limit for limit in limits if limit.limit]


def _importances(study: optuna.Study, own: Sequence[FrozenTrial]) -> dict[str, float] | None:
    """By PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255): shares that sum to one; None where too few trials completed to tell.

    With several objectives: of reaching the Pareto front. Imported trials are counted as the sampler counts them.
    """
    complete = [trial for trial in own if trial.state == TrialState.COMPLETE]
    if len(complete) < IMPORTANCE_TRIALS or len({tuple(trial.values) for trial in complete}) < 2:
        return None
    from optuna.importance import get_param_importances  # loads scikit-learn for a second: not before workers have started

    shares = get_param_importances(study)
    return shares if all(math.isfinite(share) for share in shares.values()) else None
