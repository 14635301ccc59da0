"""What became of the study, read from its database, its trials' folders and MLflow, without the code that ran it."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from mlflow import MlflowClient
from optuna.trial import FrozenTrial, TrialState

from tests.chaos.plan import STUDY, Stage
from tts.config.load import from_mapping
from tts.data.store import FeatureStore
from tts.progress import Silent
from tts.training.loop import train
from tts.training.metrics_log import WALL_CLOCK_FIELDS
from tts.training.preemption import StopFlag
from tts.training.saturation import SATURATION_FIELDS


@dataclass(frozen=True)
class Fault:
    """Something that must not be."""

    figure: str
    """That it counts in."""
    text: str


def trials_of(database: str) -> list[FrozenTrial]:
    """By plain Optuna."""
    return optuna.load_study(study_name=STUDY, storage=database).get_trials(deepcopy=False)


def judge_trials(trials: list[FrozenTrial], wanted: int) -> Iterator[Fault]:
    """Each is finished, none failed for having been interrupted, and there are as many as the budget says."""
    for trial in trials:
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            yield Fault("study_trials_lost", f"trial {trial.number} is {trial.state.name.lower()}: {trial.user_attrs.get('reason')}")
    if len(trials) != wanted:
        yield Fault("study_budget_error", f"{len(trials)} trials where the budget is {wanted}")


def judge_runs(stage: Stage, trials: list[FrozenTrial], seen: dict[str, set[int]]) -> Iterator[Fault]:
    """A trial that two had run at once would have steps twice, or out of order, in its metrics.jsonl."""
    for trial in trials:
        number = str(trial.number)
        lines = read_lines(stage.study / "trials" / number)
        for kind in ("train", "validation"):
            steps = [line["step"] for line in lines if line["kind"] == kind]
            if steps != sorted(set(steps)):
                yield Fault("study_trials_run_twice", f"trial {number} has the {kind} steps {steps}")
        validated = [line["step"] for line in lines if line["kind"] == "validation"]
        reported = sorted(trial.intermediate_values)
        if reported != validated[: len(reported)] or (trial.state == TrialState.COMPLETE and reported[-1:] != [stage.config.tuning.steps]):
            yield Fault("study_reports_missing", f"trial {number} reported {reported} and validated {validated}")
        if not seen.get(number):
            yield Fault("study_trials_unseen", f"nobody was seen training trial {number}: the witness was blind")


def judge_replays(stage: Stage, trials: list[FrozenTrial], number: int) -> Iterator[Fault]:
    """The finished trials that were interrupted most are trained again, alone: each number in their metrics.jsonl must come out the same."""
    store = FeatureStore.open(stage.features)
    finished = [trial for trial in trials if trial.state.is_finished()]
    for trial in sorted(finished, key=lambda trial: -len(trial.user_attrs.get("interruptions", [])))[:number]:
        run = stage.study / "trials" / str(trial.number)
        config = from_mapping(json.loads((run / "config.json").read_text(encoding="utf-8")), "trial")
        lines = read_lines(run)
        last = max(line["step"] for line in lines)
        again = stage.folder / "replays" / str(trial.number)
        with closing(train(store, config, again, progress=Silent(), stop=StopFlag())) as records:
            for record in records:
                if record.step >= last:
                    break
        if read_lines(again) != lines:
            yield Fault("study_replays_different", f"trial {trial.number}, interrupted {trial.user_attrs.get('interruptions')}, differs from {again}")


def judge_tracking(stage: Stage, trials: list[FrozenTrial], uri: str) -> Iterator[Fault]:
    """MLflow has one run for each trial, below the study's, with each reported step of each metric once and as it was measured."""
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name(stage.config.tracking.experiment)
    runs = [] if experiment is None else client.search_runs([experiment.experiment_id], max_results=1000)
    by_key: dict[str, list[Any]] = {}
    for run in runs:
        by_key.setdefault(run.data.tags.get("tts.key", ""), []).append(run)
    parent_key = json.loads((stage.study / "tracking.json").read_text(encoding="utf-8"))["run"]
    parents = by_key.pop(parent_key, [])
    if len(parents) != 1:
        yield Fault("study_tracking_runs_wrong", f"{len(parents)} runs of the study itself")
    for trial in trials:
        found = by_key.pop(trial.user_attrs.get("tracking_run", {}).get("run", ""), [])
        if len(found) != 1:
            yield Fault("study_tracking_runs_wrong", f"trial {trial.number} has {len(found)} runs")
        for run in found[:1]:
            if parents and run.data.tags.get("mlflow.parentRunId") != parents[0].info.run_id:
                yield Fault("study_tracking_runs_wrong", f"trial {trial.number} is not below the study's run")
            if run.info.status != "FINISHED":
                yield Fault("study_tracking_runs_wrong", f"trial {trial.number} is {run.info.status} in MLflow")
            if run.data.params != {name: str(value) for name, value in trial.params.items()}:
                yield Fault("study_tracking_runs_wrong", f"trial {trial.number} has the parameters {run.data.params} in MLflow")
            yield from _judge_metrics(client, run.info.run_id, stage, trial)
    for key in by_key:
        yield Fault("study_tracking_runs_wrong", f"MLflow has a run {key!r} that is no trial's")


def _judge_metrics(client: MlflowClient, run: str, stage: Stage, trial: FrozenTrial) -> Iterator[Fault]:
    expected = Counter(_expected(stage.study / "trials" / str(trial.number), trial))
    names = {name for name, _, _ in expected} | client.get_run(run).data.metrics.keys()
    found = Counter((name, entry.step, entry.value) for name in sorted(names) for entry in client.get_metric_history(run, name))
    for (name, step, value), times in (expected - found).items():
        yield Fault("study_metrics_missing", f"trial {trial.number}: {name} of step {step} is not in MLflow as {value} ({times} missing)")
    for (name, step, value), times in (found - expected).items():
        yield Fault("study_metrics_repeated", f"trial {trial.number}: MLflow has {name} of step {step} as {value}, {times} more than measured")


def _expected(run: Path, trial: FrozenTrial) -> Iterator[tuple[str, int, float]]:
    """What the trial measured and reported; what is not finite cannot be kept by MLflow, and null stands for it in the file.

    How saturated units are is for the log and the report alone.
    """
    for line in read_lines(run):
        if line["kind"] == "validation" and line["step"] in trial.intermediate_values:
            step = line["step"]
            for name, value in line.items():
                if name not in ("kind", "step", *SATURATION_FIELDS) and value is not None:
                    yield name, step, value
            yield "objective", step, trial.intermediate_values[step]


def read_lines(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl, but what the clock says."""
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    return [{name: value for name, value in json.loads(line).items() if name not in WALL_CLOCK_FIELDS} for line in text.splitlines()]
