import itertools
import multiprocessing
import threading
import uuid

import optuna
import pytest
from optuna.trial import TrialState

from tts.tuning.database.lock import is_locked, study_lock
from tts.tuning.database.storage import LeaseLostError, create_tables, open_storage, storage_url
from tts.tuning.study import open_study
from tts.tuning.work.identity import new_worker
from tts.tuning.work.queue import hand_back, take


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    found = storage_url(tmp_path, None) if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    create_tables(found)
    return found


@pytest.fixture
def study(url):
    return optuna.create_study(storage=open_storage(url), study_name="voices")


@pytest.fixture
def storage(study):
    return study._storage._backend


def _signed(study, lease="a:1"):
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    study._storage._backend.sign(trial._trial_id, lease, {"worker": "a"})
    return trial._trial_id


WRITES = {
    "report": lambda storage, trial, lease: storage.report(trial, lease, 1, 0.25),
    "report with attributes": lambda storage, trial, lease: storage.report(trial, lease, 1, 0.25, {"metrics": [1]}, {"completed_rung_0": 0.25}),
    "note": lambda storage, trial, lease: storage.note(trial, lease, {"seconds": 2}),
    "complete": lambda storage, trial, lease: storage.finish(trial, lease, TrialState.COMPLETE, [0.5], {"seconds": 2}),
    "prune": lambda storage, trial, lease: storage.finish(trial, lease, TrialState.PRUNED, None, {}),
    "fail": lambda storage, trial, lease: storage.finish(trial, lease, TrialState.FAIL, None, {"reason": "x"}),
    "release": lambda storage, trial, lease: storage.release(trial, {"interruptions": ["x"]}, lease=lease),
}


def _sign_again(storage, study, trial):
    storage.release(trial, {}, lease=None)
    storage.set_trial_state_values(trial, TrialState.RUNNING)
    storage.sign(trial, "b:1", {})


MOVES = {
    "taken back": lambda storage, _, trial: storage.release(trial, {}, lease=None),
    "given on": _sign_again,
    "given up": lambda storage, _, trial: storage.fail(trial, {"reason": "gone"}),
    "finished by another": lambda storage, study, trial: (
        _sign_again(storage, study, trial), storage.finish(trial, "b:1", TrialState.COMPLETE, [1.0], {})
    ),
}  # fmt: skip


def test_once_the_lease_has_moved_no_operation_of_the_old_one_changes_anything(study, storage):
    other = open_storage(storage._url)  # another process would have its own
    for write, move in itertools.product(WRITES, MOVES):
        trial = _signed(study)
        MOVES[move](other, study, trial)
        before = repr(storage.get_trial(trial))

        if (write, move) == ("release", "taken back"):
            assert WRITES[write](storage, trial, "a:1") is False  # it waits, as was wished
        else:
            with pytest.raises(LeaseLostError, match=str(trial)):
                WRITES[write](storage, trial, "a:1")
        assert storage.beat(trial, "a:1") is False
        assert repr(storage.get_trial(trial)) == before, (write, move)


def test_what_the_holder_writes_is_there_and_may_be_written_again(study, storage):
    for write, do in WRITES.items():
        trial = _signed(study)
        do(storage, trial, "a:1")
        once = storage.get_trial(trial)
        do(storage, trial, "a:1")
        assert repr(storage.get_trial(trial)) == repr(once), write
        if storage.get_trial(trial).state == TrialState.WAITING:
            storage.set_trial_state_values(trial, TrialState.FAIL)  # else it would be asked for next
    trial = _signed(study)
    WRITES["report with attributes"](storage, trial, "a:1")
    WRITES["note"](storage, trial, "a:1")
    WRITES["complete"](storage, trial, "a:1")
    found = storage.get_trial(trial)
    assert (found.state, found.values, found.intermediate_values) == (TrialState.COMPLETE, [0.5], {1: 0.25})
    assert found.user_attrs == {"worker": "a", "lease": "a:1", "metrics": [1], "seconds": 2}
    assert found.system_attrs == {"completed_rung_0": 0.25}
    assert found.datetime_complete > found.datetime_start
    assert repr(study.trials[found.number]) == repr(found)


@pytest.mark.parametrize("values", [[float("inf")], [float("-inf")], [-1.5]])
def test_values_that_are_not_finite_are_kept(values, study, storage):
    trial = _signed(study)
    storage.finish(trial, "a:1", TrialState.COMPLETE, values, {})
    assert storage.get_trial(trial).values == values
    assert optuna.storages.RDBStorage.get_trial(storage, trial).values == values


@pytest.mark.parametrize(("state", "values"), [(TrialState.COMPLETE, None), (TrialState.RUNNING, None), (TrialState.COMPLETE, [float("nan")])])
def test_no_trial_ends_without_a_verdict(state, values, study, storage):
    trial = _signed(study)
    with pytest.raises(ValueError, match="trial"):
        storage.finish(trial, "a:1", state, values, {})
    assert storage.get_trial(trial).state == TrialState.RUNNING


