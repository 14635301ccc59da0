import multiprocessing
import os
import signal

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from tts.errors import ServiceUnavailableError
from tts.tuning.database.failure import LeaseLostError, passes
from tts.tuning.database.lock import holds, is_locked, locked, study_lock
from tts.tuning.database.retry import persistently
from tts.tuning.database.storage import create_tables, open_storage, storage_url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    found = storage_url(tmp_path, None) if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    create_tables(found)
    return found


def _hold(take, pipe):
    with take():
        pipe.send("held")
        signal.pause()


def _holder(take):
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_hold, args=(take, theirs), daemon=True)
    process.start()
    assert ours.poll(60)
    return process


def _kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_a_file_lock_is_given_back_when_its_holder_is_killed(tmp_path):
    path = tmp_path / "lock"
    assert not is_locked(path)
    holder = _holder(lambda: locked(path))

    assert is_locked(path)
    with pytest.raises(TimeoutError), locked(path, seconds=0.1):
        pass
    _kill(holder)
    assert not is_locked(path)
    with locked(path, seconds=0):
        assert is_locked(path)


def test_a_studys_lock_is_one_over_processes_and_waits_no_longer_than_it_may(url, monkeypatch):
    holder = _holder(lambda: study_lock(url, "voices"))
    monkeypatch.setattr("tts.tuning.database.lock.LOCK_SECONDS", 1.0)

    with study_lock(url, "another"):
        assert holds(url)
    with pytest.raises(ServiceUnavailableError, match=r"another process has kept the lock of its study voices"), study_lock(url, "voices"):
        pass
    _kill(holder)
    with study_lock(url, "voices"):
        pass
    assert not holds(url)


def _work(do, pipe):
    try:
        do(pipe)
    except (LeaseLostError, SQLAlchemyError, StorageInternalError) as error:
        pipe.send("the lease is lost" if isinstance(error, LeaseLostError) else f"passes: {passes(error)}")
    else:
        pipe.send("done")


@pytest.fixture
def frozen(monkeypatch):
    """Runs `do(pipe)` in a process that is stopped by the kernel once it has sent something; answers with how to wake it and its last word."""
    monkeypatch.setattr("tts.tuning.database.engine.IDLE_SECONDS", 2.0)
    monkeypatch.setattr("tts.tuning.database.lock.IDLE_SECONDS", 2.0)
    monkeypatch.setattr("tts.tuning.database.lock.LOCK_SECONDS", 30.0)
    context, processes = multiprocessing.get_context("fork"), []

    def freeze(do):
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(do, theirs), daemon=True)
        process.start()
        processes.append(process)
        assert ours.poll(60)
        ours.recv()
        os.kill(process.pid, signal.SIGSTOP)

        def wake():
            os.kill(process.pid, signal.SIGCONT)
            ours.send("go on")
            assert ours.poll(60)
            return ours.recv()

        return wake

    yield freeze
    for process in processes:
        _kill(process)


def test_a_process_frozen_inside_the_studys_lock_keeps_it_no_longer_than_a_transaction_may_rest(postgres_url, frozen):
    create_tables(postgres_url)

    def do(pipe):
        storage = open_storage(postgres_url)
        with study_lock(postgres_url, "voices"):
            storage.get_all_studies()
            pipe.send("held")
            pipe.recv()
            storage.get_all_studies()

    wake = frozen(do)
    with study_lock(postgres_url, "voices"):
        pass
    assert wake() == "passes: True"
    with study_lock(postgres_url, "voices"):
        pass


def test_a_trial_is_given_on_though_its_worker_was_frozen_in_the_middle_of_a_beat(postgres_url, frozen):
    create_tables(postgres_url)
    study = optuna.create_study(storage=open_storage(postgres_url), study_name="voices")
    storage, trial = study._storage._backend, study.ask()._trial_id
    storage.sign(trial, "a:1", {})
    storage.engine.dispose()
    frozen_once = []

    def do(pipe):
        theirs = open_storage(postgres_url)

        def beat():
            with theirs._fenced(trial, "a:1") as connection:
                if not frozen_once:
                    frozen_once.append(True)
                    pipe.send("held")
                    pipe.recv()
                theirs._beat(connection, trial)

        persistently(beat, url=postgres_url)

    wake = frozen(do)
    with study_lock(postgres_url, "voices"):
        assert storage.release(trial, {}, lease=None) is True
        storage.set_trial_state_values(trial, TrialState.RUNNING)
        storage.sign(trial, "b:1", {})
    assert wake() == "the lease is lost"
    assert storage.get_trial(trial).user_attrs == {"lease": "b:1"}


def test_a_lock_inside_itself_is_a_defect_not_a_wait(url):
    with study_lock(url, "voices"), pytest.raises(RuntimeError, match="inside another"), study_lock(url, "voices"):
        pass


def test_on_a_server_what_is_done_under_the_lock_is_done_as_a_whole(postgres_url):
    create_tables(postgres_url)
    storage, other = open_storage(postgres_url), open_storage(postgres_url)
    study = optuna.create_study(storage=storage, study_name="voices")

    class CrashError(Exception):
        pass

    with pytest.raises(CrashError), study_lock(postgres_url, "voices"):
        trial = study.ask()
        storage.sign(trial._trial_id, "a:1", {})
        assert storage.get_trial(trial._trial_id).user_attrs == {"lease": "a:1"}
        raise CrashError
    assert other.get_all_trials(study._study_id) == []
    with study_lock(postgres_url, "voices"):
        with pytest.raises(KeyError):
            optuna.load_study(storage=storage, study_name="none")  # undoes itself, not what came before
        study.set_user_attr("plan", 1)
    assert other.get_study_user_attrs(study._study_id) == {"plan": 1}
