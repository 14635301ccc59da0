"""The next trial's process is there before the last one is gone."""

import multiprocessing
import os
import subprocess
import sys
from multiprocessing import forkserver

import psutil
import pytest

from tts.config.load import override
from tts.errors import PreemptedError
from tts.training.metrics_log import WALL_CLOCK_FIELDS, read_metrics
from tts.training.preemption import StopFlag
from tts.tuning.trials import spare
from tts.tuning.trials.processes import TrialProcess
from tts.tuning.trials.trial import TrialKilledError, TrialProcesses, Work, load_trial_server, run_trial


@pytest.fixture
def work(base, features, tmp_path):
    """Makes trials of four steps with a validation at every second."""
    load_trial_server()
    config = override(base, {"training.steps": 4, "training.validation_interval": 2, "training.checkpoint_interval": 2})
    return lambda name, **knobs: Work(features, tmp_path / name, tmp_path / "locks" / name, override(config, knobs), workers=1)


@pytest.fixture
def processes():
    with TrialProcesses() as kept:
        yield kept
    assert multiprocessing.active_children() == []


def train(work, processes):
    """Trains a trial; the processes that were alive at each validation, the one at work being the one that holds the trial's lock."""
    alive = []

    def judge(_step, _metrics):
        alive.append({child.pid for child in multiprocessing.active_children()})
        return False

    assert run_trial(work, judge, StopFlag(), processes=processes) == "finished"
    return alive


def test_the_next_trial_trains_in_the_process_that_waited_for_it(work, processes):
    first = train(work("first"), processes)
    second = train(work("second"), processes)

    (worked,), both = first
    (waiting,) = both - {worked}
    assert second[0] == {waiting}
    assert not psutil.pid_exists(worked)
    assert len(second[1]) == 2


def measured(run):
    """All lines but what the clock says."""
    return [{name: value for name, value in line.items() if name not in WALL_CLOCK_FIELDS} for line in read_metrics(run / "metrics.jsonl")]


def test_what_trials_measure_does_not_depend_on_where_they_waited(work, processes):
    train(work("first"), processes)
    train(work("waited"), processes)
    train(work("alone"), None)

    lines = [
        [{name: value for name, value in line.items() if name not in WALL_CLOCK_FIELDS} for line in read_metrics(path / "metrics.jsonl")]
        for path in (work("waited").run, work("alone").run)
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 6


def test_a_spare_has_the_features_mapped(work, processes, features):
    train(work("first"), processes)

    (waiting,) = multiprocessing.active_children()
    assert processes._spare.control.poll(60)
    mapped = {file.path for file in psutil.Process(waiting.pid).memory_maps()}
    assert str(features / "mels.npy") in mapped


def test_a_spare_that_died_is_replaced(work, processes, until):
    train(work("first"), processes)
    waiting = psutil.Process(multiprocessing.active_children()[0].pid)
    waiting.kill()
    until(lambda: not waiting.is_running())

    (worked,), _ = train(work("second"), processes)

    assert worked != waiting.pid


def test_a_spare_for_other_features_is_not_taken(work, processes, features, tmp_path):
    train(work("first"), processes)
    waiting = psutil.Process(multiprocessing.active_children()[0].pid)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(features)
    other = work("second")

    (worked,), _ = train(Work(elsewhere, other.run, other.lock, other.config, workers=1), processes)

    assert worked != waiting.pid
    assert not waiting.is_running()


def test_a_trial_that_is_stopped_takes_the_spare_with_it(work, processes):
    stop = StopFlag()

    def judge(step, _metrics):
        if step == 4:
            assert len(multiprocessing.active_children()) == 2
            stop.set()
        return False

    with pytest.raises(PreemptedError):
        run_trial(work("first", **{"training.steps": 8}), judge, stop, processes=processes)

    assert multiprocessing.active_children() == []


def test_where_memory_is_short_the_next_trial_starts_its_own_process(work, features, monkeypatch):
    monkeypatch.setattr(spare, "available_memory", lambda: 9 * spare.HOST_BYTES["cpu"])
    assert spare.load(features, "cpu") is None

    monkeypatch.setattr(spare, "available_memory", lambda: 11 * spare.HOST_BYTES["cpu"])
    assert spare.load(features, "cpu").folder == features


def test_a_spare_that_gave_up_is_replaced(work, processes, tmp_path):
    """As one does whose memory is short: it ends without a word."""
    missing = work("first").needs._replace(features=tmp_path / "missing")
    processes.prepare(missing)
    gave_up = processes._spare

    taken = processes.take(missing)

    assert taken is not gave_up
    assert isinstance(taken, TrialProcess)
    taken.end()


def kill_server():
    server = psutil.Process(forkserver._forkserver._forkserver_pid)
    server.kill()
    return server


def is_gone(process):
    """Whether nothing of it can answer any more."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_server_that_was_killed_is_replaced(work, processes, until):
    """Between two trials, and while one is at work: that one was killed with it, as far as its worker can tell."""
    train(work("first"), processes)
    processes.discard()
    server = kill_server()
    until(lambda: is_gone(server))

    train(work("second"), processes)

    killed = []

    def judge(_step, _metrics):
        killed.append(kill_server())
        return False

    with pytest.raises(TrialKilledError, match="that trials are forked from was killed"):
        run_trial(work("third"), judge, StopFlag(), processes=processes)
    until(lambda: all(is_gone(server) for server in killed))
    train(work("third"), processes)


def test_a_folder_for_temporary_files_that_is_too_long_for_sockets_is_named(tmp_path):
    long = tmp_path / ("x" * 76)
    long.mkdir()
    program = "from tts.tuning.trials.processes import load_trial_server; load_trial_server()"
    ended = subprocess.run([sys.executable, "-c", program], env={**os.environ, "TMPDIR": str(long)}, capture_output=True, text=True, check=False)

    assert f"UsageError: the folder for temporary files, {long}, has {len(str(long))} bytes, too many for the sockets in it" in ended.stderr
