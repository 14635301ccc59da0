import re

import optuna
import pytest
from optuna.trial import TrialState

import tts
from tts.config.load import override
from tts.errors import DataError, UsageError
from tts.tuning.database.storage import create_tables, open_storage, storage_url
from tts.tuning.keep.upkeep import extend
from tts.tuning.search.space import default_params, search_space
from tts.tuning.study import Plan, create_study, open_study


def test_a_new_study_waits_with_the_configurations_own_values(make_study, base):
    study = make_study()

    (trial,) = study.trials.trials
    assert trial.state == TrialState.WAITING
    assert trial.system_attrs["fixed_params"] == default_params(base, search_space(base.tuning))
    assert study.plan.config == base


def test_creating_it_again_opens_and_extends_it(make_study, base):
    study = make_study()

    again = make_study(trials=7)

    assert len(again.trials.trials) == 1
    assert study.plan.config.tuning.trials == 7
    assert open_study(study.url, "voices").plan == again.plan


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"optimiser.beta1": 0.8}, "optimiser.beta1 is 0.8, the study's is 0.9"),
        ({"tuning.steps": 8}, "tuning.steps is 8, the study's is 6"),
        ({"tuning.knobs": ["optimiser.learning_rate"]}, 'tuning.knobs is ["optimiser.learning_rate"], the study\'s is ["optimiser.learning_rate"'),
        ({"tuning.objective": [{"metric": "loss"}]}, "tuning.objective is"),
    ],
)
def test_a_study_whose_trials_would_not_be_comparable_is_refused(make_study, base, tmp_path, knobs, message):
    study = make_study()
    plan = Plan.of(override(base, knobs), study.plan.features, study.plan.folder)

    with pytest.raises(UsageError, match=re.escape(message)):
        create_study(study.url, "voices", plan)
    assert open_study(study.url, "voices").plan.config == base


def test_other_features_or_ranges_are_refused(make_study, base):
    study = make_study()
    known = study.plan
    ranges = {**known.space, "model.prenet_dropout": known.space["model.prenet_dropout"].replace("0.7", "0.9")}

    with pytest.raises(UsageError, match=f"the features' fingerprint is 0123, the study's is {known.features}"):
        create_study(study.url, "voices", known.model_copy(update={"features": "0123"}))
    with pytest.raises(UsageError, match=re.escape("the search range of model.prenet_dropout is")):
        create_study(study.url, "voices", known.model_copy(update={"space": ranges}))


def test_what_does_not_decide_a_trial_may_change(make_study, base):
    study = make_study()
    free = {"tuning.workers": 5, "tuning.sampler": "random", "tuning.seed": 9, "evaluation.sentences": 1, "training.threads": 3}
    free["optimiser.learning_rate"] = 1e-3  # searched: only the first trial depends on it

    create_study(study.url, "voices", Plan.of(override(base, free), study.plan.features, study.plan.folder))

    assert study.plan.config.tuning.workers == 5


def test_a_study_of_another_program_is_refused(base, tmp_path):
    url = storage_url(tmp_path, None)
    create_tables(url)
    theirs = optuna.create_study(storage=open_storage(url), study_name="voices")
    theirs.tell(theirs.ask(), 1.0)

    with pytest.raises(UsageError, match="was not made by `tts tune`"):
        create_study(url, "voices", Plan.of(base, "0123", tmp_path))
    with pytest.raises(DataError, match="was not made by `tts tune`"):
        open_study(url, "voices")


def test_a_worker_is_told_which_studies_there_are(make_study):
    study = make_study()

    with pytest.raises(DataError, match=re.escape("study 'voice' is not in") + ".*" + re.escape("(there: voices)")):
        open_study(study.url, "voice")


def test_a_second_study_does_not_mix_its_trials_with_the_firsts(make_study):
    study = make_study()
    (study.plan.folder / "trials" / "0").mkdir(parents=True)

    with pytest.raises(UsageError, match="holds the trials of another study than 'others'"):
        create_study(study.url, "others", study.plan)


def test_a_study_keeps_its_folder_unless_the_database_moved_with_it(make_study, tmp_path):
    study = make_study()
    plan = study.plan
    other = tmp_path / "other"

    with pytest.raises(UsageError, match=re.escape(f"keeps its trials in {plan.folder}")):
        create_study(study.url, "voices", plan.model_copy(update={"folder": other}))
    study.storage.engine.dispose()
    plan.folder.rename(tmp_path / "moved")

    moved = create_study(storage_url(tmp_path / "moved", None), "voices", plan.model_copy(update={"folder": tmp_path / "moved"}))

    assert moved.plan.folder == tmp_path / "moved"
    assert len(moved.trials.trials) == 1


def test_trials_of_other_code_are_not_mixed_in(make_study):
    study = make_study()
    other = study.plan.model_copy(update={"code": "0123", "version": "9.9"})

    with pytest.raises(UsageError, match=re.escape(f"by the code of version {tts.__version__} ({study.plan.code}), this is version 9.9 (0123)")):
        create_study(study.url, "voices", other)


def test_a_study_that_others_began_with_another_direction_is_refused(base, tmp_path):
    url = storage_url(tmp_path, None)
    create_tables(url)
    optuna.create_study(storage=open_storage(url), study_name="voices", direction="maximize")

    with pytest.raises(UsageError, match="exists with the directions maximize, this one needs minimize"):
        create_study(url, "voices", Plan.of(base, "0123", tmp_path))


def test_a_study_that_was_deleted_is_told_so(make_study):
    study = make_study()
    study.storage.delete_study(study.id)

    with pytest.raises(DataError, match="study 'voices' was deleted from"):
        _ = study.plan


def test_what_was_extended_holds_until_the_configuration_says_something_new(make_study):
    study = make_study(trials=3)
    extend(study, {"trials": 10})
    extend(study, {"trials": 12, "hours": 2.0})

    tuning = make_study(trials=3).plan.config.tuning
    assert (tuning.trials, tuning.hours) == (12, 2.0)
    tuning = make_study(trials=5).plan.config.tuning
    assert (tuning.trials, tuning.hours) == (5, 2.0)
    assert make_study(trials=3).plan.config.tuning.trials == 3
