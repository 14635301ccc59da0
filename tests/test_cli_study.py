"""`tts study ...` from the outside: what it prints, leaves behind and exits with."""

import csv
import json
import re

import pytest
import yaml
from optuna.trial import TrialState

from tests.tuning.told import FOUR, tell
from tts.config.load import override
from tts.data.store import FeatureStore
from tts.tuning.database.lock import locked
from tts.tuning.database.storage import storage_url
from tts.tuning.report.results import record, write_tables
from tts.tuning.study import Plan, Study, create_study
from tts.tuning.work.identity import new_worker
from tts.tuning.work.queue import worker_lock

C, R = TrialState.COMPLETE, TrialState.RUNNING


@pytest.fixture
def make_study(tiny, features, tmp_path):
    def make(folder: str = "study", *, name: str = "voices", url: str | None = None, **knobs: object) -> Study:
        small = {"tuning.trials": 20, "tuning.steps": 6, "tuning.pruner_min_reports": 2, "tuning.pruner_reduction_factor": 2}
        config = override(tiny, {**small, **{f"tuning.{knob}": value for knob, value in knobs.items()}})
        plan = Plan.of(config, FeatureStore.open(features).fingerprint, tmp_path / folder)
        return create_study(storage_url(tmp_path / folder, url), name, plan)

    return make


@pytest.fixture
def study(make_study):
    study = make_study()
    tell(study, FOUR)
    return study


@pytest.mark.parametrize("argv", [["study"], ["study", "--help"], ["study", "-h"], ["study", "help"]])
def test_the_word_alone_lists_its_commands(tts, argv):
    code, out, _ = tts(*argv)
    assert code == 0
    assert re.findall(r"^  study (\w+) +\S", out, re.MULTILINE) == ["show", "best", "export", "import", "extend", "delete"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("study shwo S", "study 'shwo' is not a command; did you mean study show?"),
        ("study nothing S", "study 'nothing' is not a command; choose one of study show, study best"),
        ("studdy show S", "'studdy' is not a command; did you mean study?"),
        ("export S F", "'export' is not a command; did you mean study export?"),
        ("study show", "say which study: its folder STUDY, or --storage URL"),
        ("study show S --jsn", "unknown option --jsn; did you mean --json?"),
        ("study show postgresql://db/x", "is no place for files; expected a folder on this machine"),
        ("study show --storage nonsense", "storage must be a database URL"),
        ("study export F", "tts study export takes STUDY and FILE, or FILE and --storage URL (or TTS_STORAGE), got F"),
        ("study import A B C", "tts study import takes STUDY and FILE, or FILE and --storage URL (or TTS_STORAGE), got A B C"),
        ("study export", "tts study export takes STUDY and FILE"),
        (
            "study delete S --yes --storage postgresql://u:s3cret@db/x",
            "give STUDY or --storage, not both: which study is meant, that of S or one of postgres",
        ),
        ("study extend S --trials few", "--trials: expected INT, got 'few'; see tts study extend --help"),
    ],
)
def test_a_mistake_in_the_words_is_one_line(tts, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    code, out, said = tts(*argv.split())
    assert code == 64, said
    assert message in said
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_show_prints_the_trials_and_what_is_left(tts, study, tmp_path):
    code, out, _ = tts("study", "show", tmp_path / "study")

    assert code == 0
    assert "trials: 1 waiting, 2 complete, 1 pruned, 1 fail" in out
    assert "tuning.trials: 4 of 20, 16 left" in out
    assert "workers alive: 0" in out
    assert "best: trial 2, 1.3" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if re.match(r" +\d+ ", line)}
    assert list(rows) == ["0", "1", "2", "3", "4"]
    assert rows["2"][1:3] == ["complete", "1.3"]
    assert rows["2"][-1] == "best"
    assert "metric mel_loss is nan at step 2" in out
    code, out, _ = tts("study", "show", tmp_path / "study", "--json")
    shown = json.loads(out)
    assert shown["workers_alive"] == []
    assert shown["best"]["value"] == 1.3
    assert [trial["state"] for trial in shown["trials"]] == ["waiting", "complete", "complete", "pruned", "fail"]


def test_show_fits_the_terminal_by_leaving_knobs_out(tts, study, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "75")
    out = re.sub(r"\x1b\[[0-9;]*m", "", tts("study", "show", tmp_path / "study")[1])

    assert "more knobs vary" in out
    assert all(len(line.rstrip()) <= 75 for line in out.splitlines()[8:])