def test_a_trial_that_waits_again_keeps_all_but_its_lease(study, storage):
    trial = _signed(study)
    WRITES["report"](storage, trial, "a:1")
    assert storage.release(trial, {"interruptions": ["stopped"]}, lease="a:1") is True

    found = storage.get_trial(trial)
    assert (found.state, found.intermediate_values) == (TrialState.WAITING, {1: 0.25})
    assert found.user_attrs == {"worker": "a", "interruptions": ["stopped"]}
    assert study.ask()._trial_id == trial


def test_only_a_trial_that_runs_is_given_up(study, storage):
    trial = _signed(study)
    storage.release(trial, {}, lease="a:1")
    waiting = repr(storage.get_trial(trial))
    assert storage.fail(trial, {"reason": "x"}) is False
    assert repr(storage.get_trial(trial)) == waiting

    trial = _signed(study)
    assert storage.fail(trial, {"reason": "x"}) is True
    failed = storage.get_trial(trial)
    assert (failed.state, failed.user_attrs["reason"]) == (TrialState.FAIL, "x")
    assert storage.fail(trial, {"reason": "y"}) is False
    assert repr(storage.get_trial(trial)) == repr(failed)


def test_a_trial_that_was_handed_back_while_it_was_being_taken_back_is_not_given_up(make_study, monkeypatch, caplog):
    study = make_study(max_retries=0)
    held = take(study, new_worker(), lambda: False)

    def looked(path):
        if open_study(study.url, study.name).trials.trials[held.number].state == TrialState.RUNNING:
            hand_back(study, held, "asked to stop", {})  # just before its worker ends
        return is_locked(path)

    monkeypatch.setattr("tts.tuning.work.ground.is_locked", looked)
    again = take(open_study(study.url, study.name), new_worker(), lambda: False)

    assert again.number == held.number
    assert again.trial.user_attrs["interruptions"] == ["asked to stop"]
    assert "failed" not in caplog.text


def test_trials_without_a_sign_of_life_are_stale_by_the_databases_clock(study, storage, until):
    signed, unsigned, done = _signed(study), study.ask()._trial_id, _signed(study)
    storage.finish(done, "a:1", TrialState.FAIL, None, {})
    assert storage.stale(study._study_id, 3600) == [unsigned]
    until(lambda: storage.stale(study._study_id, 0.2) == [signed, unsigned], 10)
    assert storage.beat(signed, "a:1") is True
    assert storage.stale(study._study_id, 0.2) == [unsigned]


def test_trials_read_in_one_statement_are_those_that_optuna_reads(study, storage):
    def objective(trial):
        for step, value in enumerate((0.1, float("nan"), float("inf"), float("-inf"), 1e-300)):
            trial.report(value, step)
        trial.set_user_attr("an/attribute", {"a": [1, None]})
        trial.suggest_categorical("c", ["a", None, 1.5, True])
        trial.suggest_int("i", 1, 64, log=True)
        if trial.number == 3:
            raise optuna.TrialPruned
        return trial.suggest_float("x", 0, 1, step=0.1), 1 / 3

    several = optuna.create_study(storage=storage, study_name="several", directions=["minimize", "maximize"])
    study.enqueue_trial({"x": 0.5})
    several.optimize(lambda _: (0.1 + 0.2, float("inf")), n_trials=2)
    study.optimize(lambda trial: objective(trial)[0], n_trials=5)
    study.enqueue_trial({"x": 0.5})
    study.ask()

    plain = optuna.storages.RDBStorage
    for identity in (study._study_id, several._study_id):
        trials = plain._get_trials(storage, identity, None, set(), -1)
        assert repr(storage._get_trials(identity, None, set(), -1)) == repr(trials)
        assert repr([storage.get_trial(trial._trial_id) for trial in trials]) == repr(trials)
    ids = [trial._trial_id for trial in study.trials]
    chosen = (study._study_id, (TrialState.COMPLETE, TrialState.RUNNING), set(ids[:3]), ids[4])
    assert repr(storage._get_trials(*chosen)) == repr(plain._get_trials(storage, *chosen))
    study.set_user_attr("plan", {"a": 1})
    assert storage.get_study_user_attrs(study._study_id) == plain.get_study_user_attrs(storage, study._study_id) == {"plan": {"a": 1}}
    assert storage.get_study_id_from_name("several") == several._study_id
    for missing in (lambda: storage.get_trial(999), lambda: storage.get_study_user_attrs(999), lambda: storage.get_study_id_from_name("none")):
        with pytest.raises(KeyError):
            missing()


