import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import psutil
import pytest

from tts.config.load import override
from tts.errors import CannotWriteError, DataError, PreemptedError
from tts.training.preemption import StopFlag
from tts.training.run_folder import read_state
from tts.tuning.database.storage import is_locked
from tts.tuning.trials.trial import TrialFailedError, TrialKilledError, Work, load_trial_server, run_trial, tail


@pytest.fixture
def work(base, features, tmp_path):
    """A trial of six steps."""
    load_trial_server()
    config = override(base, {"training.steps": 6, "training.validation_interval": 2, "training.checkpoint_interval": 2})
    return Work(features, tmp_path / "run", tmp_path / "locks" / "run", config, workers=1)


def go_on(step, metrics):
    return False


def assert_no_child_left():
    assert multiprocessing.active_children() == []
    ours = [child for child in psutil.Process().children(recursive=True) if "multiprocessing.spawn" in " ".join(child.cmdline())]
    assert ours == []


def test_every_validation_is_judged_and_the_process_is_gone_afterwards(work):
    steps, processes = [], []

    def judge(step, metrics):
        steps.append(step)
        processes.extend(child.pid for child in multiprocessing.active_children())
        return False

    assert run_trial(work, judge, StopFlag()) == "finished"

    assert steps == [2, 4, 6]
    assert len(set(processes)) == 1
    assert processes[0] != os.getpid()
    assert not psutil.pid_exists(processes[0])
    assert read_state(work.run).state == "finished"


def test_a_trial_that_is_judged_hopeless_stops_there(work):
    assert run_trial(work, lambda step, _metrics: np.bool_(step == 4), StopFlag()) == "pruned"  # as Optuna's percentile pruner says it

    state = read_state(work.run)
    assert (state.state, state.step) == ("stopped", 4)
    assert_no_child_left()


def test_a_trial_that_is_asked_to_stop_goes_on_from_its_checkpoint_to_the_very_same_numbers(work, tmp_path):
    """Its reduction factor falls before and after the stop."""
    whole, first, second = {}, {}, {}
    stop = StopFlag()
    work = replace(work, config=override(work.config, {"model.initial_reduction_factor": 7, "training.reduction_interval": 2}))

    def stop_after_first(step, metrics):
        first[step] = metrics
        stop.set()
        return False

    run_trial(
        Work(work.features, tmp_path / "whole", tmp_path / "locks" / "whole", work.config, 1), lambda *seen: bool(whole.update([seen])), StopFlag()
    )
    with pytest.raises(PreemptedError):
        run_trial(work, stop_after_first, stop)
    assert read_state(work.run).state == "preempted"
    assert run_trial(work, lambda *seen: bool(second.update([seen])), StopFlag()) == "finished"

    assert list(second) == list(whole) == [2, 4, 6]  # those of the first attempt again: its worker may not have told them
    assert first[2] == second[2] == whole[2]
    assert second == whole


def test_a_finished_trial_whose_worker_died_before_it_told_is_told_again(work):
    first, again = {}, {}
    run_trial(work, lambda *seen: bool(first.update([seen])), StopFlag())

    assert run_trial(work, lambda *seen: bool(again.update([seen])), StopFlag()) == "finished"

    assert again == first


def test_a_killed_process_is_a_failed_trial(work):
    def kill(step, metrics):
        (child,) = multiprocessing.active_children()
        os.kill(child.pid, signal.SIGKILL)
        return False

    with pytest.raises(TrialFailedError, match=re.escape("its process was killed by SIGKILL (out of memory?)")):
        run_trial(work, kill, StopFlag())
    assert_no_child_left()


@pytest.mark.parametrize(
    ("interval", "kind", "message"), [(1, PreemptedError, "fresh process"), (2, TrialKilledError, "only come to the same point")]
)
def test_a_trial_that_is_short_of_memory_is_not_failed_for_it(work, interval, kind, message):
    """After a step that is worth it another process goes on; else it counts as killed, which is not tried again without end."""
    short = override(work.config, {"recovery.memory_share": 1e-9, "training.checkpoint_interval": interval})
    with pytest.raises(kind, match=message):
        run_trial(replace(work, config=short), go_on, StopFlag())
    assert (read_state(work.run).state, read_state(work.run).step) == ("preempted", 1)


