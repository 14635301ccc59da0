import multiprocessing
import os
import re
import signal
import sqlite3

import pytest

from tts.errors import CannotWriteError, DataError, UsageError
from tts.tuning.queue import take, worker_lock
from tts.tuning.space import default_params, search_space
from tts.tuning.storage import create_tables, is_locked, locked, open_storage, public, reaching, storage_url
from tts.tuning.study import Plan, create_study, open_study


def _join(url, plan, worker, control):
    """What each of several processes does: all create the study at the same moment, then each takes a trial and lives on with it."""
    plan = Plan.model_validate_json(plan)
    with locked(worker_lock(plan.folder, worker)):
        control.recv()
        trial = take(create_study(url, "voices", plan), worker)
        control.send(trial.number if trial else None)
        control.recv()


def test_eight_processes_that_create_one_fresh_study_at_once_all_live(base, tmp_path):
    plan = Plan.of(base.model_copy(update={"tuning": base.tuning.model_copy(update={"trials": 100})}), "0123", tmp_path)
    url = storage_url(tmp_path, None)
    context = multiprocessing.get_context("fork")  # nothing is connected yet, and loading Optuna eight times takes most of a minute
    pipes = [context.Pipe() for _ in range(8)]
    processes = [context.Process(target=_join, args=(url, plan.model_dump_json(), str(number), theirs)) for number, (_, theirs) in enumerate(pipes)]
    for process in processes:
        process.start()
    for ours, _ in pipes:
        ours.send("go")
    taken = [ours.recv() for ours, _ in pipes]
    for (ours, _), process in zip(pipes, processes, strict=True):
        ours.send("end")
        process.join()

    assert [process.exitcode for process in processes] == [0] * 8
    assert sorted(taken) == list(range(8))
    trials = open_study(url, "voices").trials.trials
    assert len(trials) == 8
    assert trials[0].params == default_params(base, search_space(base.tuning))


def test_sqlite_does_not_block_readers_nor_wait_for_the_disk(tmp_path):
    url = storage_url(tmp_path, None)
    create_tables(url)
    storage = open_storage(url)

    with storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000


@pytest.mark.parametrize("make", [create_tables, open_storage])
def test_a_database_that_is_a_text_file_is_named(make, tmp_path):
    file = tmp_path / "study.db"
    file.write_text("trial,value\n0,1.5\n")

    with pytest.raises(DataError, match=re.escape(f"{file} is not a SQLite database")):
        make(storage_url(tmp_path, None))
    assert file.read_text() == "trial,value\n0,1.5\n"


def test_a_damaged_database_is_named(tmp_path):
    url = storage_url(tmp_path, None)
    create_tables(url)
    file = tmp_path / "study.db"
    sqlite3.connect(file).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    content = bytearray(file.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    file.write_bytes(content)

    with pytest.raises(DataError, match=re.escape(str(file))):
        open_study(url, "voices")


def test_another_programs_database_is_not_taken_for_a_study(tmp_path):
    file = tmp_path / "study.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")

    with pytest.raises(DataError, match="damaged or not Optuna's"):
        open_study(storage_url(tmp_path, None), "voices")


def test_a_missing_database_is_not_created_by_a_worker(tmp_path):
    with pytest.raises(DataError, match=r"does not exist; create the study with `tts tune`"):
        open_storage(storage_url(tmp_path, None))
    assert not (tmp_path / "study.db").exists()


def test_a_database_that_cannot_be_written(tmp_path):
    (tmp_path / "study.db").mkdir()

    with pytest.raises(DataError, match="is a folder"):
        create_tables(storage_url(tmp_path, None))
    with pytest.raises(CannotWriteError, match="unable to open database file"), reaching("sqlite:////nowhere/study.db"):
        sqlite3.connect("/nowhere/study.db")


@pytest.mark.parametrize("url", ["study.db", "nosuch://host/database", "sqlite://"])
def test_what_is_no_shared_database_is_refused(url, tmp_path):
    with pytest.raises(UsageError, match="storage must be"):
        storage_url(tmp_path, url)


def test_a_password_is_never_shown():
    url = "postgresql+psycopg://tuner:secret@host:5432/studies"

    assert public(url) == "postgresql+psycopg://tuner:***@host:5432/studies"
    with pytest.raises(UsageError) as caught, reaching(url):
        raise ImportError("no driver", name="psycopg")
    assert "psycopg is not installed" in str(caught.value)
    assert "secret" not in str(caught.value)


def _hold(path, ready):
    with locked(path):
        ready.send("held")
        signal.pause()


def test_a_lock_is_given_back_when_its_holder_is_killed(tmp_path):
    path = tmp_path / "lock"
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    holder = context.Process(target=_hold, args=(path, theirs))
    assert not is_locked(path)
    holder.start()
    ours.recv()

    assert is_locked(path)
    with pytest.raises(TimeoutError), locked(path, seconds=0.1):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()

    assert not is_locked(path)
    with locked(path, seconds=0):
        assert is_locked(path)
