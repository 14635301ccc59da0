import sqlite3
import threading

import optuna
import psycopg
import pytest
import sqlalchemy

from tts.errors import ServiceUnavailableError, UsageError
from tts.tuning.database.failure import passes, reaching
from tts.tuning.database.lock import study_lock
from tts.tuning.database.retry import persistently
from tts.tuning.database.storage import create_tables, open_storage, storage_url


def _study(url):
    create_tables(url)
    study = optuna.create_study(storage=open_storage(url), study_name="voices")
    trial = study.ask()
    storage = study._storage._backend
    storage.sign(trial._trial_id, "a:1", {})
    return storage, trial._trial_id


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_is_restarted_in_the_middle_is_outlasted(mode, postgres, postgres_url, caplog):
    storage, trial = _study(postgres_url)
    postgres.stop(mode)
    starter = threading.Thread(target=lambda: (away.wait(60), postgres.start()))
    away = threading.Event()
    starter.start()
    calls = 0

    def report():
        nonlocal calls
        calls += 1
        if calls == 3:
            away.set()
        storage.report(trial, "a:1", 1, 0.5)

    persistently(report, url=postgres_url, seconds=60)
    starter.join()

    assert calls > 3
    assert storage.get_trial(trial).intermediate_values == {1: 0.5}
    messages = [record.message for record in caplog.records if record.name == "tts.tuning.database.retry"]
    assert ["trying again" in message for message in messages] == [True, False]
    assert "answers again" in messages[1]


def test_a_connection_that_broke_while_it_rested_is_not_noticed(postgres, postgres_url, monkeypatch):
    monkeypatch.setattr("tts.tuning.database.engine.FRESH_SECONDS", 0.0)
    storage, trial = _study(postgres_url)
    postgres.restart()
    storage.report(trial, "a:1", 1, 0.5)
    assert storage.get_trial(trial).intermediate_values == {1: 0.5}


def test_a_server_that_stays_away_ends_the_waiting(postgres, postgres_url):
    storage, trial = _study(postgres_url)
    postgres.stop()
    try:
        with pytest.raises(ServiceUnavailableError, match="check that it runs"):
            persistently(lambda: storage.note(trial, "a:1", {}), url=postgres_url, seconds=1)
        with pytest.raises(ServiceUnavailableError):
            persistently(lambda: storage.note(trial, "a:1", {}), url=postgres_url, seconds=3600, stop=lambda: True)
    finally:
        postgres.start()


def test_a_locked_sqlite_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("tts.tuning.database.engine.BUSY_SECONDS", 0.05)
    url = storage_url(tmp_path, None)
    storage, trial = _study(url)
    blocker = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    calls = 0

    def note():
        nonlocal calls
        calls += 1
        if calls == 3:
            blocker.execute("COMMIT")
        storage.note(trial, "a:1", {"n": calls})

    with pytest.raises(ServiceUnavailableError, match="locked"), reaching(url):
        storage.note(trial, "a:1", {})
    persistently(note, url=url, seconds=60)
    assert calls == 3
    assert storage.get_trial(trial).user_attrs["n"] == 3


def test_a_wrong_password_is_asked_once(postgres, postgres_url):
    engine = sqlalchemy.create_engine(postgres.url("postgres", password="wrong").replace(":", "+psycopg:", 1))  # noqa: S106
    calls = []
    with pytest.raises(UsageError, match="password authentication failed"):
        persistently(lambda: (calls.append(1), engine.connect()), url=postgres_url)
    assert calls == [1]


def test_under_the_studys_lock_nothing_is_retried(postgres_url):
    calls = []

    def fail():
        calls.append(1)
        raise sqlalchemy.exc.OperationalError("SELECT", {}, psycopg.OperationalError("server closed the connection"))

    with pytest.raises(sqlalchemy.exc.OperationalError), study_lock(postgres_url, "voices"):
        persistently(fail, url=postgres_url)
    assert calls == [1]


@pytest.mark.parametrize(
    ("state", "transient"),
    [
        ("40001", True), ("40P01", True), ("55P03", True), ("57P01", True), ("57P02", True), ("57P03", True), ("08006", True), ("53300", True),
        ("28P01", False), ("28000", False), ("3D000", False), ("42501", False), ("53100", False), ("23505", False), ("42P01", False),
        ("25006", False), ("25P03", True),
    ],
)  # fmt: skip
def test_what_passes_by_itself_is_told_by_the_servers_code(state, transient, postgres_url):
    engine = sqlalchemy.create_engine(postgres_url.replace(":", "+psycopg:", 1))
    with pytest.raises(sqlalchemy.exc.SQLAlchemyError) as caught, engine.connect() as connection:
        connection.exec_driver_sql(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{state}'; END $$")
    engine.dispose()
    assert passes(caught.value) is transient


@pytest.mark.parametrize(("code", "transient"), [("BUSY", True), ("LOCKED", True), ("PROTOCOL", True), ("CORRUPT", False), ("FULL", False)])
def test_what_passes_by_itself_is_told_by_sqlites_code(code, transient):
    # SQLite's own words come with the code; a race for the write-ahead log cannot be had at will.
    error = sqlite3.OperationalError("locking protocol")
    error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{code}")
    assert passes(sqlalchemy.exc.OperationalError("BEGIN", {}, error)) is transient


def test_a_defect_is_never_retried(postgres_url):
    calls = []
    with pytest.raises(ZeroDivisionError):
        persistently(lambda: (calls.append(1), 1 / 0), url=postgres_url)
    assert calls == [1]
