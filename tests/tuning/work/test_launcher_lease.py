"""The sign of life of `tts tune`, and what workers on other machines make of it."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from optuna.trial import TrialState

from tts.config.load import override, to_json
from tts.errors import PreemptedError, TakenOverError, UsageError
from tts.progress import Silent
from tts.tracking import open_tracker
from tts.training.preemption import StopFlag
from tts.tuning.launch import Ended, Workers
from tts.tuning.study import open_study
from tts.tuning.tune import tune
from tts.tuning.work.heartbeat import Heartbeat
from tts.tuning.work.launcher_lease import LauncherLease, LauncherWatch, last_sign
from tts.tuning.work.worker import work

QUICK = {"heartbeat_seconds": 0.5, "stale_seconds": 5.0, "launcher_stale_seconds": 4.0}


class InThisProcess:
    """A worker that runs to its end at once, as one that was launched elsewhere."""

    def start(self, task, workers):
        work(task.features, storage=task.storage, name=task.name, stop=StopFlag(), launched=True)

    def poll(self):
        return Workers(0, (Ended("worker 0", 0, ""),))

    def preempted(self):
        pass

    def stop(self):
        pass


PROGRAM = """
import subprocess
import sys
from pathlib import Path
from tts.config.load import read_config
from tts.progress import Silent
from tts.tracking import NoTracker
from tts.training.preemption import listen
from tts.tuning.launch import Workers
from tts.tuning.tune import tune

features, folder, config, url = sys.argv[1:]

class Elsewhere:
    '''Workers that outlive this process, as pods do; each leaves its exit code.'''

    def start(self, task, workers):
        for number in range(workers):
            line = f"{sys.executable} -m tts.cli worker {task.features} --study {task.name} --launched > {folder}/{number}.log 2>&1"
            command = ["sh", "-c", f"{line}; echo $? > {folder}/{number}.code.part; mv {folder}/{number}.code.part {folder}/{number}.code"]
            subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)

    def poll(self):
        return Workers(1, ())

    def preempted(self):
        pass

    def stop(self):
        pass

with listen() as stop:
    tune(features, Path(folder), read_config(Path(config)), storage=url, name="voices", tracker=NoTracker(), progress=Silent(), stop=stop,
         launcher=Elsewhere())
