"""A real MLflow server that goes away, hangs, comes back or is none; processes killed while they record and while they deliver."""

import contextlib
import fcntl
import json
import logging
import math
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.tracking.relay import Relay
from tts.cli import main
from tts.config import TrackingConfig
from tts.errors import ServiceUnavailableError, UsageError
from tts.progress import Silent
from tts.tracking import answer, open_tracker
from tts.tracking.flush import flush
from tts.tracking.spool import Spool

EXPERIMENT = "voices"

RECORD = """
import sys
from pathlib import Path
from tts.config import TrackingConfig
from tts.tracking import open_tracker
tracker = open_tracker(TrackingConfig(uri=sys.argv[1], experiment="voices"), Path(sys.argv[2]))
with tracker.run("trial-7", parent=sys.argv[3]) as run:
    step = 0
    while True:
        step += 1
        run.metrics({"loss": 1.0 / step}, step)
        print(step, flush=True)
"""
"""Records until it is killed, and says how far it is."""


def config(uri: str) -> TrackingConfig:
    return TrackingConfig(uri=uri, experiment=EXPERIMENT)


def wait(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "still waiting"
        time.sleep(0.02)


def spool_of(folder: Path, key: str) -> Spool:
    (store,) = (folder / ".spool").iterdir()
    return Spool(store, key)


@pytest.fixture(scope="module")
def seen(mlflow_server, look, tmp_path_factory):
    open_tracker(config(mlflow_server.uri), tmp_path_factory.mktemp("first"), must_answer=True)
    return look(mlflow_server.uri, EXPERIMENT)


@pytest.fixture
def relay(mlflow_server):
    relay = Relay(mlflow_server.port)
    yield relay
    relay.refuse()


@pytest.fixture
def nobody_hears():
    """A server that never accepts."""
    relay = Relay(0)
    relay.hang()
    yield relay.uri
    relay.refuse()


class Answering(BaseHTTPRequestHandler):
    """Answers every request alike, and silently."""

    def answer(self) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_PATCH = do_PUT = do_GET

    def log_message(self, *_arguments: object) -> None:
        pass


@contextlib.contextmanager
def serving(handler: type[Answering]):
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def answers(status: int, body: str, kind: str = "text/html"):
    """A server with one answer for everything."""

    class Handler(Answering):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

    with serving(Handler) as uri:
        yield uri


def test_a_study_and_its_trials_over_http(mlflow_server, seen, tmp_path):
    (tmp_path / "page.html").write_text("first")
    with open_tracker(config(mlflow_server.uri), tmp_path) as tracker, tracker.run("study") as study:
        study.params({"features": "abc"})
        with tracker.run("trial-0", parent=study.id) as trial:
            for step in range(1, 51):
                trial.metrics({"loss": 1.0 / step, "gate_loss": math.nan if step % 10 == 0 else 0.5}, step)
            trial.artefact(tmp_path / "page.html", "pages")
            (tmp_path / "page.html").write_text("second")
            trial.artefact(tmp_path / "page.html", "pages")
            (tmp_path / "page.html").unlink()
    assert tracker.undelivered == 0
    above, below = seen.run(study.id), seen.run(trial.id)
    assert (above.info.status, below.info.status) == ("FINISHED", "FINISHED")
    assert below.data.tags["mlflow.parentRunId"] == above.info.run_id
    assert seen.history(trial.id, "loss") == [(step, 1.0 / step) for step in range(1, 51)]
    assert below.data.tags["non_finite.gate_loss"] == "5"
    assert Path(seen.client.download_artifacts(below.info.run_id, "pages/page.html")).read_text() == "second"
    assert not list(spool_of(tmp_path, trial.id).copies.iterdir()), "copies that were delivered are gone"


def test_sending_all_of_it_again_changes_nothing(mlflow_server, seen, tmp_path):
    with open_tracker(config(mlflow_server.uri), tmp_path) as tracker, tracker.run("train") as run:
        run.params({"a": 1})
        for step in range(1, 31):
            run.metrics({"loss": 1.0 / step}, step)
    before = seen.run(run.id)
    (spool_of(tmp_path, run.id).folder / f"{run.id}.json").unlink()  # as if the process had been killed before it noted what it sent
    made = flush(tmp_path, TrackingConfig(), progress=Silent())
    assert (made.records, made.left, made.reason) == (33, 0, None)
    after = seen.run(run.id)
    assert seen.history(run.id, "loss") == [(step, 1.0 / step) for step in range(1, 31)]
    assert (after.info.run_id, after.data.params, after.data.tags) == (before.info.run_id, before.data.params, before.data.tags)
    assert flush(tmp_path, TrackingConfig(), progress=Silent()).records == 0


def test_recording_waits_for_nobody_and_a_dead_server_is_left_at_once(nobody_hears, tmp_path, caplog):
    """The server never accepts: a request to it would not return, so what returns made none."""
    tracker = open_tracker(config(nobody_hears), tmp_path)
    with tracker.run("train") as run:
        for step in range(1000):
            run.metrics({"loss": 1.0}, step)
    assert tracker.undelivered == 1002
    tracker.close(0.1)
    assert "1002 records are kept in" in caplog.text
    assert f"tts tracking flush {tmp_path}" in caplog.text


def test_what_was_recorded_while_it_was_down_is_delivered_by_flush(relay, seen, tmp_path, capsys):
    with open_tracker(config(relay.uri), tmp_path) as tracker, tracker.run("study") as study:
        for number in range(3):
            with tracker.run(f"trial-{number}", parent=study.id) as run:
                for step in range(1, 11):
                    run.metrics({"loss": number + 1.0 / step}, step)
    left = tracker.undelivered
    assert left == 2 + 3 * 12
    assert main(["tracking", "flush", str(tmp_path)]) == ServiceUnavailableError.exit_code
    out, said = capsys.readouterr()
    assert f"delivered: 0 records of 0 runs; left: {left}" in out
    assert f"MLflow at {relay.uri} is out of reach" in said
    relay.up()
    assert main(["tracking", "flush", str(tmp_path)]) == 0
    assert f"delivered: {left} records of 4 runs; left: 0" in capsys.readouterr().out
    trials = [found for found in seen.all() if found.data.tags.get("mlflow.parentRunId") == seen.run(study.id).info.run_id]
    assert sorted(trial.info.run_name for trial in trials) == ["trial-0", "trial-1", "trial-2"]
    for trial in trials:
        number = int(trial.info.run_name.removeprefix("trial-"))
        assert seen.history(trial.data.tags["tts.key"], "loss") == [(step, number + 1.0 / step) for step in range(1, 11)]
        assert trial.info.status == "FINISHED"


def test_the_thread_delivers_by_itself_when_the_server_is_back(mlflow_server, seen, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="tts.tracking")
    with open_tracker(config(mlflow_server.uri), tmp_path) as tracker, tracker.run("train") as run:
        run.metrics({"loss": 1.0}, 1)
        wait(lambda: tracker.undelivered == 0)
        mlflow_server.stop()
        for step in range(2, 20):
            run.metrics({"loss": 1.0 / step}, step)
        wait(lambda: "is out of reach" in caplog.text)
        mlflow_server.start()
        run.metrics({"loss": 0.05}, 20)
        wait(lambda: tracker.undelivered == 0)
    told = [record.message for record in caplog.records if mlflow_server.uri in record.message]
    assert len(told) == 2, told
    assert "is out of reach" in told[0]
    assert told[1] == f"MLflow at {mlflow_server.uri} is back"
    assert seen.history(run.id, "loss") == [(step, 1.0 / step) for step in range(1, 21)]


def test_answers_that_are_lost_on_their_way_lose_and_repeat_nothing(relay, seen, tmp_path):
    """Each attempt is cut off one piece of an answer later: at every call there is one that was done and not known to be done."""
    (tmp_path / "a.txt").write_text("a")
    with open_tracker(config(relay.uri), tmp_path) as tracker, tracker.run("study") as study, tracker.run("trial-0", parent=study.id) as trial:
        trial.params({"a": 1})
        trial.metrics({"loss": 1.0, "gate_loss": math.nan}, 1)
        trial.artefact(tmp_path / "a.txt")
        trial.metrics({"loss": 0.5}, 2)
    for answers_before_the_cut in range(60):
        relay.up_for(answers_before_the_cut)
        if flush(tmp_path, TrackingConfig(), progress=Silent()).reason is None:
            break
    assert answers_before_the_cut > 3
    assert tracker.undelivered == 0
    found = [run for run in seen.all() if run.data.tags["tts.key"] in (study.id, trial.id)]
    assert sorted(run.info.run_name for run in found) == ["study", "trial-0"]
    assert seen.history(trial.id, "loss") == [(1, 1.0), (2, 0.5)]
    assert seen.run(trial.id).data.params == {"a": "1"}
    assert seen.run(trial.id).data.tags["non_finite.gate_loss"] == "1"
    assert {run.info.status for run in found} == {"FINISHED"}


def test_a_run_that_a_slow_server_makes_twice_is_one_in_the_end(relay, seen, tmp_path, monkeypatch):
    """It carries out the first call only after we have given it up and made another."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    relay.up()
    relay.hold(b"runs/create")
    with open_tracker(config(relay.uri), tmp_path) as tracker:
        with tracker.run("train") as run:
            run.metrics({"loss": 1.0}, 1)
            wait(lambda: relay.late)
            relay.up()  # cut off: the call is made again
            held = relay.late.pop()
            relay.hold(b"")
            wait(lambda: tracker.undelivered == 0)
            relay.late.append(held)
            relay.release()
            assert len([found for found in seen.all() if found.data.tags["tts.key"] == run.id]) == 2
        wait(lambda: tracker.undelivered == 0)
    assert seen.run(run.id).info.status == "FINISHED"
    assert seen.history(run.id, "loss") == [(1, 1.0)]


def test_a_killed_recorder_loses_nothing_and_its_run_goes_on(mlflow_server, seen, tmp_path):
    with open_tracker(config(mlflow_server.uri), tmp_path) as tracker, tracker.run("study") as study:
        said = 0
        for _ in range(2):
            recorder = subprocess.Popen([sys.executable, "-c", RECORD, mlflow_server.uri, str(tmp_path), study.id], stdout=subprocess.PIPE, text=True)
            said = max(said, *(int(recorder.stdout.readline()) for _ in range(300)))
            recorder.send_signal(signal.SIGKILL)
            rest = recorder.stdout.read().splitlines()
            said = max([said, *(int(line) for line in rest[:-1])])
            recorder.wait()
        with open_tracker(config(mlflow_server.uri), tmp_path) as other, other.run("trial-7", parent=study.id) as run:
            for step in range(said - 5, said + 5):
                run.metrics({"loss": 1.0 / step}, step)
    assert tracker.undelivered == 0
    history = seen.history(run.id, "loss")
    assert len(history) >= said
    assert history == [(step, 1.0 / step) for step in range(1, len(history) + 1)]
    assert seen.run(run.id).info.status == "FINISHED"


def test_a_run_whose_recorder_was_killed_is_ended_by_others(mlflow_server, seen, tmp_path):
    with open_tracker(config(mlflow_server.uri), tmp_path) as tracker, tracker.run("study") as study:
        recorder = subprocess.Popen([sys.executable, "-c", RECORD, "http://127.0.0.1:9", str(tmp_path), study.id], stdout=subprocess.PIPE)
        recorder.stdout.readline()
        recorder.kill()
        recorder.communicate()
    # It recorded for another server, and lies where only flush looks.
    assert len(list((tmp_path / ".spool").iterdir())) == 2
    made = flush(tmp_path, config(mlflow_server.uri), progress=Silent())
    assert (made.left, made.reason) == (0, None)
    (trial,) = [found for found in seen.all() if found.data.tags.get("mlflow.parentRunId") == seen.run(study.id).info.run_id]
    assert trial.info.status == "KILLED"


def test_flush_may_be_killed_and_run_twice_at_once(relay, seen, tmp_path):
    """Thirty pairs of a value and a file make sixty calls: there is a middle to be killed in."""
    (tmp_path / "a.txt").write_text("a")
    with open_tracker(config(relay.uri), tmp_path) as tracker, tracker.run("train") as run:
        for step in range(1, 31):
            run.metrics({"loss": 1.0 / step}, step)
            run.artefact(tmp_path / "a.txt", f"at-{step}")
    spool = spool_of(tmp_path, run.id)
    relay.up()
    command = [sys.executable, "-m", "tts.cli", "tracking", "flush", str(tmp_path)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait(lambda: spool.state(spool.folder.name).offset > 1000)
    first.kill()
    first.communicate()
    assert 0 < spool.pending(spool.folder.name) < 62
    second = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    third = flush(tmp_path, TrackingConfig(), progress=Silent())
    said, _ = second.communicate()
    assert (second.returncode, third.left, third.reason) == (0, 0, None), said
    assert seen.history(run.id, "loss") == [(step, 1.0 / step) for step in range(1, 31)]
    assert len(seen.client.list_artifacts(seen.run(run.id).info.run_id)) == 30
    assert seen.run(run.id).info.status == "FINISHED"


def test_flush_beside_a_living_recorder(mlflow_server, seen, tmp_path):
    with open_tracker(config(mlflow_server.uri), tmp_path) as tracker, tracker.run("study") as study:
        pass
    recorder = subprocess.Popen([sys.executable, "-c", RECORD, mlflow_server.uri, str(tmp_path), study.id], stdout=subprocess.PIPE)
    fcntl.fcntl(recorder.stdout, fcntl.F_SETPIPE_SZ, 4096)  # it waits for its reader, alive, after some hundred steps
    for _ in range(100):
        recorder.stdout.readline()
    made = flush(tmp_path, TrackingConfig(), progress=Silent())
    assert (made.left, made.reason) == (0, None)
    assert recorder.poll() is None
    recorder.kill()
    recorder.communicate()
    made = flush(tmp_path, TrackingConfig(), progress=Silent())
    assert (made.left, made.reason) == (0, None)
    (trial,) = [found for found in seen.all() if found.data.tags.get("mlflow.parentRunId") == seen.run(study.id).info.run_id]
    assert trial.info.status == "KILLED"
    history = seen.history(trial.data.tags["tts.key"], "loss")
    assert len(history) >= 99
    assert history == [(step, 1.0 / step) for step in range(1, len(history) + 1)]


@contextlib.contextmanager
def forgetful(remembers: threading.Event):
    """Speaks like MLflow, and knows no run that it made until it `remembers`."""
    run = {"info": {"run_id": "1", "run_uuid": "1", "experiment_id": "0", "status": "RUNNING"}, "data": {}}
    experiment = {"experiment": {"experiment_id": "0", "name": EXPERIMENT, "lifecycle_stage": "active"}}

    class Handler(Answering):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            said = experiment if "/experiments/" in self.path else {"run": run} if self.path.endswith("/runs/create") else {}
            known = remembers.is_set() or "/runs/log-batch" not in self.path
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(said if known else {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such run"}).encode())

    with serving(Handler) as uri:
        yield uri


def test_a_server_that_forgets_what_it_makes_is_told_and_asked_again(tmp_path, caplog):
    remembers = threading.Event()
    with forgetful(remembers) as uri, open_tracker(config(uri), tmp_path) as tracker:
        with tracker.run("train") as run:
            run.metrics({"loss": 1.0}, 1)
        wait(lambda: f"MLflow at {uri} forgets run {run.id}" in caplog.text, 60)
        remembers.set()
        wait(lambda: tracker.undelivered == 0, 60)
        assert caplog.text.count(f"MLflow at {uri} forgets run {run.id}") == 1


def test_registering_delivers_the_run_first(relay, seen, tmp_path, mlflow_server):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.pt").write_bytes(b"weights")
    with open_tracker(config(relay.uri), tmp_path) as tracker, tracker.run("train") as run:
        run.metrics({"loss": 1.0}, 1)
        asked = {"name": "voice", "run_id": run.id, "metrics": {"mcd": 5.0}, "compare": "mcd", "fingerprint": "f", "passed": True}
        with pytest.raises(ServiceUnavailableError, match="is out of reach"):
            tracker.register(tmp_path / "model", **asked)
        relay.up()
        registration = tracker.register(tmp_path / "model", **asked)
        assert seen.history(run.id, "loss") == [(1, 1.0)]
    assert (registration.version, registration.champion) == (1, True)
    version = seen.client.get_model_version_by_alias("voice", "champion")
    assert version.run_id == seen.run(run.id).info.run_id


def test_a_password_is_in_no_file_and_no_message(mlflow_server, seen, tmp_path, monkeypatch, caplog, capsys):
    with pytest.raises(UsageError, match=r"'http://\.\.\.@127\.0\.0\.1:9' carries a password") as caught:
        open_tracker(config("http://user:s3cret@127.0.0.1:9"), tmp_path)
    assert "s3cret" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:s3cret@127.0.0.1:{mlflow_server.port + 1}")
    with pytest.raises(ServiceUnavailableError) as unreachable:
        open_tracker(config(""), tmp_path, must_answer=True)
    assert "s3cret" not in str(unreachable.value)
    with open_tracker(config(""), tmp_path / "study") as tracker:
        with tracker.run("study") as run:
            run.metrics({"loss": 1.0}, 1)
        wait(lambda: "out of reach" in caplog.text)
    assert main(["tracking", "flush", str(tmp_path / "study")]) == ServiceUnavailableError.exit_code
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main(["tracking", "flush", str(tmp_path / "study")]) == UsageError.exit_code
    said = capsys.readouterr().err
    assert "has a password, which is not kept; give it in MLFLOW_TRACKING_URI" in said
    assert "s3cret" not in caplog.text + said
    kept = [path for path in (tmp_path / "study").rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if b"s3cret" in path.read_bytes()]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:s3cret@127.0.0.1:{mlflow_server.port}")
    assert main(["tracking", "flush", str(tmp_path / "study"), "--tracking.uri", mlflow_server.uri]) == 0
    assert seen.history(run.id, "loss") == [(1, 1.0)]


MISSING = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Could not find experiment"})


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (200, "<html>Welcome to nginx</html>", UsageError, r"what answers at .* \(status 200\) is not MLflow"),
        (404, "<html>not here</html>", UsageError, r"\(status 404\) is not MLflow"),
        (200, '{"status": "ok"}', UsageError, "is not MLflow"),
        (401, "who are you?", UsageError, "answers 401: it lets us in for nothing"),
        (403, MISSING, UsageError, "answers 403"),
        (500, "oops", ServiceUnavailableError, "answers 500; see its log"),
        (503, MISSING, ServiceUnavailableError, "answers 503"),
    ],
)
def test_new_work_asks_once_whether_there_is_a_server(tmp_path, status, body, error, message):
    with answers(status, body) as uri:
        with pytest.raises(error, match=message) as caught:
            open_tracker(config(uri), tmp_path, must_answer=True)
        assert uri in str(caught.value)
        with open_tracker(config(uri), tmp_path) as tracker, tracker.run("train") as run:  # work that goes on does not ask
            run.metrics({"loss": 1.0}, 1)
        assert tracker.undelivered == 3


def test_new_work_does_not_wait_for_a_server_that_hangs(nobody_hears, tmp_path, monkeypatch):
    monkeypatch.setattr(answer, "SECONDS", 0.5)
    with pytest.raises(ServiceUnavailableError, match=f"MLflow at {nobody_hears} "):
        open_tracker(config(nobody_hears), tmp_path, must_answer=True)


def test_new_training_with_a_wrong_address_ends_before_it_begins(features, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", str(features), str(run), "--tracking.backend", "mlflow", "--tracking.uri", "http://127.0.0.1:9"]) == 69
    assert "MLflow at http://127.0.0.1:9 is out of reach" in capsys.readouterr().err
    assert not (run / "run.json").exists()
    with answers(200, "<html></html>") as uri:
        study = tmp_path / "study"
        assert main(["tune", str(features), str(study), "--tracking.backend", "mlflow", "--tracking.uri", uri]) == UsageError.exit_code
    assert not study.exists()


def test_flush_says_where_nothing_was_recorded(tmp_path, capsys):
    assert main(["tracking", "flush", str(tmp_path)]) == 65
    assert "nothing was recorded for MLflow in" in capsys.readouterr().err
    assert main(["tracking", "flush", str(tmp_path / "nowhere")]) == 65
    assert "does not exist" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
