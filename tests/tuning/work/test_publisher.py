"""One attempt's states on their way into a real object store."""

import threading

import pytest

from tests.storage.wire import wire
from tts.errors import TakenOverError
from tts.storage import entries, fetch
from tts.tuning.database.failure import LeaseLostError
from tts.tuning.work.publisher import Publisher


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / ".lock").write_text("")
    (folder / "checkpoints" / ".step-1.pt.partial").write_text("half")
    write(folder, 1)
    return folder


def write(run, step):
    for left in (run / "checkpoints").glob("step-*"):
        left.unlink()
    (run / "checkpoints" / f"step-{step}.pt").write_text(f"weights {step}")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(f"{step}\n")


def names(place):
    return {entry.name for entry in entries(place)} - {".manifest.json"}


def for_ever(_waited):
    return 1.0


def nothing():
    pass


def test_the_newest_state_is_told_of_whole_and_takes_the_place_of_the_one_before(run, bucket, tmp_path, until):
    told = []
    publisher = Publisher(run, f"{bucket.uri}/trial", tmp_path / "states", told.append)
    publisher.offer()
    until(lambda: told)
    write(run, 2)
    publisher.offer()
    write(run, 3)  # after it was kept

    assert publisher.finish(nothing, for_ever) == ""
    assert told == [f"{bucket.uri}/trial/000001", f"{bucket.uri}/trial/000002"]
    fetched = fetch(told[-1], tmp_path / "fetched")
    assert (fetched / "metrics.jsonl").read_text() == "1\n2\n"
    assert [path.name for path in (fetched / "checkpoints").iterdir()] == ["step-2.pt"]
    assert names(f"{bucket.uri}/trial") == {f"000002/{name}" for name in ("metrics.jsonl", "checkpoints/step-2.pt", ".manifest.json")}
    assert list((tmp_path / "states").iterdir()) == []


def test_of_states_that_come_while_one_is_under_way_the_newest_alone_follows(run, bucket, s3_endpoint, tmp_path, monkeypatch, until):
    told, uploading, going_on = [], threading.Event(), threading.Event()

    def hold(request):
        if request.startswith("PUT") and not going_on.is_set():
            uploading.set()
            going_on.wait()

    with wire(s3_endpoint) as seen:
        seen.before = hold
        monkeypatch.setenv("AWS_ENDPOINT_URL", seen.uri)
        publisher = Publisher(run, f"{bucket.uri}/trial", tmp_path / "states", told.append)
        publisher.offer()
        until(uploading.is_set)
        for step in (2, 3, 4):
            write(run, step)
            publisher.offer()
        assert len(list((tmp_path / "states").iterdir())) == 2, "two at most are kept"
        going_on.set()
        assert publisher.finish(nothing, for_ever) == ""

    assert told == [f"{bucket.uri}/trial/000001", f"{bucket.uri}/trial/000004"]


def test_a_store_that_is_away_is_tried_again_and_told_once(run, bucket, s3_endpoint, tmp_path, monkeypatch, until, caplog):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("tts.tuning.work.publisher.FIRST_WAIT", 0.1)
    told, asked = [], []

    with wire(s3_endpoint) as seen:
        seen.answer = lambda request: asked.append(request) or ((503, b"") if len(asked) < 4 else None)
        monkeypatch.setenv("AWS_ENDPOINT_URL", seen.uri)
        publisher = Publisher(run, f"{bucket.uri}/trial", tmp_path / "states", told.append)
        publisher.offer()
        assert publisher.finish(nothing, for_ever) == ""

    assert told == [f"{bucket.uri}/trial/000001"]
    assert caplog.text.count("it is tried again, and training goes on") == 1
    assert caplog.text.count("the run is published again") == 1


def test_one_that_ran_out_of_time_says_why_and_tells_nothing(run, bucket, s3_endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    told = []
    with wire(s3_endpoint) as seen:
        seen.answer = lambda _: (503, b"")
        monkeypatch.setenv("AWS_ENDPOINT_URL", seen.uri)
        publisher = Publisher(run, f"{bucket.uri}/trial", tmp_path / "states", told.append)
        publisher.offer()
        assert "does not serve after retries" in publisher.finish(nothing, lambda _: 0.0 if publisher._problem else 1.0)
    assert told == []


def test_what_is_published_after_the_lease_was_lost_goes_again(run, bucket, tmp_path):
    def lost(_uri):
        raise LeaseLostError(7, "ours")

    bucket.put("trial/000000/of-the-one-before", b"")
    publisher = Publisher(run, f"{bucket.uri}/trial", tmp_path / "states", lost)
    publisher.offer()

    assert "no longer this attempt's (ours)" in publisher.finish(nothing, for_ever)
    assert bucket.keys("trial/") == ["trial/000000/of-the-one-before"]


def test_whoever_loses_the_lease_waits_for_no_upload(run, bucket, s3_endpoint, tmp_path, monkeypatch):
    going_on = threading.Event()

    def taken_over():
        raise TakenOverError("another has it")

    with wire(s3_endpoint) as seen:
        seen.before = lambda _: going_on.wait() and None
        monkeypatch.setenv("AWS_ENDPOINT_URL", seen.uri)
        publisher = Publisher(run, f"{bucket.uri}/trial", tmp_path / "states", lambda _: None)
        publisher.offer()
        with pytest.raises(TakenOverError):
            publisher.finish(taken_over, for_ever)
        going_on.set()
        publisher._thread.join()
