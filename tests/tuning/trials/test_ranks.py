"""A trial on several devices: its processes are started together, speak with one voice, and none outlives another or the worker."""

import multiprocessing
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tts.config.load import override, to_json
from tts.errors import DataError, PreemptedError
from tts.training.metrics_log import read_metrics
from tts.training.preemption import StopFlag
from tts.training.run_folder import read_state
from tts.tuning.trials.trial import TrialKilledError, TrialProcesses, Work, load_trial_server, run_trial

WITHOUT_DROPOUT = {f"model.{name}_dropout": 0.0 for name in ("encoder", "attention", "prenet", "decoder", "postnet")}


@pytest.fixture
def work(base, features, tmp_path):
    """Makes trials of four steps with a validation at every second, in two processes unless told otherwise."""
    load_trial_server()
    config = override(base, WITHOUT_DROPOUT | {"training.steps": 4, "training.validation_interval": 2, "training.checkpoint_interval": 2})

    def make(name, ranks=2, **knobs):
        chosen = override(config, {"tuning.gpus_per_trial": ranks, **knobs})
        return Work(features, tmp_path / name, tmp_path / "locks" / name, chosen, workers=1)

    return make


def pids():
    return {child.pid for child in multiprocessing.active_children()}


def assert_gone():
    assert multiprocessing.active_children() == []


def test_two_processes_measure_what_one_does(work):
    told, processes = {}, set()

    def judge(step, metrics):
        told[step] = metrics
        processes.update(pids())
        return False

    assert run_trial(work("two"), judge, StopFlag()) == "finished"
    assert_gone()
    assert run_trial(work("one", ranks=1), lambda *_: False, StopFlag()) == "finished"

    assert len(processes) == 2
    assert list(told) == [2, 4]
    lines = {line["step"]: line for line in read_metrics(work("one").run / "metrics.jsonl") if line["kind"] == "validation"}
    for step, metrics in told.items():
        assert {name: lines[step][name] for name in metrics} == pytest.approx(metrics, rel=1e-3)
    assert (read_state(work("two").run).ranks, read_state(work("one").run).ranks) == (2, 1)
    assert "2 processes train together on the CPU" in work("two").log.read_text()


def test_a_verdict_ends_both(work):
    assert run_trial(work("run"), lambda step, _metrics: step == 2, StopFlag()) == "pruned"
    assert_gone()
    assert (read_state(work("run").run).state, read_state(work("run").run).step) == ("stopped", 2)


def test_a_trial_that_is_stopped_goes_on_in_one_process(work):
    stop = StopFlag()

    def stop_at_once(_step, _metrics):
        stop.set()
        return False

    with pytest.raises(PreemptedError):
        run_trial(work("run"), stop_at_once, stop)
    assert_gone()
    assert read_state(work("run").run).state == "preempted"

    steps = []
    assert run_trial(work("run", ranks=1), lambda step, _metrics: bool(steps.append(step)), StopFlag()) == "finished"
    assert steps == [2, 4]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_killed_fails_the_trial_and_takes_the_other_along(work, killed):
    def kill(_step, _metrics):
        # In the order in which they were started.
        os.kill(sorted(multiprocessing.active_children(), key=lambda child: child._identity)[killed].pid, signal.SIGKILL)
        return False

    with pytest.raises(TrialKilledError, match="killed by SIGKILL"):
        run_trial(work("run", **{"training.steps": 400}), kill, StopFlag())
    assert_gone()
    assert run_trial(work("run"), lambda *_: False, StopFlag()) == "finished"


def test_broken_features_are_not_the_trials_fault(work, tmp_path):
    made = work("run")
    with pytest.raises(DataError, match="does not exist"):
        run_trial(Work(tmp_path / "nowhere", made.run, made.lock, made.config, 1), lambda *_: False, StopFlag())
    assert_gone()


def test_the_next_trial_trains_in_the_processes_that_waited_for_it(work):
    alive = []

    def judge(_step, _metrics):
        alive.append(pids())
        return False

    with TrialProcesses() as processes:
        run_trial(work("first"), judge, StopFlag(), processes=processes)
        waiting = pids()
        run_trial(work("second"), judge, StopFlag(), processes=processes)

    assert len(waiting) == 2
    assert alive[2] == waiting
    assert len(alive[1]) == 4
    assert_gone()


WORKER = """
import os, signal, sys
from pathlib import Path
from tts.config.load import read_config
from tts.training.preemption import StopFlag
from tts.tuning.trials.trial import Work, load_trial_server, run_trial
import multiprocessing

def judge(step, metrics):
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    features, run, lock, config = map(Path, sys.argv[1:])
    load_trial_server()
    run_trial(Work(features, run, lock, read_config(config), 1), judge, StopFlag())
"""


@pytest.mark.slow
def test_both_end_with_a_worker_that_is_killed(work, tmp_path, until):
    made = work("run", **{"training.steps": 100_000})
    script, knobs = tmp_path / "worker.py", tmp_path / "config.json"
    script.write_text(WORKER)
    knobs.write_text(to_json(made.config))
    worker = subprocess.run(
        [sys.executable, script, made.features, made.run, made.lock, knobs], stdout=subprocess.PIPE, text=True, check=False, timeout=200
    )

    assert worker.returncode == -signal.SIGKILL
    started = [int(pid) for pid in worker.stdout.split()]
    assert len(started) == 2
    until(lambda: not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in started))