"""


@pytest.fixture(params=["file", "server"])
def study(request, make_study):
    url = None if request.param == "file" else request.getfixturevalue("postgres_url")
    return make_study(url=url, launcher="kubernetes", **QUICK)


def test_a_launcher_beats_by_the_databases_clock_and_frees_the_study_at_its_end(study, until):
    with LauncherLease(study, StopFlag()) as lease:
        first = last_sign(study)
        until(lambda: last_sign(study).beat > first.beat)
        lease.check()
        assert abs(study.storage.clock() - time.time()) < 60
        assert last_sign(study).holder
    ended = last_sign(study)
    assert ended.holder == ""

    with LauncherLease(study, StopFlag()):  # at once
        assert last_sign(study).beat >= ended.beat


def test_a_second_launcher_is_refused_while_the_first_lives(study):
    other = open_study(study.url, "voices")
    with LauncherLease(study, StopFlag()) as lease:
        with pytest.raises(UsageError, match="study 'voices' has another `tts tune` that runs its workers"), LauncherLease(other, StopFlag()):
            pass
        lease.check()


def test_one_that_waits_to_see_whether_the_other_lives_can_be_stopped(study):
    stop = StopFlag()
    stop.set()
    with LauncherLease(study, StopFlag()), pytest.raises(PreemptedError, match="nothing was begun"), LauncherLease(study, stop):
        pass


def test_a_silent_launcher_is_taken_over_and_learns_it(study, until):
    silent = LauncherLease(study, StopFlag())
    silent._claim(None)  # its first sign, and no thread that gives others
    other = open_study(study.url, "voices")

    with LauncherLease(other, StopFlag()) as lease:
        assert last_sign(study).holder == lease._holder
        silent._thread.start()
        until(lambda: silent.lost)
        with pytest.raises(TakenOverError, match="its workers are left to that one"):
            silent.check()
        silent.__exit__()
        assert last_sign(study).holder == lease._holder, "it frees nothing that is another's"
        lease.check()


def test_an_outage_of_the_database_ends_neither_launcher_nor_workers(make_study, postgres, until, caplog):
    study = make_study(url=postgres.database(), launcher="kubernetes", **QUICK)
    with LauncherLease(study, StopFlag()) as lease, Heartbeat(study, seconds=0.5, stale_seconds=5.0) as heartbeat:
        watch = LauncherWatch(study, heartbeat)
        until(lambda: heartbeat.steady() > 1.5)
        before = last_sign(study)
        postgres.stop()
        until(lambda: heartbeat.steady() == 0 and lease._failing)
        down = time.monotonic()
        until(lambda: time.monotonic() - down > QUICK["launcher_stale_seconds"])
        postgres.start()
        until(lambda: heartbeat.steady() > 0)
        told = []
        until(lambda: told.append(watch.gone()) or last_sign(study).beat > before.beat)
        until(lambda: heartbeat.steady() > 1.5)
        told.append(watch.gone())
        lease.check()

    assert set(told) == {""}


def test_a_worker_that_was_launched_by_nobody_ends_at_once(study, features):
    with pytest.raises(PreemptedError, match="stopped after 0 trials: no `tts tune` ever launched workers for it"):
        work(features, storage=study.url, name="voices", stop=StopFlag(), launched=True)
    assert {trial.state for trial in study.trials.trials} == {TrialState.WAITING}


@pytest.mark.slow
def test_workers_of_a_launcher_that_is_killed_hand_their_trials_back_and_another_goes_on(
    features, base, tmp_path, until, postgres, bucket, this_machine, machines
):
    url, folder = postgres.database(), tmp_path / "study"
    folder.mkdir()
    knobs = {"trials": 999, "workers": 1, "steps": 96, "validation_interval": 8, "pruner": "none", "launcher": "kubernetes"}
    knobs |= {**QUICK, "stale_seconds": 10.0}
    config = override(base, {f"tuning.{name}": value for name, value in {**knobs, "runs_uri": f"{bucket.uri}/runs"}.items()})
    (tmp_path / "config.json").write_text(to_json(config))
    line = [sys.executable, "-c", PROGRAM, str(features), str(folder), str(tmp_path / "config.json"), url]
    launcher = subprocess.Popen(line, env={**os.environ, "TTS_STORAGE": url, "TMPDIR": str(machines)})
    until((folder / "tracking.json").exists)
    study = open_study(url, "voices")
    until(lambda: any(trial.user_attrs.get("run") for trial in study.trials.trials))
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    until((folder / "0.code").exists)

    assert (folder / "0.code").read_text() == "75\n"
    assert "its `tts tune` gave no sign of life for" in (folder / "0.log").read_text()
    before = study.trials.trials
    assert {trial.state for trial in before} <= {TrialState.WAITING, TrialState.COMPLETE}
    reasons = [reason for trial in before for reason in trial.user_attrs.get("interruptions", [])]
    assert all(reason.endswith("(tuning.launcher_stale_seconds is 4)") for reason in reasons)

    # On another machine, with an empty folder of another path: the database and the store are enough.
    again = tmp_path / "again"
    patient = override(config, {"tuning.launcher_stale_seconds": 60.0, "tuning.trials": len(before), "tracking.backend": "jsonl"})
    shutil.rmtree(folder)
    with open_tracker(patient.tracking, again) as tracker:
        made = tune(features, again, patient, storage=url, name="voices", tracker=tracker, progress=Silent(), launcher=InThisProcess())

    assert made.counts == {"complete": len(before)}
    assert [list(trial.intermediate_values) for trial in study.trials.trials] == [list(range(8, 97, 8))] * len(before)
    assert {path.name for path in again.iterdir()} >= {"best.yaml", "study.html", "best"}
    assert (again / "best" / "speech.wav").stat().st_size > 0, "the best trial's run was fetched to be heard"
    assert not (again / "trials").exists()
