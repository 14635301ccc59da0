"""Runs in an object store, with workers that share nothing but it and the database."""

import json
import os
import shutil
import signal
import threading

import pytest
from optuna.trial import TrialState

from tests.storage.wire import wire
from tests.tuning.elsewhere import kill, published, same, worker
from tts.errors import PreemptedError, UsageError
from tts.storage import entries, publish
from tts.training.preemption import StopFlag
from tts.tuning.keep.upkeep import delete
from tts.tuning.work.runs import run_folder
from tts.tuning.work.worker import work

QUICK = {"heartbeat_seconds": 0.5, "stale_seconds": 10.0, "pruner": "none", "trials": 1}
LONG = {**QUICK, "steps": 160, "validation_interval": 8}


@pytest.fixture
def in_bucket(make_study, bucket, postgres, this_machine):
    """Makes a study that keeps its runs in the bucket, in a database of its own on the server."""

    def make(folder="study", **knobs):
        return make_study(folder, url=postgres.database(), runs_uri=f"{bucket.uri}/{folder}", **knobs)

    return make


def trial_of(study):
    return study.trials.trials[0]


def under_way(study, reports):
    """Whether the trial has published a state and gone on since."""
    trial = trial_of(study)
    return trial.state == TrialState.RUNNING and trial.user_attrs.get("run") and len(trial.intermediate_values) >= reports


def hide(study):
    """No worker needs the study's folder."""
    shutil.rmtree(study.plan.folder)


@pytest.mark.slow
def test_a_trial_whose_machine_is_gone_goes_on_elsewhere_and_equals_one_that_never_stopped(in_bucket, features, bucket, tmp_path, until, machines):
    publish(features, f"{bucket.uri}/features")
    whole, study = in_bucket("whole", **LONG), in_bucket(**LONG)
    hide(study)
    work(features, storage=whole.url, name="voices", stop=StopFlag())

    lost = worker(study, f"{bucket.uri}/features", machines / "a", "--node_cache", str(tmp_path / "cache"))
    until(lambda: under_way(study, 4))
    kill(lost)
    before = trial_of(study)
    shutil.rmtree(machines / "a")
    second = worker(study, f"{bucket.uri}/features", machines / "b", "--node_cache", str(tmp_path / "cache"))
    assert second.wait() == 0, (machines / "b" / "log").read_text()

    trial, expected = trial_of(study), trial_of(whole)
    assert trial.user_attrs["interruptions"] == ["its worker gave no sign of life for 10 s"]
    assert (trial.state, trial.value) == (TrialState.COMPLETE, expected.value)
    assert trial.intermediate_values == expected.intermediate_values
    assert trial.user_attrs["unpublished"] == ""
    assert same(published(study), published(whole))
    assert published(study)["state"] == ("finished", 160)
    # It went on, from what the first one had published; and what it replaced is gone.
    log = (machines / "b" / "log").read_text()
    assert "begins again" not in log
    assert before.user_attrs["run"] != trial.user_attrs["run"]
    assert entries(before.user_attrs["run"]) == []
    (place,) = trial.user_attrs["run_prefixes"]
    assert trial.user_attrs["run"].startswith(f"{place}/")
    assert {key.removeprefix("study/voices/trials/0/").split("/")[0] for key in bucket.keys("study/")} == {place.rpartition("/")[2]}
    assert list((machines / "b").glob("tts-*/[!.]*")) == [], "a worker leaves nothing on its machine"


@pytest.mark.slow
def test_a_worker_asked_to_stop_publishes_its_newest_checkpoint_before_it_hands_back(in_bucket, features, machines, until):
    study = in_bucket(**LONG)
    hide(study)
    first = worker(study, features, machines / "a")
    until(lambda: under_way(study, 4))
    first.send_signal(signal.SIGTERM)

    assert first.wait() == PreemptedError.exit_code
    trial = trial_of(study)
    assert trial.state == TrialState.WAITING
    assert trial.user_attrs["interruptions"] == ["handed back at its checkpoint"]
    kept = published(study)
    assert kept["state"][0] == "preempted"
    assert kept["file"] == f"step-{kept['state'][1]:08d}.pt"
    assert kept["state"][1] >= max(trial.intermediate_values)

    assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 1
    steps = [json.loads(line) for line in published_lines(study)]
    assert [line["step"] for line in steps if line["kind"] == "train"] == list(range(1, 161))


def published_lines(study):
    with run_folder(study, trial_of(study)) as run:
        return (run / "metrics.jsonl").read_text().splitlines()


