import csv
import json
import math

import pytest
from optuna.trial import TrialState

from tts.tuning.queue import take
from tts.tuning.report import study_page, write_page
from tts.tuning.results import is_current, record, write_tables


@pytest.fixture
def study(make_study):
    """Six told trials and one under way; their values are x squared of nothing but the learning rate."""
    study = make_study(trials=20)
    states = [TrialState.COMPLETE] * 4 + [TrialState.PRUNED, TrialState.FAIL]
    for number, state in enumerate(states):
        trial = take(study, "one")
        value = (trial.params["optimiser.learning_rate"] * 1e3 - 1) ** 2
        trial.report(value + 1, 2)
        trial.set_user_attr("seconds", 1.5)
        trial.set_user_attr("metrics", {"step": 6, "mel_loss": value, "gate_stop_error": math.inf})
        if state == TrialState.COMPLETE:
            trial.report(value, 6)
            study.trials.tell(trial, value)
        elif state == TrialState.PRUNED:
            study.trials.tell(trial, state=state)
        else:
            trial.set_user_attr("reason", "metric mel_loss is nan")
            trial.set_user_attr("log", "first\n<b>last</b>")
            study.trials.tell(trial, state=state)
        assert trial.number == number
    take(study, "one")
    return study


def test_the_record_holds_what_the_study_holds(study):
    results = record(study)

    assert results.counts == {"complete": 4, "pruned": 1, "fail": 1, "running": 1}
    values = [trial.value for trial in results.trials]
    assert results.best.value == min(value for value in values if value is not None)
    assert results.best.params == results.trials[results.best.number].params
    assert [value is None for value in values] == [False] * 4 + [True] * 3
    assert results.trials[0].intermediate == [(2, values[0] + 1), (6, values[0])]
    assert results.trials[0].metrics == {"mel_loss": values[0], "gate_stop_error": None}
    assert results.trials[5].reason == "metric mel_loss is nan"
    assert sum(results.importances.values()) == pytest.approx(1)


def test_importances_of_few_trials_are_not_made_up(make_study):
    study = make_study()
    for _ in range(3):
        study.trials.tell(take(study, "one"), 1.0)

    assert record(study).importances is None


def test_the_tables_agree_with_the_record(study, tmp_path):
    results = record(study)
    write_tables(tmp_path, results)

    written = json.loads((tmp_path / "study.json").read_text())
    assert written["best"] == results.best.model_dump()
    assert written["trials"][0]["intermediate"] == [list(pair) for pair in results.trials[0].intermediate]
    rows = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert [row["state"] for row in rows] == [trial.state for trial in results.trials]
    assert [row["value"] for row in rows] == [str(trial.value) if trial.value is not None else "" for trial in results.trials]
    assert [float(row["optimiser.learning_rate"]) for row in rows] == [trial.params["optimiser.learning_rate"] for trial in results.trials]
    assert not is_current(tmp_path, results)  # no page yet
    write_page(tmp_path, results)
    assert is_current(tmp_path, results)
    study.trials.tell(6, state=TrialState.FAIL)
    assert not is_current(tmp_path, record(study))


def test_the_page_shows_every_trial_and_every_failure_and_needs_no_other_file(study, tmp_path):
    results = record(study)
    write_tables(tmp_path, results)
    write_page(tmp_path, results)
    page = (tmp_path / "study.html").read_text()

    assert page.count("<svg") == 4
    assert "metric mel_loss is nan" in page
    assert "&lt;b&gt;last&lt;/b&gt;" in page
    assert "<b>last</b>" not in page
    (table,) = [block for block in study_page(tmp_path, results).sections[0].blocks if getattr(block, "foldable", False)]
    assert sorted(int(row[0]) for row in table.rows) == list(range(7))
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_study_without_a_completed_trial_has_a_page_that_says_so(make_study, tmp_path):
    study = make_study()
    trial = take(study, "one")
    trial.set_user_attr("reason", "metric mel_loss is nan")
    study.trials.tell(trial, state=TrialState.FAIL)
    results = record(study)

    write_tables(tmp_path, results)
    sections = {section.name: section for section in study_page(tmp_path, results).sections}

    assert any("No trial completed" in getattr(block, "text", "") for block in sections["study"].blocks)
    assert sections["failures"].blocks[0].rows == (("0", "metric mel_loss is nan", ""),)
    assert not (tmp_path / "best.yaml").exists()
