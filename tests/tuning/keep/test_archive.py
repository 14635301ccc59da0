"""Export and import: what is in the file, what of it enters another study, and what does not."""

import json
import math
import re
from collections import Counter

import pytest
from optuna.trial import TrialState

from tests.tuning.told import BEGIN, FOUR, tell
from tts.errors import CannotWriteError, DataError
from tts.tuning.budget import Budget
from tts.tuning.keep.archive import export_study, read_archive
from tts.tuning.keep.warm_start import import_archive
from tts.tuning.report.records import record

C, P = TrialState.COMPLETE, TrialState.PRUNED


@pytest.fixture
def study(make_study):
    study = make_study(trials=20)
    tell(study, FOUR)
    return study


def test_the_file_holds_everything_and_no_nan(study, tmp_path):
    export_study(study, tmp_path / "study.json")

    content = json.loads((tmp_path / "study.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} in the file"))
    assert (content["format"], content["version"], content["study"], content["objectives"]) == ("tts-study", 1, "voices", ["loss"])
    assert content["plan"]["config"]["tuning"]["trials"] == 20
    for trial, ours in zip(content["trials"], study.trials.trials, strict=True):
        assert trial["params"] == ours.params
        assert set(trial["distributions"]) == set(ours.params)
        assert trial["values"] == (ours.values or [])
        for (step, value), known in zip(trial["intermediate"], sorted(ours.intermediate_values.items()), strict=True):
            assert step == known[0]
            assert value == (None if math.isnan(known[1]) else known[1])
    assert content["trials"][1]["start"].startswith(BEGIN.astimezone().isoformat()[:4])
    assert content["trials"][4]["attributes"]["reason"] == "metric mel_loss is nan at step 2"


def test_no_password_is_in_the_file(make_study, tmp_path):
    study = make_study(trials=20)
    tell(study, FOUR, attributes={"log": "cannot reach postgresql+psycopg://tts:s3cret@db/studies, nor http://me:s3cret@mlflow"})
    export_study(study, tmp_path / "study.json")

    text = (tmp_path / "study.json").read_text()
    assert "s3cret" not in text
    assert "postgresql+psycopg://tts:***@db/studies" in text


def test_what_is_exported_is_read_back(study, tmp_path):
    written = export_study(study, tmp_path / "study.json")

    assert read_archive(tmp_path / "study.json") == written


def test_a_warm_start_feeds_the_sampler_and_neither_budget_nor_best(study, make_study, tmp_path):
    archive = export_study(study, tmp_path / "study.json")
    other = make_study("other", trials=4)

    made = import_archive(other, archive)

    assert (made.taken, made.known, made.skipped) == (3, 0, Counter({"it is not finished": 1, "it failed": 1}))
    theirs = {trial.number: trial for trial in study.trials.trials}
    taken = other.trials.trials[1:]
    assert [(trial.state, trial.values, trial.params, trial.intermediate_values) for trial in taken] == [
        (theirs[number].state, theirs[number].values, theirs[number].params, theirs[number].intermediate_values) for number in (1, 2, 3)
    ]
    assert [trial.datetime_start for trial in taken] == [theirs[number].datetime_start for number in (1, 2, 3)]
    assert {trial.user_attrs["imported"] for trial in taken} == {"voices"}
    results = record(other)
    assert results.best is None
    assert Budget.of(other.plan.config.tuning, other.trials.trials).finished == 0
    assert {trial.number for trial in other.trials.get_trials(states=(C,))} == {1, 2}, "what a sampler asks the study for"


def test_importing_again_adds_only_what_is_new(study, make_study, tmp_path):
    other = make_study("other")
    assert import_archive(other, export_study(study, tmp_path / "a.json")).taken == 3
    again = import_archive(other, export_study(study, tmp_path / "a.json"))
    assert (again.taken, again.known) == (0, 3)
    tell(study, (C, P))
    later = import_archive(other, export_study(study, tmp_path / "a.json"))
    assert (later.taken, later.known) == (2, 3)
    assert len(other.trials.trials) == 1 + 5


def test_a_study_does_not_take_its_own_trials_back(study, make_study, tmp_path):
    other = make_study("other")
    import_archive(other, export_study(study, tmp_path / "a.json"))
    tell(other, (C,), spread=5)
    back = export_study(other, tmp_path / "b.json")

    made = import_archive(study, back)

    assert made.taken == 1, "only what the other study made itself"
    assert import_archive(study, export_study(study, tmp_path / "c.json")).taken == 0


def test_a_trial_outside_the_space_is_left_out(study, make_study, tmp_path):
    archive = export_study(study, tmp_path / "a.json")
    narrow = [{"knob": "optimiser.learning_rate", "low": 1e-3, "high": 1e-2}]
    other = make_study("other", ranges=narrow)

    made = import_archive(other, archive)

    inside = [trial for trial in study.trials.trials if trial.state in (C, P) and 1e-3 <= trial.params["optimiser.learning_rate"] <= 1e-2]
    assert 0 < made.taken == len(inside) < 3
    assert made.skipped["its optimiser.learning_rate is out of range here"] == 3 - len(inside)