@pytest.mark.slow
def test_a_paused_worker_that_wakes_changes_nothing_that_the_study_points_to(in_bucket, features, bucket, s3_endpoint, machines, until):
    study = in_bucket(**LONG)
    hide(study)
    uploading, going_on = threading.Event(), threading.Event()

    def hold(request):
        if request.startswith("PUT") and "/000002/" in request:
            uploading.set()
            going_on.wait()

    with wire(s3_endpoint) as seen:
        seen.before = hold
        paused = worker(study, features, machines / "a", environment={"AWS_ENDPOINT_URL": seen.uri})
        until(uploading.is_set)
        first = trial_of(study).user_attrs["worker"]
        os.kill(paused.pid, signal.SIGSTOP)
        assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 1
        before, content = trial_of(study), objects(bucket, "study/")
        going_on.set()
        os.kill(paused.pid, signal.SIGCONT)
        assert paused.wait() == 0

    assert (before.state, trial_of(study)) == (TrialState.COMPLETE, before)
    assert before.user_attrs["worker"] != first
    assert objects(bucket, "study/") == content
    assert "no longer this attempt's" in (machines / "a" / "log").read_text()


def objects(bucket, prefix):
    return {key: bucket.get(key) for key in bucket.keys(prefix)}


def test_a_store_that_goes_away_costs_no_trial_and_the_trial_says_what_is_missing(in_bucket, features, s3_endpoint, monkeypatch, caplog):
    monkeypatch.setattr("tts.tuning.work.halt.PUBLISH_SECONDS", 0.5)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    study = in_bucket(**{**QUICK, "steps": 24, "validation_interval": 2})

    with wire(s3_endpoint) as seen:
        seen.answer = lambda _: (503, b"") if trial_of(study).user_attrs.get("run") else None
        monkeypatch.setenv("AWS_ENDPOINT_URL", seen.uri)
        assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)

    trial = trial_of(study)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, trial.intermediate_values[24])
    assert "does not serve after retries" in trial.user_attrs["unpublished"]
    assert caplog.text.count("it is tried again, and training goes on") == 1
    state = published(study)["state"]
    assert state[0] == "running", "the last state that could be published"
    assert 0 < state[1] < 24


def test_a_published_run_that_is_damaged_lets_the_trial_begin_again(in_bucket, features, bucket, caplog):
    study = in_bucket(**{**QUICK, "steps": 24, "validation_interval": 2})

    class Stops(StopFlag):
        def __bool__(self):
            if trial_of(study).user_attrs.get("run"):
                self.set()
            return super().__bool__()

    with pytest.raises(PreemptedError):
        work(features, storage=study.url, name="voices", stop=Stops())
    (damaged,) = [key for key in bucket.keys("study/") if key.endswith("metrics.jsonl")]
    bucket.put(damaged, b"{}")

    assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 1

    assert "trial 0 begins again" in caplog.text
    assert trial_of(study).state == TrialState.COMPLETE
    assert list(trial_of(study).intermediate_values) == list(range(2, 25, 2))
    assert published(study)["state"] == ("finished", 24)


def test_two_workers_of_one_machine_know_each_other_by_their_locks(in_bucket, features, this_machine, until):
    """Without waiting for a sign of life."""
    study = in_bucket(**{**LONG, "stale_seconds": 3600.0})
    first = worker(study, features, this_machine)
    until(lambda: under_way(study, 2))
    kill(first)

    assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 1
    assert trial_of(study).user_attrs["interruptions"] == ["its worker died"]
    assert list(this_machine.glob("tts-*/[!.]*")) == [], "what the killed one left is cleared away"


def test_a_study_is_deleted_with_its_runs_in_the_store(in_bucket, features, bucket):
    study = in_bucket(**QUICK)
    work(features, storage=study.url, name="voices", stop=StopFlag())
    bucket.put("study/voices/trials/of-another", b"")

    with pytest.raises(UsageError, match=f"and the runs in {bucket.uri}/study, for good; add --yes"):
        delete(study, sure=False)
    assert len(bucket.keys("study/")) > 1
    delete(study, sure=True)

    assert bucket.keys("study/") == ["study/voices/trials/of-another"]


@pytest.mark.parametrize("place", ["runs", "/shared/runs", "gs://bucket/runs"])
def test_a_place_that_is_no_object_store_is_refused(make_study, place):
    with pytest.raises(UsageError, match=r"s3://"):
        make_study(runs_uri=place)


def test_a_worker_ends_after_as_many_trials_as_it_was_to_run(in_bucket, features, tts, monkeypatch):
    study = in_bucket(**{**QUICK, "trials": 3})
    monkeypatch.setenv("TTS_STORAGE", study.url)

    code, out, _ = tts("worker", features, "--study", "voices", "--trials_per_pod", 2)

    assert (code, out) == (0, "finished 2 trials of study voices; others run the rest\n")
    assert [trial.state for trial in study.trials.trials] == [TrialState.COMPLETE] * 2
    assert tts("worker", features, "--study", "voices", "--trials_per_pod", 2)[1].endswith("all 3 trials (tuning.trials) are finished\n")
    assert tts("worker", features, "--trials_per_pod", -1)[0] == UsageError.exit_code
