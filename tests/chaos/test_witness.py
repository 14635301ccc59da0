"""The witness and the judges would see what must not be."""

import json
import os
import signal
import subprocess
from contextlib import contextmanager

import optuna
import pytest
from optuna.trial import TrialState

from tests.chaos.judgement import judge_runs, judge_trials
from tests.chaos.plan import SHORT, Stage
from tests.chaos.witness import Witness

# A worker, the server that it forks trials from, and a process that has a trial's log as its output, and its lock open while it trains.
WORKER = 'sh -c \'sh -c "exec sleep 600 >>$1/trial.log 9>>$1/$2" process "$1" "$2" & wait\' server "$1" "$2" & echo; wait'


@contextmanager
def worker_of(trial, *, trains=True, orphaned=False):
    """A worker whose process is at work on a trial."""
    trial.mkdir(parents=True, exist_ok=True)
    command = ["sh", "-c", WORKER, "worker", str(trial), ".lock" if trains else "waits"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0) as worker:
        worker.stdout.readline()
        if orphaned:
            worker.kill()
            worker.wait()
        try:
            yield worker
        finally:
            os.killpg(worker.pid, signal.SIGKILL)


@pytest.fixture
def witness(tmp_path):
    return Witness(tmp_path)


def sees(witness, until, processes):
    """Looks until it has seen as many processes at work on trial 0."""
    until(lambda: len(witness._at_work()["0"]) == processes)
    witness.look()
    return witness.doubles.get("0", "")


def test_one_worker_at_a_trial_is_as_it_must_be(witness, tmp_path, until):
    with worker_of(tmp_path / "0"), worker_of(tmp_path / "1"):
        assert sees(witness, until, 1) == ""
    assert len(witness.seen["0"]) == 1


def test_two_living_workers_at_a_trial_are_seen_before_both_train(witness, tmp_path, until):
    with worker_of(tmp_path / "0"), worker_of(tmp_path / "0", trains=False):
        assert "worker=" in sees(witness, until, 2)


def test_two_that_train_in_a_folder_are_seen_though_the_worker_of_one_is_dead(witness, tmp_path, until):
    with worker_of(tmp_path / "0", orphaned=True), worker_of(tmp_path / "0"):
        assert "trains=True" in sees(witness, until, 2)


def test_a_successor_may_wait_for_the_process_of_a_dead_worker(witness, tmp_path, until):
    with worker_of(tmp_path / "0", orphaned=True), worker_of(tmp_path / "0", trains=False):
        assert sees(witness, until, 2) == ""


def judged(tmp_path, steps, reports, state=TrialState.PRUNED):
    """The figures that a trial with these validations and reports counts in."""
    stage = Stage(tmp_path, SHORT, SHORT.config(""), "", {})
    trial = optuna.create_trial(state=state, value=1.0, intermediate_values=dict.fromkeys(reports, 1.0))
    trial.number = 0
    run = stage.study / "trials" / "0"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps({"kind": "validation", "step": step}) + "\n" for step in steps))
    return {fault.figure for fault in judge_runs(stage, [trial], {"0": {1}})}


@pytest.mark.parametrize(
    ("steps", "reports", "state", "figures"),
    [
        ([4, 8, 12], [4, 8, 12], TrialState.PRUNED, set()),
        ([4, 8, 12], [4, 8], TrialState.PRUNED, set()),  # pruned by a report that an attempt before had not made
        ([4, 8, 12], [4, 12], TrialState.PRUNED, {"study_reports_missing"}),
        ([4, 8, 12], [4, 8, 12], TrialState.COMPLETE, {"study_reports_missing"}),  # it has 24 steps
        ([4, 8, 8, 12], [4, 8, 12], TrialState.PRUNED, {"study_trials_run_twice", "study_reports_missing"}),
        ([4, 12, 8], [4, 8, 12], TrialState.PRUNED, {"study_trials_run_twice", "study_reports_missing"}),
    ],
)
def test_steps_are_there_once_and_in_order(tmp_path, steps, reports, state, figures):
    assert judged(tmp_path, steps, reports, state) == figures


def test_a_trial_too_many_and_one_that_is_not_finished_are_seen():
    trials = [optuna.create_trial(state=TrialState.COMPLETE, value=1.0), optuna.create_trial(state=TrialState.WAITING)]

    assert [fault.figure for fault in judge_trials(trials, 1)] == ["study_trials_lost", "study_budget_error"]
