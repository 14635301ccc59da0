"""As what trials are recorded whose workers see nothing of the study's folder."""

import json
from collections import Counter

import pytest
from mlflow import MlflowClient

from tts.config.load import override
from tts.data.store import FeatureStore
from tts.storage import entries
from tts.tracking import open_tracker
from tts.training.preemption import StopFlag
from tts.tuning.study import Plan, create_study
from tts.tuning.work.recording import deliver, known_run, note_run, place_of
from tts.tuning.work.worker import work

WHERE = {"folder": "/on/another/machine", "store": "mlflow-0123", "reach": "folder"}


@pytest.fixture
def make(base, features, bucket, tmp_path, this_machine):
    """A study that keeps its runs in the bucket and is recorded as told."""

    def make_one(**tracking):
        knobs = {"tuning.trials": 1, "tuning.pruner": "none", "tuning.runs_uri": f"{bucket.uri}/runs"}
        config = override(base, {**knobs, **{f"tracking.{name}": value for name, value in tracking.items()}})
        plan = Plan.of(config, FeatureStore.open(features).fingerprint, tmp_path / "study")
        return create_study(f"sqlite:///{tmp_path}/studies.db", "voices", plan)

    return make_one


def test_the_first_run_of_a_store_stays_and_another_store_has_its_own(make_study):
    study = make_study()
    assert known_run(study, WHERE) is None
    note_run(study, "first", WHERE)
    note_run(study, "second", WHERE)
    assert known_run(study, WHERE) == "first"

    other = {**WHERE, "store": "mlflow-4567"}
    assert known_run(study, other) is None
    note_run(study, "elsewhere", other)
    assert known_run(study, other) == "elsewhere"


def test_a_study_goes_on_under_its_run_from_another_folder_where_a_server_keeps_it(make_study, base, tmp_path, monkeypatch):
    study = make_study()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    at = override(base, {"tracking.backend": "mlflow", "tracking.uri": "http://tracking:5000"}).tracking
    beside = override(base, {"tracking.backend": "mlflow"}).tracking

    note_run(study, "first", place_of(at, tmp_path / "a"))
    assert known_run(study, place_of(at, tmp_path / "b")) == "first"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert known_run(study, place_of(beside, tmp_path / "b")) == "first", "the same server, told otherwise"
    assert known_run(study, place_of(override(base, {"tracking.backend": "mlflow", "tracking.experiment": "other"}).tracking, tmp_path)) is None
    note_run(study, "second", place_of(at, tmp_path / "b"))
    assert study.trials.user_attrs["tracking"] == {"run": "first", **place_of(at, tmp_path / "b")}, "workers look into the newest folder"

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    note_run(study, "file", place_of(beside, tmp_path / "a"))
    assert known_run(study, place_of(beside, tmp_path / "a")) == "file"
    assert known_run(study, place_of(beside, tmp_path / "b")) is None, "another folder has another database"


@pytest.mark.parametrize("tracking", [{"backend": "jsonl"}, {"backend": "mlflow"}])
def test_without_a_server_a_worker_elsewhere_says_once_that_nothing_lasts(make, features, tmp_path, caplog, monkeypatch, tracking):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    study = make(**tracking)
    note_run(study, "parent", WHERE)

    assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 1

    assert caplog.text.count("is recorded in /on/another/machine, which is not here: this worker's trials are recorded nowhere") == 1
    assert study.trials.trials[0].user_attrs["tracking_run"] == {"parent": None, "run": ""}
    assert [path for path in tmp_path.rglob("*") if path.name in ("tracking.jsonl", "mlflow.db", ".spool")] == []


def test_a_worker_that_sees_the_studys_folder_records_there(make, features, tmp_path):
    study = make(backend="jsonl")
    note_run(study, "parent", {"folder": str(tmp_path / "study"), "store": "lines", "reach": "folder"})
    (tmp_path / "study" / "tracking.json").write_text(json.dumps({"run": "parent"}))

    work(features, storage=study.url, name="voices", stop=StopFlag())

    starts = [json.loads(line) for line in (tmp_path / "study" / "tracking.jsonl").read_text().splitlines()]
    assert [(line["name"], line["parent"]) for line in starts if line["kind"] == "start"] == [("trial-0", "parent")]


@pytest.mark.slow
def test_what_a_server_has_not_taken_outlasts_the_worker_and_is_delivered_once(make, features, tmp_path, mlflow_server, bucket, caplog):
    study = make(backend="mlflow", uri=mlflow_server.uri, experiment="left behind")
    plan = study.plan
    with open_tracker(plan.config.tracking, tmp_path / "study") as tracker, tracker.run("voices") as parent:
        note_run(study, parent.id, WHERE)
    mlflow_server.stop()
    try:
        work(features, storage=study.url, name="voices", stop=StopFlag())
        assert "what the tracking server has not taken is left in" in caplog.text
        left = [entry.name for entry in entries(f"{bucket.uri}/runs/voices/spool")]
        assert sum(name.endswith(".jsonl") for name in left) == 1
        deliver(study, tmp_path / "study")
        assert "is not all delivered" in caplog.text
        assert [entry.name for entry in entries(f"{bucket.uri}/runs/voices/spool")] == left
    finally:
        mlflow_server.start()

    deliver(study, tmp_path / "study")
    deliver(study, tmp_path / "study")

    assert entries(f"{bucket.uri}/runs/voices/spool") == []
    client = MlflowClient(mlflow_server.uri)
    runs = client.search_runs([client.get_experiment_by_name("left behind").experiment_id])
    (top,) = [run for run in runs if run.data.tags["tts.key"] == parent.id]
    (trial,) = [run for run in runs if run.info.run_id != top.info.run_id]
    assert trial.data.tags["mlflow.parentRunId"] == top.info.run_id
    assert trial.info.status == "FINISHED"
    told = client.get_metric_history(trial.info.run_id, "objective")
    assert {point.step: point.value for point in told} == study.trials.trials[0].intermediate_values
    assert set(Counter(point.step for point in told).values()) == {1}
