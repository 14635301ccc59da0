"""Trackers that need no store, and the rule of the champion."""

import json
import math
import resource
from pathlib import Path

import pytest

from tts.config import TrackingConfig
from tts.errors import CannotWriteError, DataError
from tts.tracking import NoTracker, Registration, open_tracker
from tts.tracking.protocol import Champion, judge


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "model.pt").write_bytes(b"weights")
    return tmp_path / "files"


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


def register(tracker, files: Path) -> Registration:
    return tracker.register(files, name="voice", run_id="r", metrics={"mcd": 5.0}, compare="mcd", fingerprint="f", passed=True)


def test_a_line_torn_by_a_full_disk_costs_itself_only(tmp_path, weights, caplog):
    tracker = open_tracker(TrackingConfig(backend="jsonl"), tmp_path)
    file = tmp_path / "tracking.jsonl"
    first = register(tracker, weights)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 40, limits[1]))
    try:
        with pytest.raises(CannotWriteError, match=r"cannot write .*tracking\.jsonl"):
            tracker.write({"run": "r", "kind": "tags", "values": {"note": "слово" * 20}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not file.read_bytes().endswith(b"\n"), "the line is torn"
    with tracker.run("train") as run:
        run.tags({"note": "two\u2028lines"})  # for Python, not for JSON
    assert register(tracker, weights) == Registration("voice", first.version, champion=True, reason="is the champion already")
    assert [record.message.split(": ", 1)[1] for record in caplog.records] == ["a line was torn as it was written, and is left out: 40 bytes"]


def test_a_file_of_notes_holds_no_json_lines(tmp_path, weights):
    (tmp_path / "notes.txt").write_text("buy milk\n7\n")
    tracker = open_tracker(TrackingConfig(backend="jsonl", uri=str(tmp_path / "notes.txt")), tmp_path)
    with pytest.raises(DataError, match=r"notes\.txt does not hold JSON lines"):
        register(tracker, weights)
    assert (tmp_path / "notes.txt").read_text() == "buy milk\n7\n"


def test_locks_are_asked_for_as_nfs4_gives_them(tmp_path, weights, nfs4):
    tracker = open_tracker(TrackingConfig(backend="jsonl"), tmp_path)
    assert register(tracker, weights).champion
    assert nfs4


def test_no_tracker(weights):
    with NoTracker().run("train") as run:
        run.metrics({"loss": 1.0}, step=1)
    registration = NoTracker().register(weights, name="voice", run_id=run.id, metrics={}, compare="mcd", fingerprint="f", passed=True)
    assert (registration.version, registration.champion) == (0, False)


def test_a_champion_without_the_compared_metric_is_left_alone():
    best, reason = judge(1.0, version=2, compare="mcd", fingerprint="f", passed=True, champion=Champion(1, math.nan, "f"))
    assert not best
    assert "cannot be compared" in reason
