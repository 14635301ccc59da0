"""What a study leaves behind, against the trials that were told to it."""

import csv
import json
import math

import pytest
import yaml
from optuna.trial import TrialState

from tests.tuning.told import BEGIN, FOUR, tell
from tts.config.load import flatten, read_config
from tts.config.presets import tacotron2
from tts.errors import DataError, UsageError
from tts.tuning.report.page import write_page
from tts.tuning.report.results import best_yaml, is_current, record, record_json, write_tables

TWO = [{"metric": "mel_loss", "objective": "loss"}, {"metric": "gate_loss", "objective": "gate"}]


@pytest.fixture
def study(make_study):
    """A trial that waits, and eight that ended: four completed, two pruned, two failed."""
    study = make_study(trials=20)
    tell(study, FOUR + FOUR)
    return study


def test_the_record_holds_what_the_study_holds(study):
    results = record(study)

    assert results.counts == {"waiting": 1, "complete": 4, "pruned": 2, "fail": 2}
    told = [None, 1.7, 1.3, None, None, 1.2, 1.9, None, None]
    assert [trial.value for trial in results.trials] == told
    assert (results.best.number, results.best.value, results.best.params) == (5, 1.2, results.trials[5].params)
    assert results.trials[1].intermediate == [(2, 2.7), (4, 2.2), (6, 1.7)]
    assert results.trials[4].intermediate == [(2, None)], "not a number in the study"
    assert results.trials[1].metrics["mel_loss"] == 1.7
    assert results.trials[1].metrics["gate_stop_error"] is None, "infinite in the study"
    assert results.trials[4].reason == "metric mel_loss is nan at step 2"
    assert results.trials[1].start.timestamp() == BEGIN.timestamp()
    assert results.trials[1].spans == [(BEGIN.timestamp(), BEGIN.timestamp() + 8)]
    assert sum(results.importances.values()) == pytest.approx(1)
    assert [(limit.knob, limit.used, limit.left) for limit in results.budgets] == [("trials", 8, 12)]
    assert results.spent == ""


def test_every_budget_that_is_set_is_in_the_record(make_study):
    study = make_study(trials=8, gpu_hours=1, hours=2, plateau_trials=5)
    tell(study, FOUR + FOUR)

    limits = {limit.knob: limit for limit in record(study).budgets}

    assert limits["gpu_hours"].used == pytest.approx(8 * 8 / 3600)
    assert limits["hours"].used == pytest.approx(5 * 8 / 3600), "two workers side by side"
    assert limits["plateau_trials"].used == 3, "trial 5 was better than all before it"
    assert "8 trials" in record(study).spent


def test_importances_of_few_trials_are_not_made_up(make_study):
    study = make_study()
    tell(study, (TrialState.COMPLETE,) * 3)

    assert record(study).importances is None


def test_imported_trials_are_marked_and_never_the_best(study):
    tell(study, (TrialState.COMPLETE,), attributes={"imported": "elsewhere"}, spread=3)

    results = record(study)

    assert results.trials[-1].value == 1.0
    assert results.trials[-1].imported == "elsewhere"
    assert results.best.number == 5
    assert results.counts["complete"] == 4
    assert results.counts["imported"] == 1
    assert results.finished == results.budgets[0].used == 8


def test_several_objectives_have_a_set_that_nothing_beats(make_study, tmp_path):
    study = make_study(trials=20, objective=TWO, pruner="none")
    tell(study, (TrialState.COMPLETE,) * 12)

    results = record(study)
    values = {trial.number: trial.values for trial in results.trials if trial.values}

    def beaten(one):
        return any(other[0] <= one[0] and other[1] <= one[1] and other != one for other in values.values())

    assert results.objectives == ["loss", "gate"]
    assert results.pareto == [number for number, pair in values.items() if not beaten(pair)]
    assert 1 < len(results.pareto) < 12
    assert results.best.number in results.pareto
    write_tables(tmp_path, results)
    with (tmp_path / "pareto.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [[float(row["value.loss"]), float(row["value.gate"])] for row in rows] == [values[number] for number in results.pareto]
    head = [line for line in (tmp_path / "best.yaml").read_text().splitlines() if line.startswith("#")]
    assert len(head) == 1 + len(results.pareto)


def test_the_tables_agree_with_the_record(study, tmp_path):
    results = record(study)
    write_tables(tmp_path, results)

    written = json.loads((tmp_path / "study.json").read_text())
    assert written["best"] == results.best.model_dump()
    assert written["trials"][1]["intermediate"] == [[2, 2.7], [4, 2.2], [6, 1.7]]
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == [trial.state for trial in results.trials]
    assert [row["value"] for row in rows] == [str(trial.value) if trial.value is not None else "" for trial in results.trials]
    known = [
        (float(row["optimiser.learning_rate"]), trial.params["optimiser.learning_rate"])
        for row, trial in zip(rows, results.trials, strict=True)
        if trial.params
    ]
    assert len(known) == 8
    assert all(in_table == in_study for in_table, in_study in known)
    assert not (tmp_path / "pareto.csv").exists()
    assert not is_current(tmp_path, results)  # no page yet
    write_page(tmp_path, results)
    assert is_current(tmp_path, results)
    tell(study, (TrialState.FAIL,))
    assert not is_current(tmp_path, record(study))


def test_best_yaml_is_a_configuration(study, tmp_path):
    results = record(study)
    (tmp_path / "best.yaml").write_text(best_yaml(results))

    config = flatten(read_config(tmp_path / "best.yaml", tacotron2()))

    assert {name: config[name] for name in results.best.params} == results.best.params
    assert yaml.safe_load(best_yaml(results, 6))["optimiser"]["learning_rate"] == results.trials[6].params["optimiser.learning_rate"]


def test_a_trial_that_has_not_completed_is_no_configuration(study, make_study):
    with pytest.raises(UsageError, match=r"trial 3 of study 'voices' has not completed; completed are 1, 2, 5, 6"):
        best_yaml(record(study), 3)
    with pytest.raises(DataError, match="no trial of study 'voices' has completed"):
        best_yaml(record(make_study("other")))


def test_a_password_is_in_no_file(study, tmp_path):
    results = record(study)
    assert not any(math.isnan(trial.value) for trial in results.trials if trial.value is not None)
    assert "NaN" not in record_json(results)
    assert "Infinity" not in record_json(results)
