"""The judge of MLflow would see what is missing, what is there twice, and what is no trial's."""

import json
from dataclasses import replace

import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from tests.chaos.judgement import judge_tracking
from tests.chaos.plan import SHORT, Stage
from tts.config.load import override

REPORTS = {4: 3.5, 8: 2.25}


@pytest.fixture
def recorded(mlflow_server, tmp_path):
    """A study of one trial and what MLflow has of it, each as it must be."""
    config = override(SHORT.config(""), {"tracking.experiment": tmp_path.name})
    stage = Stage(tmp_path, SHORT, config, "", {})
    run = stage.study / "trials" / "0"
    run.mkdir(parents=True)
    lines = [{"kind": "validation", "step": step, "mel_loss": value / 2, "gate_stop_error": None} for step, value in REPORTS.items()]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (stage.study / "tracking.json").write_text(json.dumps({"run": "study"}))
    knob = optuna.distributions.FloatDistribution(0, 1)
    trial = optuna.create_trial(
        state=TrialState.PRUNED,
        params={"knob": 0.5},
        distributions={"knob": knob},
        intermediate_values=REPORTS,
        user_attrs={"tracking_run": {"run": "first"}},
    )
    trial.number = 0
    client = MlflowClient(mlflow_server.uri)
    experiment = client.create_experiment(config.tracking.experiment)
    parent = client.create_run(experiment, tags={"tts.key": "study"}).info.run_id
    child = client.create_run(experiment, tags={"tts.key": "first", "mlflow.parentRunId": parent}).info.run_id
    client.log_param(child, "knob", 0.5)
    for step, value in REPORTS.items():
        client.log_metric(child, "objective", value, step=step)
        client.log_metric(child, "mel_loss", value / 2, step=step)
    client.set_terminated(child)
    return stage, trial, client, child


def figures(recorded, uri, **changed):
    stage, trial, *_ = recorded
    trial.intermediate_values = changed.get("reports", trial.intermediate_values)
    return [fault.figure for fault in judge_tracking(replace(stage), [trial], uri)]


def test_what_is_as_it_must_be(recorded, mlflow_server):
    assert figures(recorded, mlflow_server.uri) == []


def test_a_step_that_is_missing(recorded, mlflow_server):
    stage, *_ = recorded
    with (stage.study / "trials" / "0" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "validation", "step": 12, "mel_loss": 1.0}) + "\n")

    assert figures(recorded, mlflow_server.uri, reports={**REPORTS, 12: 2.0}) == ["study_metrics_missing"] * 2


def test_a_step_that_is_there_twice_or_as_another_value(recorded, mlflow_server):
    *_, client, child = recorded
    client.log_metric(child, "objective", 3.5, step=4)
    client.log_metric(child, "mel_loss", 7.0, step=8)

    assert figures(recorded, mlflow_server.uri) == ["study_metrics_repeated"] * 2


def test_a_run_that_has_not_ended_and_one_that_is_no_trials(recorded, mlflow_server):
    stage, _, client, child = recorded
    client.update_run(child, status="RUNNING")
    experiment = client.get_experiment_by_name(stage.config.tracking.experiment).experiment_id
    client.create_run(experiment, tags={"tts.key": "second"})

    assert figures(recorded, mlflow_server.uri) == ["study_tracking_runs_wrong"] * 2
