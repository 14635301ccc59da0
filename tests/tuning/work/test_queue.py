import math
import multiprocessing
import os
import signal
from collections import Counter

import pytest
from optuna.pruners import HyperbandPruner, NopPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import TrialState

from tts.tuning.budget import Budget
from tts.tuning.database.failure import LeaseLostError
from tts.tuning.database.lock import locked
from tts.tuning.study import open_study
from tts.tuning.work.identity import is_of_this_host, new_worker
from tts.tuning.work.queue import hand_back, take, worker_lock


def never():
    """For how long a worker's beats went through that has just begun."""
    return 0.0


def always():
    return math.inf


def count(study):
    return Counter(trial.state for trial in study.trials.trials)


def finish(study, held, state=TrialState.COMPLETE):
    study.storage.finish(held.id, held.lease, state, [1.0] if state == TrialState.COMPLETE else None, {})


@pytest.fixture
def living(make_study):
    """Names of workers that live as long as the test."""
    held = []

    def sign_on(study):
        worker = new_worker()
        lock = locked(worker_lock(study.plan.folder, worker))
        lock.__enter__()
        held.append(lock)
        return worker

    yield sign_on
    for lock in held:
        lock.__exit__(None, None, None)


def _take_all(url, folder, control):
    """A worker whose trials take no time at all; it answers with the numbers of those that it finished, one by one."""
    study, worker = open_study(url, "voices"), new_worker()
    with locked(worker_lock(folder, worker)):
        control.recv()
        while not Budget.state(study).spent:
            if held := take(study, worker, never):
                control.send(held.number)
                finish(study, held)
    control.send(None)


def _workers(study, number):
    study.storage.engine.dispose()
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe() for _ in range(number)]
    workers = [context.Process(target=_take_all, args=(study.url, study.plan.folder, theirs)) for _, theirs in pipes]
    for worker in workers:
        worker.start()
    for ours, _ in pipes:
        ours.send("go")
    return workers, [ours for ours, _ in pipes]


def _numbers(pipe):
    numbers = []
    while (number := pipe.recv()) is not None:
        numbers.append(number)
    return numbers


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_workers_finish_exactly_the_budget_between_them(make_study, request, database):
    study = make_study(trials=13, url=request.getfixturevalue("postgres").database() if database == "postgresql" else None)
    workers, pipes = _workers(study, 4)

    taken = [number for pipe in pipes for number in _numbers(pipe)]
    for worker in workers:
        worker.join()

    assert sorted(taken) == list(range(13))
    assert count(study) == {TrialState.COMPLETE: 13}
    assert take(study, new_worker(), always) is None


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_killed_workers_neither_lose_a_trial_nor_add_one_to_the_budget(make_study, request, database):
    study = make_study(trials=24, max_retries=20, url=request.getfixturevalue("postgres").database() if database == "postgresql" else None)
    workers, pipes = _workers(study, 5)
    for worker, pipe in zip(workers[:3], pipes, strict=False):
        pipe.recv()  # it works: anywhere between taking and telling
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()

    for pipe in pipes[3:]:
        _numbers(pipe)
    for worker in workers[3:]:
        worker.join()

    states = [trial.state for trial in study.trials.trials]
    assert states.count(TrialState.COMPLETE) == 24
    assert len(states) == 24
    assert Budget.state(study).spent == "all 24 trials (tuning.trials) are finished"


def test_the_defaults_are_tried_first_and_the_budget_counts_what_runs(make_study, base, living):
    study = make_study(trials=2)
    worker = living(study)

    first, second = take(study, worker, never), take(study, worker, never)

    assert first.trial.params["optimiser.learning_rate"] == base.optimiser.learning_rate
    assert first.trial.params["optimiser.warmup_steps"] == base.optimiser.warmup_steps
    assert second.trial.params != first.trial.params
    assert take(study, worker, never) is None  # both still run
    assert not Budget.state(study).spent
    finish(study, first)
    finish(study, second, TrialState.FAIL)
    assert Budget.state(study).spent