def test_parameters_are_written_together_and_by_the_holder_only(study, storage):
    other = open_storage(storage._url)
    study.ask({"x": optuna.distributions.FloatDistribution(0, 1), "y": optuna.distributions.FloatDistribution(0, 1)})  # distributions are known now
    first, second = study.ask(), study.ask()
    for trial in (first, second):
        storage.sign(trial._trial_id, "a:1", {})
        trial.suggest_float("x", 0, 1)
        trial.suggest_float("y", 0, 1)
        if trial is first:
            assert other.get_trial(trial._trial_id).params == {}
            assert storage.get_trial(trial._trial_id).params == other.get_trial(trial._trial_id).params == trial.params
        else:
            _sign_again(other, study, trial._trial_id)
            with pytest.raises(LeaseLostError):
                storage.get_trial(trial._trial_id)
            assert other.get_trial(trial._trial_id).params == {}
    with pytest.raises(ValueError, match="different distribution kind"):
        study.ask().suggest_categorical("x", [1])


OPTUNAS_WRITES = {
    "a value of a new kind": lambda trial: trial.suggest_float("new", 0, 1),
    # Written when something else is done
    "a value": lambda trial: (trial.suggest_float("x", 0, 1), trial.storage._backend.get_trial(trial._trial_id)),
    "a sampler's note": lambda trial: trial.storage.set_trial_system_attr(trial._trial_id, "k", 1),
    "an attribute": lambda trial: trial.set_user_attr("k", 1),
    "a look": lambda trial: trial.storage._backend.get_trial(trial._trial_id),
}


def _delete(storage, study, trial):
    storage.delete_study(study._study_id)


@pytest.mark.parametrize("write", OPTUNAS_WRITES)
def test_a_worker_that_wakes_while_values_are_drawn_finds_its_lease_lost_whatever_became_of_the_trial(write, study, storage):
    other = open_storage(storage._url)
    study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    moves = {**MOVES, "deleted with its study": _delete}
    if write == "a look":
        moves = {"deleted with its study": _delete}
    for name, move in moves.items():
        trial = study.ask()
        storage.sign(trial._trial_id, "a:1", {})
        move(other, study, trial._trial_id)
        with pytest.raises(LeaseLostError):
            OPTUNAS_WRITES[write](trial)
        if name == "taken back":
            other.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # else it would be asked for next
        storage._drafts.__dict__.clear()


def test_a_trial_without_a_lease_is_written_as_optuna_would(study, storage):
    trial = study.ask()
    study.tell(trial, 1.0)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        storage.set_trial_user_attr(trial._trial_id, "k", 1)
    with pytest.raises(KeyError):
        storage.set_trial_user_attr(999, "k", 1)


def test_a_call_that_goes_on_with_the_trial_of_an_interrupted_one_is_fenced_as_that_was(make_study, monkeypatch):
    study = make_study()
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=7))  # the same attempt
    first = take(study, "a", lambda: False)
    again, other = open_study(study.url, study.name), open_study(study.url, study.name).storage
    held = take(again, "a", lambda: False)
    assert (held.number, held.lease) == (first.number, first.lease)

    _sign_again(other, study.trials, held.id)
    with pytest.raises(LeaseLostError):
        again.storage.set_trial_system_attr(held.id, "k", 1)


def test_threads_of_one_worker_write_side_by_side(study, storage):
    trial, failures = _signed(study), []

    def beat():
        try:
            assert all(storage.beat(trial, "a:1") for _ in range(30))
        except BaseException as error:  # noqa: BLE001  # told to the test
            failures.append(error)

    threads = [threading.Thread(target=beat) for _ in range(2)]
    for thread in threads:
        thread.start()
    for step in range(30):
        storage.report(trial, "a:1", step, 0.5, {"metrics": step})
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(storage.get_trial(trial).intermediate_values) == 30


def _contend(url, trial, number, results):
    """Reports until the lease is lost, over and over; then nothing of it may appear."""
    storage, written = open_storage(url), 0
    try:
        while True:
            storage.report(trial, "a:1", number * 100_000 + written, 0.5, {"last": written} if number else {})
            written += 1
    except LeaseLostError:
        results.put((number, written))


def test_reports_of_several_processes_stop_at_the_very_moment_the_lease_moves(url, until):
    study = optuna.create_study(storage=open_storage(url), study_name="voices")
    storage = study._storage._backend
    trial = _signed(study)
    storage.engine.dispose()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_contend, args=(url, trial, number, results), daemon=True) for number in range(3)]
    for process in processes:
        process.start()
    until(lambda: len(storage.get_trial(trial).intermediate_values) > 20)
    with study_lock(url, "voices"):
        assert storage.release(trial, {}, lease=None)
        storage.set_trial_state_values(trial, TrialState.RUNNING)
        storage.sign(trial, "b:1", {})
        there = set(storage.get_trial(trial).intermediate_values)
    written = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()

    assert set(storage.get_trial(trial).intermediate_values) == {
        number * 100_000 + step for number, count in written.items() for step in range(count)
    }
    if url.startswith("postgres"):
        assert set(storage.get_trial(trial).intermediate_values) == there
