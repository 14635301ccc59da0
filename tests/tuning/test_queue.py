import multiprocessing

from optuna.trial import TrialState

from tts.tuning.queue import count, hand_back, is_spent, take, worker_lock
from tts.tuning.storage import locked
from tts.tuning.study import open_study


def _take_all(url, worker, folder, control):
    """A worker whose trials take no time at all."""
    study = open_study(url, "voices")
    taken = []
    with locked(worker_lock(folder, worker)):
        control.recv()
        while not is_spent(study):
            if trial := take(study, worker):
                taken.append(trial.number)
                study.trials.tell(trial, 1.0)
    control.send(taken)


def test_workers_finish_exactly_the_budget_between_them(make_study):
    study = make_study(trials=13)
    study.storage.engine.dispose()
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe() for _ in range(4)]
    workers = [
        context.Process(target=_take_all, args=(study.url, str(number), study.plan.folder, theirs)) for number, (_, theirs) in enumerate(pipes)
    ]
    for worker in workers:
        worker.start()
    for ours, _ in pipes:
        ours.send("go")
    taken = [ours.recv() for ours, _ in pipes]
    for worker in workers:
        worker.join()

    assert sorted(number for numbers in taken for number in numbers) == list(range(13))
    assert count(study) == {TrialState.COMPLETE: 13}
    assert take(study, "late") is None


def test_the_defaults_are_tried_first_and_the_budget_counts_what_runs(make_study, base):
    study = make_study(trials=2)
    with locked(worker_lock(study.plan.folder, "one")):
        first, second = take(study, "one"), take(study, "one")

        assert first.params["optimiser.learning_rate"] == base.optimiser.learning_rate
        assert first.params["optimiser.warmup_steps"] == base.optimiser.warmup_steps
        assert second.params != first.params
        assert take(study, "one") is None  # both still run
        assert not is_spent(study)
        study.trials.tell(first, 1.0)
        study.trials.tell(second, state=TrialState.FAIL)
        assert is_spent(study)


def test_a_trial_that_is_handed_back_goes_on_as_itself(make_study):
    study = make_study(trials=2)
    with locked(worker_lock(study.plan.folder, "one")):
        trial = take(study, "one")
        trial.report(0.5, 2)
        trial.set_user_attr("tracking_run", "abc")
        hand_back(study, trial.number, "asked to stop")
        assert count(study) == {TrialState.WAITING: 1}

        again = take(open_study(study.url, "voices"), "one")

    assert (again.number, again.params) == (trial.number, trial.params)
    frozen = study.trials.trials[0]
    assert frozen.intermediate_values == {2: 0.5}
    assert frozen.user_attrs == {"tracking_run": "abc", "worker": "one", "interruptions": ["asked to stop"]}
    assert count(study) == {TrialState.RUNNING: 1}


def test_the_trial_of_a_dead_worker_is_taken_up_by_another_and_that_of_a_living_one_is_not(make_study):
    study = make_study(trials=3)
    with locked(worker_lock(study.plan.folder, "living")):
        living = take(study, "living")
        dead = take(study, "dead")

        third = take(study, "living")

    assert (third.number, third.params) == (dead.number, dead.params)
    assert living.number != dead.number
    assert study.trials.trials[dead.number].user_attrs["interruptions"] == ["its worker died"]
    assert "interruptions" not in study.trials.trials[living.number].user_attrs


def test_a_trial_that_outlives_no_worker_fails_in_the_end(make_study):
    study = make_study(trials=2, max_retries=2)
    numbers = [take(study, f"dead{attempt}").number for attempt in range(4)]

    assert numbers == [0, 0, 0, 1]
    failed = study.trials.trials[0]
    assert failed.state == TrialState.FAIL
    assert failed.user_attrs["reason"] == "given up after 3 interrupted attempts, the last one: its worker died"


def test_a_worker_that_died_between_asking_and_signing_loses_nothing(make_study):
    study = make_study(trials=2)
    trial = study.trials.ask()  # no values yet, no name

    again = take(study, "two")

    assert again.number == trial.number
    assert set(again.params) == set(study.plan.space)
