"""Runs in MLflow's own store, a SQLite file."""

import contextlib
import math
import multiprocessing
import re
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from tts.config import TrackingConfig
from tts.errors import CannotWriteError, DataError, PreemptedError, ServiceUnavailableError, UsageError
from tts.progress import Silent
from tts.tracking import CHAMPION, Registration, mlflow_store, open_tracker
from tts.tracking.flush import flush
from tts.tracking.location import Location, redact
from tts.tracking.mlflow_store import explain


def wait(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "still waiting"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for the module: creating one takes seconds."""
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture
def tracker(folder: Path):
    """Closed by the test that wants to see what came of it."""
    return open_tracker(TrackingConfig(experiment="voices"), folder)


@pytest.fixture(scope="module")
def seen(folder: Path, look):
    open_tracker(TrackingConfig(experiment="voices"), folder, must_answer=True)
    return look(f"sqlite:///{folder}/mlflow.db", "voices")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "model.pt").write_bytes(b"weights")
    return tmp_path / "files"


def test_a_run_holds_what_was_recorded(tracker, seen, weights):
    with tracker, tracker.run("train") as run:
        run.params({"training.steps": 20, "text.language": "ru"})
        run.metrics({"loss": 1.5, "mel_loss": 0.5}, step=10)
        run.metrics({"loss": 1.25}, step=20)
        run.tags({"note": "hello"})
        run.artefact(weights / "model.pt", "checkpoints")
        run.artefact(weights)
        (weights / "model.pt").write_bytes(b"other weights")
    found = seen.run(run.id)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "train")
    assert found.data.params == {"training.steps": "20", "text.language": "ru"}
    assert seen.history(run.id, "loss") == [(10, 1.5), (20, 1.25)]
    assert found.data.tags["note"] == "hello"
    assert {item.path for item in seen.client.list_artifacts(found.info.run_id)} == {"checkpoints", "model.pt"}
    assert Path(seen.client.download_artifacts(found.info.run_id, "checkpoints/model.pt")).read_bytes() == b"weights"


def test_artefacts_lie_beside_the_database(tracker, seen, folder):
    with tracker, tracker.run("train") as run:
        pass
    assert seen.run(run.id).info.artifact_uri.startswith((folder / "mlflow-artefacts").as_uri())


def test_metrics_that_are_not_finite_are_counted_over_all_attempts_and_not_sent(tracker, seen, folder):
    with tracker, tracker.run("train") as run:
        run.metrics({"loss": math.nan, "gate_loss": 0.5}, step=1)
        run.metrics({"loss": math.inf}, step=2)
    with open_tracker(TrackingConfig(experiment="voices"), folder) as later, later.run("train", run_id=run.id) as again:
        again.metrics({"loss": math.inf}, step=2)  # the step that the killed attempt had made already
        again.metrics({"loss": math.nan}, step=3)
    data = seen.run(run.id).data
    assert data.metrics == {"gate_loss": 0.5}
    assert data.tags["non_finite.loss"] == "3"


def test_a_run_nests_below_its_parent_and_is_one_however_often_it_begins(tracker, seen, folder):
    with tracker, tracker.run("study") as study:
        with tracker.run("trial 0", parent=study.id) as trial:
            trial.metrics({"loss": 1.0}, step=1)
        with open_tracker(TrackingConfig(experiment="voices"), folder) as other, other.run("trial 0", parent=study.id) as again:
            again.metrics({"loss": 1.0}, step=1)
            again.metrics({"loss": 0.5}, step=2)
    above = seen.run(study.id).info.run_id
    assert trial.id == again.id
    assert [run.data.tags["tts.key"] for run in seen.all() if run.data.tags.get("mlflow.parentRunId") == above] == [trial.id]
    assert seen.history(trial.id, "loss") == [(1, 1.0), (2, 0.5)]


@pytest.mark.parametrize(("error", "status"), [(PreemptedError("stop"), "KILLED"), (KeyboardInterrupt(), "KILLED"), (ValueError("bug"), "FAILED")])
def test_the_end_of_a_run_tells_how_it_ended(tracker, seen, error, status):
    with tracker, pytest.raises(type(error)), tracker.run("train") as run:
        raise error
    assert seen.run(run.id).info.status == status


def test_a_stopped_run_goes_on_under_its_id(tracker, seen, folder):
    with tracker, pytest.raises(KeyboardInterrupt), tracker.run("train") as run:
        run.params({"training.steps": 20})
        raise KeyboardInterrupt
    assert seen.run(run.id).info.status == "KILLED"
    with open_tracker(TrackingConfig(experiment="voices"), folder) as later, later.run("train", run_id=run.id) as again:
        again.params({"training.steps": 30, "training.seed": 1})
    found = seen.run(run.id)
    assert again.id == run.id
    assert found.data.params == {"training.steps": "20", "training.seed": "1"}, "parameters are written once"
    assert found.data.tags["changed.training.steps"] == "30"
    assert found.info.status == "FINISHED"


def test_a_run_that_starts_over_with_another_configuration_is_recorded_anew(tracker, seen, folder):
    with tracker, tracker.run("train") as run:
        run.metrics({"loss": 2.0}, step=1)
    with open_tracker(TrackingConfig(experiment="voices"), folder) as later, later.run("train", run_id=run.id, anew=True) as again:
        again.metrics({"loss": 1.0}, step=1)
    assert seen.history(run.id, "loss") == [(1, 2.0), (1, 1.0)]
    assert seen.run(run.id).data.metrics == {"loss": 1.0}


def test_more_than_mlflow_takes_at_once(tracker, seen):
    with tracker, tracker.run("train") as run:
        run.params({f"p{i}": i for i in range(230)})
        run.tags({f"t{i}": "x" for i in range(230)})
        run.metrics({f"m{i}": float(i) for i in range(1700)}, step=1)
        for step in range(1300):
            run.metrics({"loss": 1.0 / (step + 1)}, step)
    found = seen.run(run.id)
    assert found.data.params == {f"p{i}": str(i) for i in range(230)}
    assert {f"t{i}" for i in range(230)} <= found.data.tags.keys()
    assert {f"m{i}": float(i) for i in range(1700)}.items() <= found.data.metrics.items()
    assert seen.history(run.id, "loss") == [(step, 1.0 / (step + 1)) for step in range(1300)]


def test_what_mlflow_will_never_take_keeps_nothing_back(tracker, seen, caplog):
    with tracker, tracker.run("train") as run:
        run.metrics({"loss": 1.0, "no\nname": 2.0, "mel_loss": 3.0}, step=1)
        run.tags({"long": "x" * 20_000})
        run.params({"long": "y" * 20_000})
    data = seen.run(run.id).data
    assert data.metrics == {"loss": 1.0, "mel_loss": 3.0}
    assert (len(data.tags["long"]), len(data.params["long"])) == (5000, 6000)
    assert "refused" in caplog.text
    assert tracker.undelivered == 0


def test_a_run_in_mlflows_bin_stays_there(tracker, seen, folder, caplog):
    with tracker, tracker.run("train") as run:
        run.metrics({"loss": 1.0}, step=1)
    binned = seen.run(run.id).info.run_id
    seen.client.delete_run(binned)
    with open_tracker(TrackingConfig(experiment="voices"), folder) as later, later.run("train", run_id=run.id) as again:
        for step in range(2, 12):
            again.metrics({"loss": 1.0}, step)
    assert later.undelivered == 0
    assert run.id not in {found.data.tags["tts.key"] for found in seen.all()}
    assert sum("refused" in record.message for record in caplog.records) <= 3


def test_an_inherited_run_becomes_the_parent(tracker, seen, folder, monkeypatch):
    with tracker, tracker.run("step of a pipeline") as outer:
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", seen.run(outer.id).info.run_id)
    with open_tracker(TrackingConfig(experiment="another"), folder) as inner, inner.run("train") as run:
        pass
    found = seen.run(run.id)
    assert found.data.tags["mlflow.parentRunId"] == seen.run(outer.id).info.run_id
    assert found.info.experiment_id == seen.run(outer.id).info.experiment_id


def test_only_a_better_voice_becomes_champion(tracker, seen, tmp_path):
    def register(content: str, distortion: float, *, fingerprint: str = "f", passed: bool = True) -> Registration:
        path = tmp_path / "model.pt"
        path.write_text(content)
        with tracker.run("register") as run:
            return tracker.register(
                path, name="voice", run_id=run.id, metrics={"mcd": distortion}, compare="mcd", fingerprint=fingerprint, passed=passed
            )

    assert not register("failed", 1.0, passed=False).champion
    assert "voice" in {model.name for model in seen.client.search_registered_models()}
    first = register("first", 8.0)
    assert (first.version, first.champion) == (2, True)
    worse = register("worse", 9.0)
    assert not worse.champion
    assert "mcd 9 is not below 8 of version 2" in worse.reason
    assert not register("not a number", math.nan).champion
    assert not register("other corpus", 1.0, fingerprint="g").champion
    best = register("best", 7.0)
    assert (best.version, best.champion) == (6, True)
    version = seen.client.get_model_version_by_alias("voice", CHAMPION)
    assert int(version.version) == 6
    assert version.tags["metric.mcd"] == "7.0"
    assert version.tags["fingerprint"] == "f"
    assert Path(seen.client.download_artifacts(version.run_id, "model/model.pt")).read_text() == "best"
    again = register("best", 7.0)
    assert (again.version, again.champion) == (6, True), "the same files are one version"


def test_processes_open_one_fresh_store(tmp_path, look):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_open_and_record, args=(tmp_path, number)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(200)
    assert [worker.exitcode for worker in workers] == [0, 0]
    seen = look(f"sqlite:///{tmp_path}/mlflow.db", "shared")
    assert len([e for e in seen.client.search_experiments() if e.name == "shared"]) == 1
    assert sorted(run.info.run_name for run in seen.all()) == ["worker 0", "worker 1"]
    assert all(seen.history(run.data.tags["tts.key"], "loss") == [(step, float(step)) for step in range(20)] for run in seen.all())


def _open_and_record(folder: Path, number: int) -> None:
    with open_tracker(TrackingConfig(experiment="shared"), folder) as tracker:
        with tracker.run(f"worker {number}") as run:
            for step in range(20):
                run.metrics({"loss": float(step)}, step)
        tracker.close(150)  # a store is created first


def test_a_locked_database_is_waited_for(tracker, seen, folder):
    lock = sqlite3.connect(folder / "mlflow.db", isolation_level=None, check_same_thread=False)
    lock.execute("BEGIN IMMEDIATE")
    with tracker:
        with tracker.run("train") as run:
            run.metrics({"loss": 1.0}, step=1)
        assert tracker.undelivered == 3
        threading.Timer(1.5, lambda: lock.execute("COMMIT")).start()
    lock.close()
    assert seen.run(run.id).data.metrics == {"loss": 1.0}


def test_a_database_that_stays_locked_is_told_and_taken_up_later(seen, folder, tmp_path, monkeypatch):
    """Another program reads it, and it is not in WAL mode yet: the mode cannot be set."""
    reader = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as store:
        store.backup(reader)
    reader.execute("PRAGMA journal_mode=DELETE")
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM experiments").fetchall()
    monkeypatch.setattr(mlflow_store, "BUSY_SECONDS", 0.1)
    monkeypatch.setattr(mlflow_store, "PAUSES", (0.1,))
    with pytest.raises(ServiceUnavailableError, match="database is locked"):
        mlflow_store.MlflowStore(Location(tmp_path, "", "voices"))
    reader.close()
    mlflow_store.MlflowStore(Location(tmp_path, "", "voices"))
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as later:
        assert later.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_runs_that_ended_and_were_delivered_take_no_memory(tracker, seen, folder):
    courier = tracker._courier
    with tracker:
        for number in range(5):
            with tracker.run(f"trial {number}") as run:
                run.metrics({"loss": 1.0, "gate_loss": math.nan}, step=1)
        wait(lambda: not courier._own)
        assert not courier._delivery._replays
        assert tracker.undelivered == 0
        with tracker.run("trial 4", run_id=run.id) as again:
            again.metrics({"loss": 1.0, "gate_loss": math.nan}, step=1)  # what the attempt before had done
            again.metrics({"loss": 0.5, "gate_loss": math.nan}, step=2)
            assert courier._own.keys() == {run.id}
    assert seen.history(run.id, "loss") == [(1, 1.0), (2, 0.5)]
    assert seen.run(run.id).data.tags["non_finite.gate_loss"] == "2"
    assert seen.run(run.id).info.status == "FINISHED"
    assert not courier._own
    assert not courier._delivery._replays


def test_on_nfs4_a_run_is_recorded_and_delivered(tracker, seen, nfs4):
    with tracker, tracker.run("train") as run:
        run.metrics({"loss": 1.0}, step=1)
    assert seen.run(run.id).data.metrics == {"loss": 1.0}
    assert nfs4


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


SECRET = [
    "postgresql://user:s3cret@host/db",
    "postgresql://u:s3/cret@host/db",
    "postgresql://u:p@s3/cret@host/db",
    "postgresql://u:s3cret?x=1@host/db",
    "postgresql://u:s3 cret@host/db",
    "postgresql://host/db?user=u&password=s3cret",
    "postgresql://host/db?password=a@s3cret",
    "postgresql://host/db?sslmode=require&PassWD=s3cret&x=1",
    "postgresql://host/db?host=a;password=s3cret",
    "mysql+pymysql://host/db?pass%77ord=s3cret",
    "http://host:5000/?token=s3cret",
    "https://host/?s3cret",
    "https://host/#s3cret",
]


@pytest.mark.parametrize("uri", SECRET)
def test_an_address_with_a_password_is_no_knob_and_shown_nowhere(uri, tmp_path, monkeypatch):
    for backend in ("mlflow", "none"):
        with pytest.raises(UsageError, match=r"carries a password or .* MLFLOW_TRACKING_URI.* MLFLOW_TRACKING_TOKEN") as refused:
            open_tracker(TrackingConfig(uri=uri, backend=backend), tmp_path)
        assert not re.search("s3|cret", str(refused.value))
    assert not list(tmp_path.iterdir())
    location = Location(tmp_path, uri, "voices")
    assert not re.search("s3|cret", repr(location))
    if " " in uri:
        with pytest.raises(UsageError, match="must have no spaces") as refused:
            location.checked()
        assert not re.search("s3|cret", str(refused.value))
        return
    assert not re.search("s3|cret", location.public + str(explain(OSError(f"no way to {uri}"), location)))
    assert redact(location.public) == location.public
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    open_tracker(TrackingConfig(), tmp_path / "run")
    (kept,) = (tmp_path / "run").rglob("store.json")
    assert not re.search("s3|cret", kept.read_text())
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UsageError, match="has a password, which is not kept"):
        flush(tmp_path, TrackingConfig(), progress=Silent())


@pytest.mark.parametrize(
    "uri",
    [
        "http://host:5000/mlflow",
        "postgresql://host/db",
        "postgresql:///db?host=/run/postgresql&sslmode=verify-full&connect_timeout=5",
        "sqlite:////data/user@domain/my study/mlflow.db",
        "sqlite:///user@domain//x@y/mlflow.db?timeout=60",
    ],
)
def test_an_address_without_a_secret_is_shown_as_it_is(uri, tmp_path):
    location = Location.of(TrackingConfig(uri=uri), tmp_path)
    assert (location.uri, location.public) == (uri, uri)


def test_databases_that_options_name_are_different_stores(tmp_path):
    first, second = (Location(tmp_path, f"postgresql://host/?password=s3cret&dbname={name}", "voices") for name in "ab")
    assert first.name != second.name


def test_what_is_no_address_is_not_shown(tmp_path):
    for uri in ("postgresql:u:s3cret@host/db", "u:s3cret@host", "postgresql:/u:s3cret@host/db"):
        with pytest.raises(UsageError, match="must begin with one of") as refused:
            open_tracker(TrackingConfig(uri=uri), tmp_path)
        assert "s3cret" not in str(refused.value)
