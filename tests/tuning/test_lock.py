import multiprocessing
import os
import signal

import optuna
import pytest

from tts.errors import ServiceUnavailableError
from tts.tuning.lock import holds, is_locked, locked, study_lock
from tts.tuning.storage import create_tables, open_storage, storage_url


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
    monkeypatch.setattr("tts.tuning.lock.LOCK_SECONDS", 1.0)

    with study_lock(url, "another"):
        assert holds(url)
    with pytest.raises(ServiceUnavailableError, match=r"another process has kept the lock of its study voices"), study_lock(url, "voices"):
        pass
    _kill(holder)
    with study_lock(url, "voices"):
        pass
    assert not holds(url)


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
