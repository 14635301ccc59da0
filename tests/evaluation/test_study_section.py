"""The study's section, read from study.json."""

import json
from pathlib import Path

import pytest

from tests.diagnostics.html_page import ReadPage
from tests.evaluation.conftest import trial, write_study
from tts.diagnostics.page import Page, Section, render
from tts.errors import DataError
from tts.evaluation.study_section import study_section


def shown(section: Section) -> ReadPage:
    page = ReadPage(render(Page("t", "s", [section])))
    page.check()
    return page


def test_best_values_stand_beside_those_given_and_failures_have_their_reason(study: Path):
    page = shown(study_section(study))
    assert page.pictures["study"] == 3
    rows = page.tables["study"]
    assert rows[:2] == [["optimiser.learning_rate", "0.001", "0.002"], ["data.frame_budget", "4000", "4000"]]
    assert [row[:3] for row in rows[2:]] == [["1", "complete", "1.500"], ["0", "complete", "2.000"], ["2", "pruned", "-"], ["3", "fail", "-"]]
    assert rows[5][-1] == "mel_loss is not finite at step 10"
    assert "mel_loss - 2 attention_diagonality" in page.sections["study"]
    assert "configuration as given: 2.000" in page.sections["study"]


def test_too_few_trials_have_no_importances_and_it_is_said(tmp_path: Path):
    page = shown(study_section(write_study(tmp_path / "study", [trial(0, "complete", [3.0])], best=0)))
    assert page.pictures["study"] == 2
    assert "Too few trials completed" in page.sections["study"]
    assert "no trial did better" in page.sections["study"]


def test_a_study_without_a_completed_trial_says_so(tmp_path: Path):
    page = shown(study_section(write_study(tmp_path / "study", [trial(0, "fail", [], reason="out of memory")], best=None)))
    assert "No trial completed" in page.sections["study"]
    assert "out of memory" in page.sections["study"]


def test_no_study_and_no_trial_are_said(tmp_path: Path):
    assert "No study was given" in shown(study_section(None)).sections["study"]
    assert "has no trial yet" in shown(study_section(write_study(tmp_path / "study", [], best=None))).sections["study"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"holds no study\.json; expected a folder made by `tts tune`"),
        ("{", r"study\.json cannot be read"),
        ("[]", r"should hold a JSON object, got list"),
        ('{"trials": []}', r"is not a study's \(KeyError"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: str | None, message: str):
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(DataError, match=message):
        study_section(tmp_path)


def test_several_objectives_show_their_pareto_set(tmp_path: Path):
    trials = [trial(number, "complete", [value]) for number, value in enumerate((3.0, 2.0, 1.0))]
    for entry, second in zip(trials, (0.1, 0.5, 0.4), strict=True):
        entry["values"] = [entry["value"], second]
    folder = write_study(tmp_path / "study", trials, best=2)
    results = json.loads((folder / "study.json").read_text())
    results |= {"objectives": ["loss", "stop"], "pareto": [0, 2], "best": {**results["best"], "values": [1.0, 0.4]}}
    results["objective"][1]["objective"] = "stop"
    (folder / "study.json").write_text(json.dumps(results))

    page = shown(study_section(folder))

    rows = [row for row in page.tables["study"] if row[1] == "complete"]
    assert [row[0] for row in rows] == ["2", "0", "2", "1", "0"], "the set, then all"
    assert rows[0][2:4] == ["1.000", "0.4000"]
    assert "chosen: trial 2, loss 1.000, stop 0.4000" in page.sections["study"]
    assert "= mel_loss" in page.sections["study"]
    assert "stop = - 2 attention_diagonality" in page.sections["study"]


def test_budgets_imported_trials_and_interruptions_are_said(tmp_path: Path):
    trials = [trial(0, "complete", [2.0]), trial(1, "complete", [1.0]), trial(2, "running", [float("nan")])]
    trials[1]["imported"] = "elsewhere"
    trials[2]["interruptions"] = ["its worker died", "stopped by SIGTERM"]
    trials[2]["intermediate"] = [[10, None]]
    folder = write_study(tmp_path / "study", trials, best=0)
    results = json.loads((folder / "study.json").read_text())
    budgets = [{"knob": "trials", "used": 1, "limit": 4}, {"knob": "gpu_hours", "used": 0.25, "limit": 2.0}]
    (folder / "study.json").write_text(json.dumps({**results, "budgets": budgets, "spent": "its 2 hours are used up"}))

    page = shown(study_section(folder))

    text = " ".join(page.sections["study"].split())
    assert "1 of 4 gpu_hours 0.25 of 2" in text
    assert "The study is over: its 2 hours are used up." in text
    assert "Interruptions 2" in text
    rows = {row[0]: row for row in page.tables["study"] if row[0] in {"0", "1", "2"}}
    assert rows["1"][1] == "imported complete"
    assert rows["1"][-1] == "from study elsewhere"
