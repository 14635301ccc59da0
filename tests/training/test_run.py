"""The stage as a whole: training, its state and what reaches the tracking store."""

import json
import math
from contextlib import contextmanager

import pytest

from tts.config.load import flatten, override
from tts.errors import CannotWriteError, DataError, PreemptedError, TrainingDivergedError, UsageError
from tts.progress import Silent
from tts.tracking import NoTracker
from tts.tracking.json_lines import JsonLinesTracker
from tts.training.metrics_log import read_metrics
from tts.training.preemption import StopFlag
from tts.training.recovery.abandoned import read_restarts
from tts.training.run import run_training, tracked_run
from tts.training.run_folder import read_state
from tts.training.validation import VALIDATION_METRICS


class StopAt:
    """Progress that asks the run to stop as it arrives at a step."""

    def __init__(self, step, stop):
        self.step, self.stop, self.done = step, stop, 0

    @contextmanager
    def task(self, _title, _total=0, done=0, **_options):
        self.done = done
        yield self

    def advance(self, steps=1, **_figures):
        self.done += steps
        if self.done == self.step:
            self.stop.set()


def _run(features, run, config, tracker=None, progress=None, stop=None):
    stop = StopFlag() if stop is None else stop
    return run_training(features, run, config, tracker=tracker or NoTracker(), progress=progress or Silent(), stop=stop)


def _lines(path, kind):
    return [line for line in map(json.loads, path.read_text().splitlines()) if line["kind"] == kind]


@pytest.fixture
def log(tmp_path):
    return tmp_path / "tracking.jsonl"


@pytest.fixture
def tracker(log):
    return JsonLinesTracker(log)


def test_what_was_measured_reaches_the_tracker_once(features, tiny, tmp_path, tracker, log):
    summary = _run(features, tmp_path / "run", tiny, tracker)
    (start,) = _lines(log, "start")
    assert (start["name"], start["run"], start["continued"]) == ("run", summary.tracking_run, False)
    (params,) = _lines(log, "params")
    assert params["values"] == {name: str(value) for name, value in flatten(tiny).items()}
    sent = {(line["step"], name): value for line in _lines(log, "metrics") for name, value in line["values"].items()}
    measured = {
        (line["step"], f"{line['kind']}/{name}"): value
        for line in read_metrics(tmp_path / "run" / "metrics.jsonl")
        for name, value in line.items()
        if name not in ("kind", "step") and math.isfinite(value)
    }
    assert sent == pytest.approx(measured)
    kept = {"config.json", "corpus.json", "run.json", "metrics.jsonl", "modules.jsonl"}
    assert kept == {line["path"].rsplit("/", 1)[-1] for line in _lines(log, "artefact")}
    assert [line["status"] for line in _lines(log, "end")] == ["FINISHED"]


def test_summary(features, tiny, tmp_path):
    summary = _run(features, tmp_path / "run", tiny)
    assert (summary.steps, summary.already_finished, summary.skipped_updates) == (6, False, 0)
    assert summary.metrics.keys() <= set(VALIDATION_METRICS)
    validation = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "validation"]
    best = min(validation, key=lambda line: line["mel_loss"])
    assert (summary.best_step, summary.metrics["mel_loss"]) == (best["step"], best["mel_loss"])
    assert summary.seconds > 0


def test_a_finished_run_says_so_and_touches_nothing(features, tiny, tmp_path, tracker, log):
    run = tmp_path / "run"
    first = _run(features, run, tiny, tracker)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in [*run.rglob("*"), log] if path.is_file()}
    again = _run(features, run, tiny, tracker)
    assert again.already_finished
    assert (again.metrics, again.tracking_run, again.seconds) == (first.metrics, first.tracking_run, first.seconds)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in [*run.rglob("*"), log] if path.is_file()} == before


def test_more_steps_go_on_in_the_same_tracking_run(features, tiny, tmp_path, tracker, log):
    first = _run(features, tmp_path / "run", tiny, tracker)
    more = _run(features, tmp_path / "run", override(tiny, {"training.steps": 9}), tracker)
    assert (more.steps, more.already_finished, more.tracking_run) == (9, False, first.tracking_run)
    steps = [line["step"] for line in _lines(log, "metrics") if any(name.startswith("train/") for name in line["values"])]
    assert steps == list(range(1, 10))