def test_a_trial_that_is_handed_back_goes_on_as_itself(make_study, living):
    study = make_study(trials=2)
    worker = living(study)
    held = take(study, worker, never)
    study.storage.report(held.id, held.lease, 2, 0.5, {"tracking_run": "abc"})

    hand_back(study, held, "asked to stop", {"seconds": 1.5})

    assert count(study) == {TrialState.WAITING: 1}
    again = take(open_study(study.url, "voices"), worker, never)
    assert (again.number, again.trial.params) == (held.number, held.trial.params)
    assert again.trial.intermediate_values == {2: 0.5}
    known = {"tracking_run": "abc", "worker": worker, "interruptions": ["asked to stop"], "seconds": 1.5, "lease": again.lease, "stale_seconds": 60.0}
    assert again.trial.user_attrs == known
    assert count(study) == {TrialState.RUNNING: 1}
    with pytest.raises(LeaseLostError):
        hand_back(study, held, "once more", {})


def test_conditional_values_come_back_as_they_were_even_those_that_were_not_drawn(make_study, living):
    conditions = [{"knob": "model.prenet_dropout", "when": "optimiser.warmup_steps", "above": 250}]
    study = make_study(trials=12, sampler="random", conditions=conditions)
    worker = living(study)
    held = [take(study, worker, never) for _ in range(12)]
    params = {one.number: one.trial.params for one in held}
    assert {"model.prenet_dropout" in values for values in params.values()} == {True, False}
    for one in held:
        hand_back(study, one, "asked to stop", {})

    again = [take(study, worker, never) for _ in range(12)]

    assert {one.number: one.trial.params for one in again} == params


def test_the_trial_of_a_dead_worker_is_taken_up_at_once_on_its_host_and_that_of_a_living_one_is_not(make_study, living):
    study = make_study(trials=3)
    worker = living(study)
    held = take(study, worker, never)
    dead = take(study, new_worker(), never)

    third = take(study, worker, never)

    assert (third.number, third.trial.params) == (dead.number, dead.trial.params)
    assert held.number != dead.number
    assert study.trials.trials[dead.number].user_attrs["interruptions"] == ["its worker died"]
    assert "interruptions" not in study.trials.trials[held.number].user_attrs


def test_a_worker_of_another_host_is_judged_by_its_heartbeat_and_only_by_who_can_tell(make_study, living, until):
    study = make_study(trials=2, heartbeat_seconds=0.05, stale_seconds=0.2)
    elsewhere = "another-host-0123abcd-0123456789ab"
    held = take(study, elsewhere, never)
    worker = living(study)
    until(lambda: study.storage.stale(study.id, 0.2))

    second = take(study, worker, never)
    assert second.number != held.number
    hand_back(study, second, "asked to stop", {})
    taken = take(study, worker, always)

    assert taken.number == held.number
    assert study.trials.trials[held.number].user_attrs["interruptions"] == ["its worker gave no sign of life for 0.2 s"]
    with pytest.raises(LeaseLostError):
        study.storage.report(held.id, held.lease, 2, 0.1)


def test_shorter_times_make_nobody_look_dead_who_goes_by_longer_ones(make_study, living, until):
    study = make_study(trials=3, heartbeat_seconds=600, stale_seconds=3600)
    held = take(study, "another-host-0123abcd-0123456789ab", never)
    study = make_study(trials=3, heartbeat_seconds=0.05, stale_seconds=0.2)
    worker = living(study)
    until(lambda: study.storage.stale(study.id, 0.2))

    second = take(study, worker, always)
    assert second.number != held.number
    assert (held.trial.user_attrs["stale_seconds"], second.trial.user_attrs["stale_seconds"]) == (3600, 0.2)

    # A worker that began before goes on as it began, with this trial, too; so it says so, and judges nobody sooner.
    third = take(study, "another-host-0123abcd-0123456789ac", always, stale_seconds=3600)
    assert third.trial.user_attrs["stale_seconds"] == 3600
    assert third.number not in (held.number, second.number)
    assert take(study, worker, always) is None