def test_a_crash_is_a_failed_trial_with_its_last_words(work):
    (work.run / "metrics.jsonl").mkdir(parents=True)

    with pytest.raises(TrialFailedError, match=r"its process ended with exit code 1: IsADirectoryError"):
        run_trial(work, go_on, StopFlag())
    assert "Traceback" in tail(work.log, 100)


def test_values_that_cannot_be_trained_with_fail_the_trial(work, tmp_path):
    broken = override(work.config, {"data.frame_budget": 100})

    with pytest.raises(TrialFailedError, match="frame_budget"):
        run_trial(Work(work.features, work.run, work.lock, broken, 1), go_on, StopFlag())


def test_broken_surroundings_are_not_the_trials_fault(work, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        run_trial(Work(tmp_path / "nowhere", work.run, work.lock, work.config, 1), go_on, StopFlag())


@pytest.mark.parametrize("inside", ["run", "lock"])
def test_a_folder_that_cannot_be_made_is_not_the_trials_fault(work, tmp_path, inside):
    (tmp_path / "file").write_text("")
    blocked = {"run": replace(work, run=tmp_path / "file" / "trials" / "0"), "lock": replace(work, lock=tmp_path / "file" / "trial-0")}

    with pytest.raises(CannotWriteError, match=r"cannot write .*/file/.*: a file is in the way"):
        run_trial(blocked[inside], go_on, StopFlag())


def test_a_log_that_cannot_be_written_is_not_the_trials_fault(work):
    work.log.mkdir(parents=True)

    with pytest.raises(CannotWriteError, match=r"cannot write .*/trial.log: Is a directory"):
        run_trial(work, go_on, StopFlag())


def test_a_trial_that_does_not_stop_is_killed_after_the_seconds_that_it_is_given(work):
    stop = StopFlag()

    def freeze(step, metrics):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGSTOP)
        stop.set()
        return False

    with pytest.raises(PreemptedError, match=r"did not stop within 0.5 s and was killed; it goes on from its last checkpoint"):
        run_trial(work, freeze, stop, grace_seconds=0.5)
    assert_no_child_left()


def test_an_error_of_the_judge_ends_the_process(work):
    class BadMetricError(Exception):
        pass

    def judge(step, metrics):
        raise BadMetricError

    with pytest.raises(BadMetricError):
        run_trial(work, judge, StopFlag())
    assert_no_child_left()


def test_two_processes_never_train_in_one_folder(work):
    """The second waits until the first, whose worker is gone, has ended."""
    order = []

    def hold(step, metrics):
        if step == 2:
            entered.set()
        order.append(("first", step))
        return False

    entered = threading.Event()
    first = threading.Thread(target=run_trial, args=(work, hold, StopFlag()))
    first.start()
    entered.wait()
    run_trial(work, lambda step, _metrics: bool(order.append(("second", step))), StopFlag())
    first.join()

    assert order[:3] == [("first", 2), ("first", 4), ("first", 6)]
    assert order[3:] == [("second", 2), ("second", 4), ("second", 6)]


# A worker of one trial: it says that its trial has begun, waits to be paused, and says how the trial ended.
WORKER = """
import pickle, signal, sys
from tts.errors import TtsError
from tts.training.preemption import StopFlag
from tts.tuning.trials.trial import load_trial_server, run_trial

def begun(step, metrics):
    print(step, flush=True)
    sys.stdin.readline()
    return False

if __name__ == "__main__":
    load_trial_server()
    work = pickle.loads(bytes.fromhex(sys.argv[1]))
    try:
        run_trial(work, begun, StopFlag())
    except TtsError as error:
        print(type(error).__name__, error)
"""


def test_a_worker_that_was_paused_for_too_long_finds_its_trial_stopped(work, tmp_path, until):
    impatient = replace(work, config=override(work.config, {"tuning.heartbeat_seconds": 0.5, "tuning.stale_seconds": 2.0}))
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, script, pickle.dumps(impatient).hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout.readline() == "2\n"

        worker.send_signal(signal.SIGSTOP)
        until(lambda: not is_locked(work.lock))
        worker.send_signal(signal.SIGCONT)
        said, _ = worker.communicate("\n")

    assert re.match(r"PreemptedError its process ended itself, for its worker had been paused \(.*no sign of life for 1\.\d s\)", said)
    assert run_trial(work, go_on, StopFlag()) == "finished"