def test_a_knob_that_only_one_of_the_two_searches(make_study, tmp_path):
    two = ["optimiser.learning_rate", "model.prenet_dropout"]
    wide, small = make_study("wide", trials=20), make_study("small", trials=20, knobs=two)
    tell(wide, (C,) * 4)
    tell(small, (C,) * 4)

    made = import_archive(wide, export_study(small, tmp_path / "small.json"))
    assert made.taken == 4, "what was held fast there is a value like another"
    warmup = wide.plan.config.optimiser.warmup_steps
    assert [trial.params["optimiser.warmup_steps"] for trial in wide.trials.trials[-4:]] == [warmup] * 4

    made = import_archive(make_study("third", trials=20, knobs=two), export_study(wide, tmp_path / "wide.json"))
    assert made.taken == 4, "those that came from the study with two knobs"
    assert made.skipped["its optimiser.warmup_steps is not the one that is held fast here"] == 4


def test_a_condition_holds_for_what_is_imported(study, make_study, tmp_path):
    condition = [{"knob": "optimiser.warmup_steps", "when": "model.prenet_dropout", "above": 0.25}]
    other = make_study("other", conditions=condition)

    made = import_archive(other, export_study(study, tmp_path / "a.json"))

    taken = other.trials.trials[1:]
    assert made.taken == len(taken) > 0
    assert all(trial.params["model.prenet_dropout"] > 0.25 and "optimiser.warmup_steps" in trial.params for trial in taken)
    assert made.skipped["its optimiser.warmup_steps is not the one that is held fast here"] == 3 - made.taken > 0


def test_another_objective_is_computed_from_the_metrics(study, make_study, tmp_path):
    archive = export_study(study, tmp_path / "a.json")
    other = make_study("other", objective=[{"metric": "mel_loss"}, {"metric": "gate_loss", "weight": 2.0}])

    made = import_archive(other, archive)

    assert [trial.values for trial in other.trials.trials[1:]] == [[1.7 + 2 * 0.5], [1.3 + 2 * 0.5]]
    assert all(trial.intermediate_values == {} for trial in other.trials.trials[1:]), "reports were of the other objective"
    assert made.skipped["it was pruned, and its reports are of other features, steps or another objective"] == 1
    assert any("tuning.objective" in note for note in made.notes)

    third = make_study("third", objective=[{"metric": "gate_stop_error"}])
    reason = "it was judged by another objective, and its metric gate_stop_error is missing"
    assert import_archive(third, archive).skipped[reason] == 2, "it was infinite, and infinite is no value"


def test_trials_of_another_length_come_without_reports_and_it_is_said(study, make_study, tmp_path):
    other = make_study("other", steps=8)

    made = import_archive(other, export_study(study, tmp_path / "a.json"))

    assert made.taken == 2
    assert [trial.intermediate_values for trial in other.trials.trials[1:]] == [{}, {}]
    assert any(note.startswith("tuning.steps is 6") for note in made.notes)


def test_trials_of_other_code_come_and_it_is_said(study, make_study, tmp_path):
    archive = export_study(study, tmp_path / "a.json")
    other = archive.model_copy(update={"plan": {**archive.plan, "code": "0123", "version": "9.9"}})

    made = import_archive(make_study("other"), other)

    assert made.taken == 3
    assert made.notes == (f"its trials ran the code of version 9.9 (0123), ours run {study.plan.version} ({study.plan.code})",)


def test_importing_while_a_server_keeps_the_study(make_study, postgres_url, tmp_path):
    source = make_study("source", trials=60)
    tell(source, (C,) * 45)
    other = make_study("other", url=postgres_url, trials=60)
    archive = export_study(source, tmp_path / "a.json")

    assert import_archive(other, archive).taken == 45
    assert import_archive(other, export_study(other, tmp_path / "b.json")).taken == 0
    assert [trial.values for trial in other.trials.trials[1:]] == [trial.values for trial in source.trials.trials[1:]]
    assert re.search(r'"storage": "postgresql\+psycopg://', (tmp_path / "b.json").read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", r"is not JSON"),
        ("[]", r"is not an exported study; expected a file made by `tts study export`"),
        ({"format": "other"}, r"is not an exported study"),
        ({"version": 7}, r"has version 7 of the format, this program reads 1"),
        ({"trials": [{"number": "x"}]}, r"trials\.0\.number: Input should be a valid integer"),
        ({"trials": None}, r"trials: Input should be a valid list"),
    ],
)
def test_a_damaged_file_is_named_with_the_field(study, tmp_path, change, message):
    file = tmp_path / "study.json"
    export_study(study, file)
    if isinstance(change, str):
        file.write_text(change)
    else:
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(DataError, match=message):
        read_archive(file)


def test_a_missing_file_and_another_version_s_plan(study, tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_archive(tmp_path / "none.json")
    archive = export_study(study, tmp_path / "a.json")
    with pytest.raises(DataError, match=r"exported by another version of this program: plan\.config"):
        import_archive(study, archive.model_copy(update={"plan": {**archive.plan, "config": {"tuning": 3}}}))
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(CannotWriteError):
        export_study(study, tmp_path / "taken" / "a.json")