def test_a_worker_goes_by_the_longest_time_when_it_judges(make_study, living, until):
    study = make_study(trials=2, heartbeat_seconds=0.05, stale_seconds=0.2)
    held = take(study, "another-host-0123abcd-0123456789ab", never)
    until(lambda: study.storage.stale(study.id, 0.3))

    second = take(study, living(study), always, stale_seconds=3600)  # its own beats may have gaps of an hour and a half
    assert second.number != held.number
    hand_back(study, second, "asked to stop", {})
    until(lambda: study.storage.stale(study.id, 0.4))
    assert take(study, living(study), lambda: 0.1).number != held.number  # its beats went through for less than 0.2 s


def test_a_worker_takes_pruner_and_sampler_as_the_study_says_now(make_study, living):
    study = make_study(trials=3, pruner="hyperband", sampler="tpe")
    running = open_study(study.url, "voices")
    worker = living(study)
    take(running, worker, never)
    assert (type(running.trials.pruner), type(running.trials.sampler.inner)) == (HyperbandPruner, TPESampler)

    make_study(trials=3, pruner="none", sampler="random")  # `tts tune` once more
    take(running, worker, never)

    assert (type(running.trials.pruner), type(running.trials.sampler.inner)) == (NopPruner, RandomSampler)


def test_a_heartbeat_keeps_a_trial_of_another_host(make_study, living):
    study = make_study(trials=2, stale_seconds=3600)
    held = take(study, "another-host-0123abcd-0123456789ab", never)

    assert take(study, living(study), always).number != held.number


def test_a_trial_that_outlives_no_worker_fails_in_the_end(make_study):
    study = make_study(trials=2, max_retries=2)
    numbers = [take(study, new_worker(), never).number for _ in range(4)]

    assert numbers == [0, 0, 0, 1]
    failed = study.trials.trials[0]
    assert failed.state == TrialState.FAIL
    assert failed.user_attrs["reason"] == "given up after 3 interrupted attempts, the last one: its worker died"


def test_a_worker_that_died_between_asking_and_signing_loses_nothing_and_counts_as_no_death(make_study, living):
    study = make_study(trials=2, max_retries=0)
    trial = study.trials.ask()  # no values yet, no name

    again = take(study, living(study), never)

    assert again.number == trial.number
    assert set(again.trial.params) == set(study.plan.space)
    assert "deaths" not in again.trial.user_attrs


def test_a_trial_half_of_whose_values_were_drawn_keeps_them(make_study, living):
    study = make_study(trials=3, sampler="random")
    worker = living(study)
    take(study, worker, never)
    trial = study.trials.ask()
    spread = study.space["optimiser.learning_rate"]
    trial.suggest_float("optimiser.learning_rate", spread.low, spread.high, log=spread.log)

    again = take(study, worker, never)

    assert again.number == trial.number
    assert again.trial.params["optimiser.learning_rate"] == trial.params["optimiser.learning_rate"]
    assert set(again.trial.params) == set(study.plan.space)


def test_taking_goes_on_with_a_database_that_was_away_in_the_middle(make_study, postgres, living):
    study = make_study(url=postgres.database(), trials=2)
    worker = living(study)
    first = take(study, worker, never)
    postgres.restart()  # the connection in the pool is dead now

    second = take(study, worker, never)

    assert (first.number, second.number) == (0, 1)
    assert count(study) == {TrialState.RUNNING: 2}
    assert take(study, worker, never) is None


def test_a_name_tells_the_host():
    worker = new_worker()

    assert is_of_this_host(worker)
    assert new_worker() != worker
    assert not is_of_this_host("x" + worker)
