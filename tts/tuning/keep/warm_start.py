"""Trials of another study, taken from its archive into this one, so that the sampler does not begin at nothing.

What is taken must mean the same here. A trial's whole configuration is compared, its own values over its study's: each knob that this study
searches must lie in its range, and each knob that only the other one searched must have the value that this study holds fast. The value is the
other study's own where both have one objective; else it is computed from the metrics of the trial's last validation. Reports, by which pruners
compare, are taken only from a study of the same features, objective and steps.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import ValidationError

from tts.config import Config
from tts.config.load import flatten
from tts.errors import DataError
from tts.tuning.database.attributes import IMPORTED, METRICS, SECONDS
from tts.tuning.database.lock import study_lock
from tts.tuning.database.retry import persistently
from tts.tuning.keep.archive import ORIGIN, Archive, ArchivedTrial, archived
from tts.tuning.search.objective import Objective, UnusableMetricError
from tts.tuning.search.space import contains, holds
from tts.tuning.study import Plan, Study

logger = logging.getLogger(__name__)

BATCH = 20
"""Trials written under one lock: workers of the study wait meanwhile."""


@dataclass(frozen=True)
class Imported:
    """What came of an import."""

    study: str
    """The other study's name."""
    taken: int
    known: int
    """Trials that were here before."""
    skipped: Counter[str]
    """By the reason."""
    notes: tuple[str, ...]
    """What differs between the studies, so that values may be further apart than they look."""

    def __str__(self) -> str:
        lines = [f"imported {self.taken} trials of study {self.study}; {self.known} were there before"]
        lines += [f"left out: {number} x {reason}" for reason, number in self.skipped.most_common()]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


class _DoesNotFitError(Exception):
    """A trial means nothing here; the message says why."""


def import_archive(study: Study, archive: Archive) -> Imported:
    """Adds the archive's finished trials that fit; those that are here already are not added again.

    Raises:
        DataError: The archive's plan cannot be read.
        ServiceUnavailableError: The database.
    """
    theirs, ours = _plan(archive), study.plan
    space = {name: json_to_distribution(text) for name, text in ours.space.items()}
    fitting, skipped = [], Counter[str]()
    for trial in archive.trials:
        try:
            fitting.append(_fit(trial, archive.study, theirs, ours, space))
        except _DoesNotFitError as error:
            skipped[str(error)] += 1
    taken = 0
    for begin in range(0, len(fitting), BATCH):
        batch = fitting[begin : begin + BATCH]
        taken += persistently(lambda batch=batch: _add(study, batch), url=study.url)  # type: ignore[misc]  # mypy infers no default's type
    return Imported(archive.study, taken, len(fitting) - taken, skipped, tuple(_notes(theirs, ours)))


def _add(study: Study, trials: list[FrozenTrial]) -> int:
    """Adds those that are not there; how many."""
    with study_lock(study.url, study.trials.study_name):
        there = {archived(trial).origin for trial in study.trials.get_trials(deepcopy=False)}
        new = [trial for trial in trials if trial.user_attrs[ORIGIN] not in there]
        for trial in new:
            study.trials.add_trial(trial)
        return len(new)


def _fit(trial: ArchivedTrial, origin: str, theirs: Plan, ours: Plan, space: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """The trial of the study `origin` as it enters this one. Raises _DoesNotFitError."""
    if trial.state not in ("complete", "pruned"):
        raise _DoesNotFitError("it failed" if trial.state == "fail" else "it is not finished")
    params, distributions = _params(trial, theirs, ours.config, space)
    comparable = _comparable(theirs, ours)
    if trial.state == "pruned" and not (comparable and trial.intermediate):
        raise _DoesNotFitError("it was pruned, and its reports are of other features, steps or another objective")
    values = None if trial.state == "pruned" else _values(trial, theirs, Objective(ours.config.tuning.objective))
    reports = {step: float("nan") if value is None else value for step, value in trial.intermediate} if comparable else {}
    kept = {SECONDS: trial.attributes[SECONDS]} if SECONDS in trial.attributes else {}
    made = create_trial(
        state=TrialState.COMPLETE if values is not None else TrialState.PRUNED,
        values=values,
        params=params,
        distributions=distributions,
        user_attrs={**kept, METRICS: _metrics(trial), IMPORTED: trial.attributes.get(IMPORTED) or origin, ORIGIN: trial.origin},
        intermediate_values=reports,
    )
    # As Optuna has its times: this machine's, without saying so.
    made.datetime_start = trial.start and trial.start.astimezone().replace(tzinfo=None)
    made.datetime_complete = made.datetime_complete if trial.end is None else trial.end.astimezone().replace(tzinfo=None)
    return made


def _params(
    trial: ArchivedTrial, theirs: Plan, config: Config, space: Mapping[str, BaseDistribution]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """The trial's values for the knobs that are searched here. Raises _DoesNotFitError."""
    had, ours = {**flatten(theirs.config), **trial.params}, flatten(config)
    conditions = {condition.knob: condition for condition in config.tuning.conditions}
    params: dict[str, Any] = {}
    for name, distribution in space.items():
        if name in conditions and not holds(conditions[name], params):
            continue
        if name not in had:
            raise _DoesNotFitError(f"it has no {name}")
        if not contains(distribution, had[name]):
            raise _DoesNotFitError(f"its {name} is out of range here")
        params[name] = had[name]
    for name in (*trial.params, *space):
        if name not in params and had.get(name) != ours.get(name):
            raise _DoesNotFitError(f"its {name} is not the one that is held fast here")
    return params, {name: space[name] for name in params}


def _values(trial: ArchivedTrial, theirs: Plan, objective: Objective) -> tuple[float, ...]:
    """Of this study's objective. Raises _DoesNotFitError."""
    if Objective(theirs.config.tuning.objective).terms == objective.terms and len(trial.values) == len(objective.names):
        return tuple(trial.values)
    try:
        return objective.values(_metrics(trial))
    except UnusableMetricError as error:
        raise _DoesNotFitError(f"it was judged by another objective, and its {error}") from None


def _metrics(trial: ArchivedTrial) -> dict[str, float]:
    """Those of the last validation that were finite."""
    return {name: value for name, value in trial.attributes.get(METRICS, {}).items() if isinstance(value, int | float)}


def _comparable(theirs: Plan, ours: Plan) -> bool:
    one, other = theirs.config.tuning, ours.config.tuning
    return (theirs.features, one.objective, one.steps) == (ours.features, other.objective, other.steps)


def _notes(theirs: Plan, ours: Plan) -> list[str]:
    """Where the other study differs in what this one holds fast, its searched knobs aside."""
    searched = {*theirs.space, *ours.space}
    code = [f"its trials ran the code of version {theirs.version} ({theirs.code}), ours run {ours.version} ({ours.code})"]
    return (code if theirs.code != ours.code else []) + [
        difference
        for difference in ours.differences(theirs)
        if not any(difference.startswith((f"{name} ", f"the search range of {name} ")) for name in searched)
    ]


def _plan(archive: Archive) -> Plan:
    try:
        return Plan.model_validate(archive.plan)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"study {archive.study!r} was exported by another version of this program: plan.{where}: {first['msg']}") from None
