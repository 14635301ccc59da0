"""Every tracker against a real store: SQLite files of MLflow's, JSON lines."""

import json
import math
import multiprocessing
import sqlite3
import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tts.config import TrackingConfig
from tts.errors import CannotWriteError, DataError, PreemptedError, ServiceUnavailableError, UsageError
from tts.tracking import CHAMPION, NoTracker, Registration, open_tracker
from tts.tracking.mlflow_store import redact
from tts.tracking.protocol import Champion, judge


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for the module: creating one takes seconds."""
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture(scope="module")
def tracker(folder: Path):
    return open_tracker(TrackingConfig(experiment="voices"), folder)


@pytest.fixture(scope="module")
def client(folder: Path, tracker) -> MlflowClient:
    uri = f"sqlite:///{folder}/mlflow.db"
    return MlflowClient(uri, uri)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "model.pt").write_bytes(b"weights")
    return tmp_path / "files"


def test_a_run_holds_what_was_recorded(tracker, client, weights):
    with tracker.run("train") as run:
        run.params({"training.steps": 20, "text.language": "ru"})
        run.metrics({"loss": 1.5, "mel_loss": 0.5}, step=10)
        run.metrics({"loss": 1.25}, step=20)
        run.tags({"note": "hello"})
        run.artefact(weights / "model.pt", "checkpoints")
        run.artefact(weights)
        assert client.get_run(run.id).info.status == "RUNNING"
    seen = client.get_run(run.id)
    assert seen.info.status == "FINISHED"
    assert seen.info.run_name == "train"
    assert seen.data.params == {"training.steps": "20", "text.language": "ru"}
    assert [(m.step, m.value) for m in client.get_metric_history(run.id, "loss")] == [(10, 1.5), (20, 1.25)]
    assert seen.data.tags["note"] == "hello"
    assert {item.path for item in client.list_artifacts(run.id)} == {"checkpoints", "model.pt"}
    assert client.get_experiment(seen.info.experiment_id).name == "voices"


def test_artefacts_lie_beside_the_database(tracker, client, folder):
    with tracker.run("train") as run:
        pass
    assert client.get_run(run.id).info.artifact_uri.startswith((folder / "mlflow-artefacts").as_uri())


def test_metrics_that_are_not_finite_are_counted_and_not_sent(tracker, client):
    with tracker.run("train") as run:
        run.metrics({"loss": math.nan, "gate_loss": 0.5}, step=1)
        run.metrics({"loss": math.inf}, step=2)
    data = client.get_run(run.id).data
    assert data.metrics == {"gate_loss": 0.5}
    assert data.tags["non_finite.loss"] == "2"


def test_a_run_nests_below_its_parent(tracker, client):
    with tracker.run("study") as study, tracker.run("trial 0", parent=study.id) as trial:
        pass
    found = client.search_runs([client.get_experiment_by_name("voices").experiment_id], f"tags.`mlflow.parentRunId` = '{study.id}'")
    assert [run.info.run_id for run in found] == [trial.id]


@pytest.mark.parametrize(("error", "status"), [(PreemptedError("stop"), "KILLED"), (KeyboardInterrupt(), "KILLED"), (ValueError("bug"), "FAILED")])
def test_the_end_of_a_run_tells_how_it_ended(tracker, client, error, status):
    with pytest.raises(type(error)), tracker.run("train") as run:
        raise error
    assert client.get_run(run.id).info.status == status


def test_a_stopped_run_goes_on_under_its_id(tracker, client):
    with pytest.raises(KeyboardInterrupt), tracker.run("train") as run:
        run.params({"training.steps": 20})
        raise KeyboardInterrupt
    with tracker.run("train", run_id=run.id) as again:
        assert client.get_run(run.id).info.status == "RUNNING"
        again.params({"training.steps": 30, "training.seed": 1})
    data = client.get_run(run.id).data
    assert again.id == run.id
    assert data.params == {"training.steps": "20", "training.seed": "1"}, "parameters are written once"
    assert data.tags["changed.training.steps"] == "30"
    assert client.get_run(run.id).info.status == "FINISHED"


def test_more_parameters_than_mlflow_takes_at_once(tracker, client):
    with tracker.run("train") as run:
        run.params({f"p{i}": i for i in range(230)})
    assert len(client.get_run(run.id).data.params) == 230


def test_an_inherited_run_becomes_the_parent(tracker, client, folder, monkeypatch):
    with tracker.run("step of a pipeline") as outer:
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.id)
    inner = open_tracker(TrackingConfig(experiment="another"), folder)
    with inner.run("train") as run:
        pass
    seen = client.get_run(run.id)
    assert seen.data.tags["mlflow.parentRunId"] == outer.id
    assert seen.info.experiment_id == client.get_run(outer.id).info.experiment_id
    assert client.get_experiment_by_name("another") is None


def test_only_a_better_voice_becomes_champion(tracker, client, tmp_path):
    def register(content: str, distortion: float, *, fingerprint: str = "f", passed: bool = True) -> Registration:
        path = tmp_path / "model.pt"
        path.write_text(content)
        with tracker.run("register") as run:
            return tracker.register(
                path, name="voice", run_id=run.id, metrics={"mcd": distortion}, compare="mcd", fingerprint=fingerprint, passed=passed
            )

    assert not register("failed", 1.0, passed=False).champion
    assert "voice" in {model.name for model in client.search_registered_models()}
    first = register("first", 8.0)
    assert (first.version, first.champion) == (2, True)
    worse = register("worse", 9.0)
    assert not worse.champion
    assert "mcd 9 is not below 8 of version 2" in worse.reason
    assert not register("not a number", math.nan).champion
    assert not register("other corpus", 1.0, fingerprint="g").champion
    best = register("best", 7.0)
    assert (best.version, best.champion) == (6, True)
    version = client.get_model_version_by_alias("voice", CHAMPION)
    assert int(version.version) == 6
    assert version.tags["metric.mcd"] == "7.0"
    assert version.tags["fingerprint"] == "f"
    assert Path(client.download_artifacts(version.run_id, "model/model.pt")).read_text() == "best"
    again = register("best", 7.0)
    assert (again.version, again.champion) == (6, True), "the same files are one version"


def test_processes_open_one_fresh_store(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_open_and_record, args=(tmp_path, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(200)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri, uri)
    experiments = [e for e in client.search_experiments() if e.name == "shared"]
    assert len(experiments) == 1
    runs = client.search_runs([experiments[0].experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["worker 0", "worker 1", "worker 2"]
    assert all(len(client.get_metric_history(run.info.run_id, "loss")) == 20 for run in runs)


def _open_and_record(folder: Path, number: int) -> None:
    with open_tracker(TrackingConfig(experiment="shared"), folder).run(f"worker {number}") as run:
        for step in range(20):
            run.metrics({"loss": float(step)}, step)


def test_a_locked_database_is_waited_for(tracker, client, folder):
    lock = sqlite3.connect(folder / "mlflow.db", isolation_level=None, check_same_thread=False)
    with tracker.run("train") as run:
        lock.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.3, lambda: lock.execute("COMMIT"))
        release.start()
        run.metrics({"loss": 1.0}, step=1)
        release.join()
    lock.close()
    assert client.get_run(run.id).data.metrics == {"loss": 1.0}


def test_a_text_file_is_no_database(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database, but notes\n")
    with pytest.raises(DataError, match=r"mlflow\.db is not a SQLite database"):
        open_tracker(TrackingConfig(), tmp_path)
    assert (tmp_path / "mlflow.db").read_text() == "not a database, but notes\n"


def test_a_store_that_is_no_store(tmp_path):
    with pytest.raises(UsageError, match="must begin with one of sqlite:///"):
        open_tracker(TrackingConfig(uri="mlruns"), tmp_path)


def test_a_file_in_the_way_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for backend in ("mlflow", "jsonl"):
        with pytest.raises(CannotWriteError, match="a file is in the way"):
            open_tracker(TrackingConfig(backend=backend), tmp_path / "file" / "out")


def test_a_server_that_is_down(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with pytest.raises(ServiceUnavailableError, match=r"http://127\.0\.0\.1:9 is out of reach"):
        open_tracker(TrackingConfig(uri="http://127.0.0.1:9"), tmp_path)


def test_messages_carry_no_password():
    assert redact("postgresql://user:secret@host/db") == "postgresql://...@host/db"


def test_json_lines(tmp_path, weights):
    tracker = open_tracker(TrackingConfig(backend="jsonl"), tmp_path)
    with pytest.raises(ValueError, match="bug"), tracker.run("train", parent="p") as run:
        run.params({"training.steps": 20})
        run.metrics({"loss": 1.0, "gate_loss": math.nan}, step=3)
        raise ValueError("bug")
    lines = [json.loads(line) for line in (tmp_path / "tracking.jsonl").read_text().splitlines()]
    assert {line["run"] for line in lines} == {run.id}
    assert [line["kind"] for line in lines] == ["start", "params", "metrics", "tags", "end"]
    assert lines[0]["parent"] == "p"
    assert lines[2]["values"] == {"loss": 1.0}
    assert lines[3]["values"] == {"non_finite.gate_loss": "1"}
    assert lines[4]["status"] == "FAILED"

    def register(distortion: float) -> Registration:
        (weights / "model.pt").write_bytes(f"{distortion}".encode())
        return tracker.register(weights, name="voice", run_id="r", metrics={"mcd": distortion}, compare="mcd", fingerprint="f", passed=True)

    assert [register(value).champion for value in (8.0, 9.0, 7.0, 8.0)] == [True, False, True, False]
    assert register(7.0) == Registration("voice", 3, champion=True, reason="is the champion already")


def test_no_tracker(weights):
    with NoTracker().run("train") as run:
        run.metrics({"loss": 1.0}, step=1)
    registration = NoTracker().register(weights, name="voice", run_id=run.id, metrics={}, compare="mcd", fingerprint="f", passed=True)
    assert (registration.version, registration.champion) == (0, False)


def test_a_champion_without_the_compared_metric_is_left_alone():
    best, reason = judge(1.0, version=2, compare="mcd", fingerprint="f", passed=True, champion=Champion(1, math.nan, "f"))
    assert not best
    assert "cannot be compared" in reason
