"""What a study leaves behind: `study.json`, `trials.csv`, `best.yaml`, `study.html`."""

import csv
import io
import json
import math
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict

from tts.config import ObjectiveTerm
from tts.storage import write_text
from tts.tuning.queue import INTERRUPTIONS, LOG, METRICS, REASON, SECONDS
from tts.tuning.storage import public, reaching
from tts.tuning.study import Study

IMPORTANCE_TRIALS = 4
"""Completed trials below which importances would be noise: PED-ANOVA compares the best tenth, at least two, with the rest."""


class TrialRecord(BaseModel):
    """A trial, for readers."""

    model_config = ConfigDict(frozen=True)

    number: int
    state: str
    """complete, pruned, fail, running or waiting."""
    value: float | None
    """Of the objective; for completed trials only."""
    params: dict[str, Any]
    metrics: dict[str, float | None]
    """Of the last validation; null where not finite."""
    intermediate: list[tuple[int, float]]
    """Training step and value of the objective."""
    start: datetime | None
    end: datetime | None
    seconds: float | None
    """In training, over all attempts."""
    reason: str
    """Why it failed."""
    log: str
    """Last lines of a failed trial's log."""
    interruptions: list[str]
    """Why earlier attempts ended before the trial did."""


class Best(BaseModel):
    """The completed trial with the lowest value."""

    number: int
    value: float
    params: dict[str, Any]


class StudyRecord(BaseModel):
    """`study.json`."""

    model_config = ConfigDict(frozen=True)

    name: str
    direction: str
    objective: tuple[ObjectiveTerm, ...]
    features: str
    """Fingerprint."""
    storage: str
    budget: int
    """Finished trials asked for."""
    steps: int
    """Of a trial that is not pruned."""
    sampler: str
    pruner: str
    counts: dict[str, int]
    best: Best | None
    trials: list[TrialRecord]
    importances: dict[str, float] | None


def record(study: Study) -> StudyRecord:
    """The study as it stands. Raises ServiceUnavailableError."""
    plan = study.plan
    with reaching(study.url):
        trials = [_trial(trial) for trial in study.trials.get_trials(deepcopy=False)]
        importances = _importances(study.trials)
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    best = min(complete, key=lambda trial: trial.value if trial.value is not None else math.inf, default=None)
    return StudyRecord(
        name=study.trials.study_name,
        direction="minimise",
        objective=plan.config.tuning.objective,
        features=plan.features,
        storage=public(study.url),
        budget=plan.config.tuning.trials,
        steps=plan.config.tuning.steps,
        sampler=plan.config.tuning.sampler,
        pruner=plan.config.tuning.pruner,
        counts=dict(Counter(trial.state for trial in trials)),
        best=Best(number=best.number, value=best.value, params=best.params) if best and best.value is not None else None,
        trials=trials,
        importances=importances,
    )


def is_current(folder: Path, results: StudyRecord) -> bool:
    """Whether the folder holds these results already, the page included."""
    file = folder / "study.json"
    return (folder / "study.html").is_file() and file.is_file() and file.read_text(encoding="utf-8") == _json(results)


def write_tables(folder: Path, results: StudyRecord) -> None:
    """Writes trials.csv, where a trial completed best.yaml, and study.json. An older page goes, so that it is made anew. Raises CannotWriteError."""
    (folder / "study.html").unlink(missing_ok=True)
    write_text(folder / "trials.csv", _csv(results.trials))
    if results.best:
        head = f"# Trial {results.best.number} of study {results.name}: objective {results.best.value:.6g}. Use it with --config.\n"
        write_text(folder / "best.yaml", head + yaml.safe_dump(_nested(results.best.params), sort_keys=False))
    write_text(folder / "study.json", _json(results))


def _trial(trial: FrozenTrial) -> TrialRecord:
    attributes = trial.user_attrs
    between = trial.datetime_start and trial.datetime_complete and (trial.datetime_complete - trial.datetime_start).total_seconds()
    metrics = {name: value if math.isfinite(value) else None for name, value in attributes.get(METRICS, {}).items() if name != "step"}
    return TrialRecord(
        number=trial.number,
        state=trial.state.name.lower(),
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        params=trial.params,
        metrics=metrics,
        intermediate=sorted(trial.intermediate_values.items()),
        start=trial.datetime_start,
        end=trial.datetime_complete,
        seconds=attributes.get(SECONDS, between),
        reason=attributes.get(REASON, ""),
        log=attributes.get(LOG, ""),
        interruptions=attributes.get(INTERRUPTIONS, []),
    )


def _importances(study: optuna.Study) -> dict[str, float] | None:
    """By PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255): shares that sum to one; None where too few trials completed to tell."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < IMPORTANCE_TRIALS or len({trial.value for trial in complete}) < 2:
        return None
    from optuna.importance import get_param_importances  # loads scikit-learn for a second: not before workers have started

    shares = get_param_importances(study)
    return shares if all(math.isfinite(share) for share in shares.values()) else None


def _json(results: StudyRecord) -> str:
    return json.dumps(results.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _csv(trials: list[TrialRecord]) -> str:
    params = list(dict.fromkeys(name for trial in trials for name in trial.params))
    metrics = list(dict.fromkeys(name for trial in trials for name in trial.metrics))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["number", "state", "value", *params, *metrics, "last_step", "seconds", "reason"])
    for trial in trials:
        step = trial.intermediate[-1][0] if trial.intermediate else None
        values = [*(trial.params.get(name) for name in params), *(trial.metrics.get(name) for name in metrics)]
        writer.writerow([trial.number, trial.state, trial.value, *values, step, trial.seconds, trial.reason])
    return file.getvalue()


def _nested(params: dict[str, Any]) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for path, value in params.items():
        section, name = path.split(".")
        nested.setdefault(section, {})[name] = value
    return nested