def test_show_says_who_is_alive(tts, study, tmp_path):
    tell(study, (R,))
    held = worker_lock(study.plan.folder, "host-1")
    with locked(held):
        out = tts("study", "show", tmp_path / "study")[1]
        assert "workers alive: 1 (host-1)" in out
        code, _, said = tts("study", "delete", tmp_path / "study", "--yes")
    assert code == 64
    assert "workers that are alive (host-1); stop them first" in said
    assert len(study.trials.get_trials()) == 6


def test_a_worker_of_another_host_lives_by_its_heartbeat_and_one_of_ours_by_its_lock(tts, study, tmp_path):
    tell(study, (R, R))
    for number, worker in ((5, "elsewhere-0badcafe-123456789abc"), (6, new_worker())):
        study.storage.sign(study.trials.trials[number]._trial_id, f"{worker}:1", {"worker": worker})

    assert "workers alive: 1 (elsewhere-0badcafe-123456789abc)" in tts("study", "show", tmp_path / "study")[1]
    assert tts("study", "delete", tmp_path / "study", "--yes")[0] == 64


def test_best_is_a_configuration(tts, study, tmp_path):
    code, out, _ = tts("study", "best", tmp_path / "study")
    assert code == 0
    assert yaml.safe_load(out)["model"]["prenet_dropout"] == study.trials.trials[2].params["model.prenet_dropout"]
    assert yaml.safe_load(tts("study", "best", tmp_path / "study", "--trial", 1)[1]) != yaml.safe_load(out)
    code, _, said = tts("study", "best", tmp_path / "study", "--trial", 4)
    assert code == 64
    assert "trial 4 of study 'voices' has not completed; completed are 1, 2" in said


def test_best_of_several_objectives_lists_the_set(tts, make_study, tmp_path):
    study = make_study(objective=[{"metric": "mel_loss", "objective": "loss"}, {"metric": "gate_loss", "objective": "gate"}], pruner="none")
    tell(study, (C,) * 12)
    out = tts("study", "best", tmp_path / "study")[1]

    listed = [int(number) for number in re.findall(r"^# Pareto set: trial (\d+)", out, re.MULTILINE)]
    assert listed == record(study).pareto
    assert "Pareto set: trials " + ", ".join(map(str, listed)) in tts("study", "show", tmp_path / "study")[1]


def test_export_then_import(tts, study, make_study, tmp_path):
    make_study("other")
    file = tmp_path / "voices.json"
    code, out, _ = tts("study", "export", tmp_path / "study", file)
    assert (code, out) == (0, f"exported: 5 trials of study voices to {file}\n")
    url = f"sqlite:///{tmp_path / 'other' / 'study.db'}"
    code, out, _ = tts("study", "import", "--storage", url, file)
    assert code == 0
    assert out.splitlines() == [
        "imported 3 trials of study voices; 0 were there before",
        "left out: 1 x it is not finished",
        "left out: 1 x it failed",
    ]
    assert "imported 0 trials of study voices; 3 were there before" in tts("study", "import", tmp_path / "other", file)[1]
    assert "from study voices" in tts("study", "show", tmp_path / "other")[1]
    file.write_text("{}")
    code, _, said = tts("study", "import", tmp_path / "other", file)
    assert code == 65
    assert "is not an exported study" in said


def test_extend_sets_the_budget_that_the_study_keeps(tts, study, tmp_path):
    code, out, _ = tts("study", "extend", tmp_path / "study", "--trials", 30, "--gpu_hours", 2.5, "--hours", 9)
    assert code == 0
    assert out.splitlines()[:3] == ["tuning.trials: 30, before 20", "tuning.gpu_hours: 2.5, before 0", "tuning.hours: 9, before 0"]
    assert "the study goes on: `tts tune`, or `tts worker`, runs its trials" in out
    tuning = study.plan.config.tuning
    assert (tuning.trials, tuning.gpu_hours, tuning.hours, tuning.plateau_trials) == (30, 2.5, 9, 0)
    code, out, _ = tts("study", "extend", tmp_path / "study", "--trials", 3)
    assert out.startswith("tuning.trials: 3, before 30 (lower)\nthe study is over: ")
    code, _, said = tts("study", "extend", tmp_path / "study")
    assert code == 64
    assert "say what to extend: --trials, --gpu_hours, --hours, --plateau_trials" in said
    code, _, said = tts("study", "extend", tmp_path / "study", "--trials", 0)
    assert code == 64
    assert "tuning.trials: Input should be greater than or equal to 1, got 0" in said
    assert study.plan.config.tuning.trials == 3