def test_a_preempted_run_goes_on_in_the_same_tracking_run_without_repeating_itself(features, tiny, tmp_path, tracker, log):
    stop = StopFlag()
    with pytest.raises(PreemptedError):
        _run(features, tmp_path / "run", tiny, tracker, StopAt(5, stop), stop)
    assert read_state(tmp_path / "run").state == "preempted"
    identity, step = tracked_run(tmp_path / "run")
    assert step == 3
    summary = _run(features, tmp_path / "run", tiny, tracker)
    assert summary.tracking_run == identity
    assert [line["status"] for line in _lines(log, "end")] == ["KILLED", "FINISHED"]
    assert [line["continued"] for line in _lines(log, "start")] == [False, True]
    names = [(line["step"], name) for line in _lines(log, "metrics") for name in line["values"]]
    assert len(names) == len(set(names))
    assert {step for step, name in names if name == "train/loss"} == set(range(1, 7))


def test_a_run_that_starts_over_is_recorded_anew(features, tiny, tmp_path, tracker, log):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tracking.json").write_text('{"run": "abc", "step": 5}')
    assert _run(features, tmp_path / "run", tiny, tracker).tracking_run == "abc"
    assert {line["step"] for line in _lines(log, "metrics")} == set(range(1, 7))


def test_how_a_run_diverged_reaches_the_tracker(damaged_store, tiny, tmp_path, tracker, log):
    config = override(tiny, {"recovery.max_skipped_updates": 1, "recovery.remedies": [], "training.steps": 50, "training.validation_interval": 50})
    with pytest.raises(TrainingDivergedError):
        _run(damaged_store.folder, tmp_path / "run", config, tracker)
    assert [line["status"] for line in _lines(log, "end")] == ["FAILED"]
    assert max(line["step"] for line in _lines(log, "metrics")) == read_state(tmp_path / "run").step


def test_restarts_reach_the_tracker(damaged_store, tiny, tmp_path, tracker, log):
    config = override(tiny, {"recovery.max_skipped_updates": 1, "recovery.probation_steps": 1, "recovery.remedies": [{}]})
    with pytest.raises(TrainingDivergedError):
        _run(damaged_store.folder, tmp_path / "run", override(config, {"training.steps": 50}), tracker)
    (told,) = [line["values"] for line in _lines(log, "tags") if "restarts" in line["values"]]
    (restart,) = read_restarts(tmp_path / "run")
    assert told == {"restarts": "1", "restart.1": f"non-finite: {restart.sentence}"}
    assert [line["step"] for line in _lines(log, "metrics") if "restarts" in line["values"]] == [restart.noticed_step]


@pytest.mark.parametrize("text", ["", "[]", '{"run": "abc"}'])
def test_a_damaged_note_of_the_tracking_run_is_named(tmp_path, text):
    (tmp_path / "tracking.json").write_text(text)
    with pytest.raises(DataError, match=r"tracking\.json does not name a tracking run"):
        tracked_run(tmp_path)


def test_what_cannot_be_trained_leaves_no_tracking_run(features, corpus, tiny, tmp_path, tracker, log):
    with pytest.raises(DataError):
        _run(corpus, tmp_path / "run", tiny, tracker)
    with pytest.raises(UsageError, match=r"audio\.mels"):
        _run(features, tmp_path / "run", override(tiny, {"audio.mels": 40}), tracker)
    with pytest.raises(UsageError, match=r"holds features\.json"):
        _run(features, features, tiny, tracker)
    (tmp_path / "file").touch()
    with pytest.raises(CannotWriteError):
        _run(features, tmp_path / "file", tiny, tracker)
    assert not log.exists()


def test_another_configuration_in_the_same_folder_is_refused(features, tiny, tmp_path, tracker, log):
    _run(features, tmp_path / "run", tiny, tracker)
    before = log.read_bytes()
    with pytest.raises(UsageError, match=r"optimiser\.clip_norm is 0\.5, the run has 1\.0; set them back, or choose another folder"):
        _run(features, tmp_path / "run", override(tiny, {"optimiser.clip_norm": 0.5}), tracker)
    assert log.read_bytes() == before
