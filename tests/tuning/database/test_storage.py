import multiprocessing
import re
import sqlite3
import traceback
from urllib.parse import quote

import optuna
import pytest
import sqlalchemy

from tests.postgresql import PASSWORD
from tts.errors import CannotWriteError, DataError, ServiceUnavailableError, TtsError, UsageError
from tts.tuning.database.address import canonical
from tts.tuning.database.lock import study_lock
from tts.tuning.database.storage import create_tables, open_storage, public, reaching, storage_url
from tts.tuning.launch import Task
from tts.tuning.search.space import default_params, search_space
from tts.tuning.study import Plan, Study, create_study, open_study
from tts.tuning.work.queue import take


def _at_once(count, target, *arguments):
    """Runs `target(number, go, *arguments)` in as many processes; what each returned, or its traceback. `go()` returns once all have called it."""
    context = multiprocessing.get_context("fork")  # nothing is connected yet, and loading Optuna so often takes minutes
    barrier, results = context.Barrier(count), context.Queue()

    def run(number):
        try:
            results.put((number, target(number, lambda: barrier.wait(120), *arguments)))
        except BaseException:  # noqa: BLE001  # told to the test
            results.put((number, traceback.format_exc()))

    processes = [context.Process(target=run, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    return [found[number] for number in range(count)]


def _join(number, go, url, plan):
    """All create the study at the same moment, then each takes a trial and reports."""
    plan = Plan.model_validate_json(plan)
    go()
    study = create_study(url, "voices", plan)
    held = take(study, f"w{number}", lambda: False)
    study.storage.report(held.id, held.lease, 1, 0.5)
    go()  # nobody takes a trial back before all have one
    return held.number


def _sixteen_join(url, base, folder):
    plan = Plan.of(base.model_copy(update={"tuning": base.tuning.model_copy(update={"trials": 100})}), "0123", folder)
    assert sorted(_at_once(16, _join, url, plan.model_dump_json())) == list(range(16))
    trials = open_study(url, "voices").trials.trials
    assert [trial.intermediate_values for trial in trials] == [{1: 0.5}] * 16
    assert trials[0].params == default_params(base, search_space(base.tuning))
    assert len({trial.user_attrs["lease"] for trial in trials}) == 16


def test_sixteen_processes_that_create_one_fresh_study_at_once_all_live(base, tmp_path):
    _sixteen_join(storage_url(tmp_path, None), base, tmp_path)


def test_sixteen_processes_on_a_fresh_server_database_all_live(base, tmp_path, postgres_url):
    _sixteen_join(postgres_url, base, tmp_path)


def _create(number, go, url):
    go()
    create_tables(url)
    name = f"study{number}"
    storage = open_storage(url)
    with study_lock(url, name):
        optuna.create_study(storage=storage, study_name=name)
    return name


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_studies_of_different_names_share_one_schema_from_the_first_moment(kind, tmp_path, request):
    url = storage_url(tmp_path, None) if kind == "sqlite" else request.getfixturevalue("postgres_url")

    assert _at_once(4, _create, url) == [f"study{number}" for number in range(4)]
    assert sorted(study.study_name for study in open_storage(url).get_all_studies()) == [f"study{number}" for number in range(4)]


def test_sqlite_does_not_block_readers_nor_wait_for_the_disk(tmp_path):
    url = storage_url(tmp_path, None)
    create_tables(url)
    storage = open_storage(url)

    with storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000


def test_a_server_gets_few_connections_that_say_whose_they_are(postgres, postgres_url):
    create_tables(postgres_url)
    storage = open_storage(postgres_url)
    with storage.engine.connect(), storage.engine.connect():
        mine = postgres.ask(f"SELECT application_name FROM pg_stat_activity WHERE datname = '{postgres_url.rpartition('/')[2]}'")  # noqa: S608
    assert mine == [("tts",)] * 2
    assert storage.engine.pool.size() == 1


LIMITS = ("idle_in_transaction_session_timeout", "tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "work_mem")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ("30s", "20", "10", "3", "4MB")),
        ("?options=-c%20idle_in_transaction_session_timeout%3D45s%20-c%20work_mem%3D5MB", ("45s", "20", "10", "3", "5MB")),
    ],
)
def test_a_server_gives_up_transactions_and_hosts_that_are_silent_unless_the_url_says_otherwise(options, expected, postgres_url):
    create_tables(postgres_url)
    storage = open_storage(postgres_url + options)
    for _ in range(2):  # the connection that Optuna made, and one that replaced it
        with storage.engine.connect() as connection:
            assert tuple(connection.exec_driver_sql(f"SHOW {name}").scalar() for name in LIMITS) == expected
            connection.invalidate()


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


@pytest.mark.parametrize("make", [create_tables, open_storage])
def test_another_programs_file_is_not_taken_for_a_study(make, tmp_path):
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    before = (tmp_path / "study.db").read_bytes()

    with pytest.raises(DataError, match=r"another program's|not Optuna's"):
        make(storage_url(tmp_path, None))
    assert (tmp_path / "study.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


@pytest.mark.parametrize("make", [create_tables, open_storage])
def test_another_programs_server_database_is_not_taken_for_a_study(make, postgres, postgres_url):
    postgres.ask("CREATE TABLE alembic_version (version_num TEXT); GRANT ALL ON alembic_version TO PUBLIC", postgres_url.rpartition("/")[2])

    with pytest.raises(DataError, match=r"another program's|not Optuna's"):
        make(postgres_url)


@pytest.mark.parametrize(("version", "words"), [("v99.0.0.a", "a newer version of Optuna"), ("v3.0.0.d", "an older version")])
def test_the_schema_of_another_optuna_is_named(version, words, tmp_path):
    url = storage_url(tmp_path, None)
    create_tables(url)
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [version])

    create_tables(url)  # changes nothing
    with pytest.raises(DataError, match=words):
        open_storage(url)


def test_a_server_database_without_studies_is_named(postgres_url):
    with pytest.raises(DataError, match=r"not Optuna's|does not exist"):
        open_storage(postgres_url)


def test_a_missing_database_is_not_created_by_a_worker(tmp_path):
    with pytest.raises(DataError, match=r"does not exist; create the study with `tts tune`"):
        open_storage(storage_url(tmp_path / "nowhere", None))
    assert not (tmp_path / "nowhere").exists()


def test_a_database_that_cannot_be_written(tmp_path):
    (tmp_path / "study.db").mkdir()

    with pytest.raises(DataError, match="is a folder"):
        create_tables(storage_url(tmp_path, None))
    with pytest.raises(CannotWriteError, match="unable to open database file"), reaching("sqlite:////nowhere/study.db"):
        sqlite3.connect("/nowhere/study.db")


def test_a_full_database_is_named(tmp_path):
    url = storage_url(tmp_path, None)
    create_tables(url)
    storage = open_storage(url)
    study = optuna.create_study(storage=storage, study_name="voices")
    trial = study.ask()
    storage.sign(trial._trial_id, "w:1", {})

    def confine(connection, _):
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")

    storage.engine.dispose()
    sqlalchemy.event.listen(storage.engine, "connect", confine)
    with pytest.raises(CannotWriteError, match="full"), reaching(url):
        storage.note(trial._trial_id, "w:1", {"log": "x" * 1_000_000})
    storage.note(trial._trial_id, "w:1", {"log": "short"})
    assert storage.get_trial(trial._trial_id).user_attrs["log"] == "short"


def test_a_server_database_that_may_only_be_read_is_named(postgres, postgres_url):
    create_tables(postgres_url)
    name = postgres_url.rpartition("/")[2]
    postgres.ask(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    storage = open_storage(postgres_url)

    with pytest.raises(CannotWriteError, match="read-only"), reaching(postgres_url):
        storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "voices")


def test_a_full_disk_of_a_server_ends_as_cannot_write(postgres, postgres_url):
    # The server's own error, raised for real: a disk cannot be filled without the right to mount one.
    with (
        pytest.raises(CannotWriteError, match="No space left"),
        reaching(postgres_url),
        sqlalchemy.create_engine(canonical(postgres_url)).connect() as c,
    ):
        c.exec_driver_sql("DO $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$")


@pytest.mark.parametrize("url", ["study.db", "nosuch://host/database", "sqlite://", "oracle://host/db", "postgresql://u:pw@host:secret/db", ""])
@pytest.mark.parametrize("use", [lambda url: storage_url(None, url), open_storage, create_tables])
def test_what_is_no_shared_database_is_refused(url, use):
    with pytest.raises(UsageError, match="storage must be") as caught:
        use(url)
    assert "secret" not in _everything(caught.value)


@pytest.mark.parametrize("use", [create_tables, open_storage])
def test_a_server_without_its_driver_is_refused(use):
    with pytest.raises(UsageError, match=r"mysql://user:\*\*\*@127.0.0.1/studies: the driver MySQLdb is not installed") as caught:
        use(f"mysql://user:{quote(PASSWORD, safe='')}@127.0.0.1/studies")
    assert quote(PASSWORD, safe="") not in _everything(caught.value)


def test_what_cannot_be_imported_later_is_no_missing_driver(postgres_url):
    with pytest.raises(ImportError, match="no_such_sampler"), reaching(postgres_url):
        import no_such_sampler  # noqa: F401


def _everything(error):
    """All that a person could be shown of an error, its causes included."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("change", [{"user": "nobody"}, {"password": "wr%ng{s3cret}"}, {"database": "nowhere"}])
def test_wrong_credentials_end_at_once_and_show_no_password(change, postgres, postgres_url, caplog):
    known = {"database": postgres_url.rpartition("/")[2]} | change
    url = postgres.url(**known)
    for make in (create_tables, open_storage):
        with pytest.raises(UsageError, match=r"check user, password and database") as caught:
            make(url)
        shown = _everything(caught.value) + repr(caught.value)
        for secret in (PASSWORD, quote(PASSWORD, safe=""), "wr%ng", "wr%25ng"):
            assert secret not in shown
    assert "trying again" not in caplog.text


def test_an_unreachable_server_is_waited_for_and_named_without_its_password(postgres, monkeypatch, caplog):
    monkeypatch.setattr("tts.tuning.database.storage.OPENING_SECONDS", 1.0)
    url = "postgres://tuner:s3cret@127.0.0.1:1/x?sslpassword=s3cret"
    with pytest.raises(ServiceUnavailableError, match=r"tuner:\*\*\*@127.0.0.1:1/x.*refused") as caught:
        open_storage(url)
    assert "s3cret" not in _everything(caught.value) + caplog.text
    assert caplog.text.count("trying again") == 1


def test_a_password_is_never_shown(tmp_path, postgres_url):
    url = "postgresql+psycopg://tuner:secret@host:5432/studies?password=secret"

    assert public(url) == "postgresql+psycopg://tuner:***@host:5432/studies"
    assert storage_url(tmp_path, "postgres://a:b@c/d") == storage_url(tmp_path, "postgresql://a:b@c/d") == "postgresql+psycopg://a:b@c/d"
    create_tables(postgres_url)
    storage = open_storage(postgres_url)
    opened = Study(optuna.create_study(storage=storage, study_name="voices"), storage, postgres_url)
    shown = repr(storage) + str(storage.engine) + repr(storage.engine) + repr(opened) + repr(Task(str(tmp_path), postgres_url, "voices"))
    assert quote(PASSWORD, safe="") not in shown
    assert PASSWORD not in shown


@pytest.mark.parametrize("password", ["a@hush", "a@hush/b", "a@hush?b=c", "a@b?hush=c", "a@b/hush@c", "a@b:5/hush"])
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(password):
    for _ in range(2):
        with pytest.raises(UsageError, match=r"one @; percent-encode") as caught:
            storage_url(None, f"postgresql://tuner:{password}@host/studies")
        assert "hush" not in _everything(caught.value)


def test_an_at_sign_in_a_files_name_is_no_password(tmp_path):
    url = storage_url(tmp_path / "a@b@c", None)
    create_tables(url)
    assert open_storage(url).get_all_studies() == []
    assert (tmp_path / "a@b@c" / "study.db").exists()


def test_a_failed_statement_shows_no_password(postgres_url):
    create_tables(postgres_url)
    storage = open_storage(postgres_url)
    with pytest.raises(TtsError) as caught, reaching(postgres_url), storage.engine.connect() as connection:
        connection.exec_driver_sql("SELECT nonsense FROM nowhere")
    shown = _everything(caught.value)
    assert PASSWORD not in shown
    assert quote(PASSWORD, safe="") not in shown


def test_braces_in_a_password_are_no_template(postgres):
    postgres.ask("CREATE ROLE braces LOGIN PASSWORD '{0}{name}%'")
    postgres.ask("CREATE DATABASE braces OWNER braces")
    url = postgres.url("braces", user="braces", password="{0}{name}%")  # noqa: S106
    create_tables(url)
    assert open_storage(url).get_all_studies() == []