def test_delete_asks_and_then_leaves_only_the_reports(tts, study, tmp_path):
    folder = tmp_path / "study"
    (folder / "trials" / "1").mkdir(parents=True)
    write_tables(folder, record(study))
    code, _, said = tts("study", "delete", folder)
    assert code == 64
    assert f"this deletes study 'voices' with 5 trials in {study.url} and the runs in {folder / 'trials'}, for good; add --yes" in said
    assert (folder / "trials" / "1").is_dir()
    code, out, _ = tts("study", "delete", folder, "--yes")
    assert code == 0
    assert out.startswith("deleted: study 'voices' with 5 trials")
    assert not (folder / "trials").exists()
    with (folder / "trials.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    code, _, said = tts("study", "show", folder)
    assert code == 65
    assert "holds no study; create one with `tts tune`" in said


def test_a_copied_study_does_not_delete_the_trials_of_the_original(tts, study, tmp_path):
    original = tmp_path / "study" / "trials"
    (original / "1").mkdir(parents=True)
    copy = tmp_path / "copy"
    copy.mkdir()
    tell(study, (C,))
    study.storage.engine.dispose()
    (copy / "study.db").write_bytes((tmp_path / "study" / "study.db").read_bytes())
    (copy / "trials" / "1").mkdir(parents=True)
    assert tts("study", "delete", copy, "--yes")[0] == 0
    assert (original / "1").is_dir()
    assert not (copy / "trials").exists()


def test_a_server_with_several_studies(tts, make_study, postgres_url, tmp_path):
    tell(make_study("one", name="english", url=postgres_url), FOUR)
    make_study("two", name="russian", url=postgres_url)

    code, _, said = tts("study", "show", "--storage", postgres_url)
    assert code == 64
    assert "holds several studies: english, russian; choose one with --study" in said
    code, _, said = tts("study", "show", "--storage", postgres_url, "--study", "englsh")
    assert code == 65
    assert "study 'englsh' is not in postgresql" in said
    assert "did you mean english? There: english, russian" in said
    code, out, _ = tts("study", "show", "--storage", postgres_url, "--study", "english")
    assert code == 0
    assert "best: trial 2, 1.3" in out
    assert tts("study", "extend", "--storage", postgres_url, "--study", "english", "--trials", 40)[0] == 0
    assert tts("study", "delete", "--storage", postgres_url, "--study", "english", "--yes")[0] == 0
    assert "1 waiting" in tts("study", "show", "--storage", postgres_url)[1], "the only one that is left"


def test_a_folder_without_its_database_says_where_that_is(tts, study, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    code, _, said = tts("study", "show", folder)
    assert code == 65
    assert "holds no study.db; expected a folder made by `tts tune`, or --storage URL" in said
    results = record(study).model_copy(update={"storage": "postgresql+psycopg://tts:***@db/studies"})
    write_tables(folder, results)
    code, _, said = tts("study", "show", folder)
    assert code == 65
    assert "is in another database, postgresql+psycopg://tts:***@db/studies: set TTS_STORAGE to its URL" in said
    code, _, said = tts("study", "show", tmp_path / "missing")
    assert code == 65
    assert "missing does not exist" in said
    (folder / "study.db").write_text("shopping list\n")
    code, _, said = tts("study", "show", folder)
    assert code == 65
    assert "is not a SQLite database" in said


def test_the_environment_names_the_database_of_a_folder_and_of_a_file(tts, study, tmp_path, monkeypatch):
    folder = tmp_path / "results"
    folder.mkdir()
    write_tables(folder, record(study).model_copy(update={"storage": "postgresql+psycopg://tts:***@db/studies"}))
    monkeypatch.setenv("TTS_STORAGE", study.url)

    assert "from" not in tts("study", "show", folder)[2]
    assert "best: trial 2, 1.3" in tts("study", "show", folder)[1]
    code, out, _ = tts("study", "export", tmp_path / "voices.json")
    assert (code, out) == (0, f"exported: 5 trials of study voices to {tmp_path / 'voices.json'}\n")
    assert tts("study", "import", tmp_path / "voices.json")[0] == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--tuning.knobs", "optimiser.learning_rat"], "did you mean optimiser.learning_rate?"),
        (["--tuning.ranges", "[{knob: optimiser.learning_rate, low: 0.1, high: 2}]"], "optimiser.learning_rate"),
        (["--tuning.objective", "[{metric: mel_los}]"], "mel_los"),
        (["--tuning.objective", "[{metric: mel_loss, scale: 0}]"], "scale: Input should be greater than 0, got 0"),
        (["--tuning.sampler", "tpee"], "tpe"),
        (["--storage", "postgres//db/x"], "storage must be a database URL"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_made(tts, features, tmp_path, wrong, message):
    code, _, said = tts("tune", features, tmp_path / "S", *wrong)

    assert code == 64
    assert message in said
    assert "at least 1 item" not in said
    assert not (tmp_path / "S").exists()
