import random
import warnings

import optuna
import pytest
import sqlalchemy
from optuna.pruners import (
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
    WilcoxonPruner,
)
from optuna.trial import TrialState

from tts.tuning.database.failure import LeaseLostError
from tts.tuning.database.storage import create_tables, open_storage, storage_url
from tts.tuning.search.pruning import judge

warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
STEPS, WORKERS = 9, 3
PRUNERS = {
    "hyperband": lambda: HyperbandPruner(min_resource=1, max_resource=STEPS, reduction_factor=2),
    "hyperband, resource by itself": lambda: HyperbandPruner(reduction_factor=3),
    "successive halving": lambda: SuccessiveHalvingPruner(min_resource=2, reduction_factor=2),
    "successive halving, resource by itself": lambda: SuccessiveHalvingPruner(reduction_factor=2, min_early_stopping_rate=1),
    "median": lambda: MedianPruner(n_startup_trials=2, n_warmup_steps=2),
    "percentile": lambda: PercentilePruner(30.0, n_startup_trials=1, interval_steps=2, n_min_trials=2),
    "wilcoxon": lambda: WilcoxonPruner(p_threshold=0.3),
    "threshold": lambda: ThresholdPruner(upper=0.9, n_warmup_steps=1),
    "patient": lambda: PatientPruner(MedianPruner(n_startup_trials=1), patience=1),
    "patient alone": lambda: PatientPruner(None, patience=2, min_delta=0.05),
    "none": NopPruner,
}


def _values(numbers):
    """Reports of one trial: noise around a level, now and then something that is no number."""
    level = numbers.random()
    return [numbers.choice([float("nan"), float("inf"), 5.0]) if numbers.random() < 0.03 else level + 0.4 * numbers.random() for _ in range(STEPS)]


def _play(seed, begin, report, end):
    """Three workers' trials, interleaved by chance, each until it is pruned or reports no more. Returns what was decided, in order."""
    numbers, decided, under_way = random.Random(seed), [], {}
    for turn in range(230):
        worker = numbers.randrange(WORKERS)
        if worker not in under_way:
            values = _values(numbers)
            under_way[worker] = (begin(worker), values, iter(enumerate(values, start=1)))
        trial, values, reports = under_way[worker]
        step, value = next(reports, (None, None))
        if step is None:
            usable = [value for value in values if abs(value) < 10]
            end(worker, trial, TrialState.COMPLETE if len(usable) == STEPS else TrialState.FAIL, usable[-1])
            del under_way[worker]
            continue
        verdict = report(worker, trial, step, value)
        decided.append((turn, step, verdict))
        if verdict:
            end(worker, trial, TrialState.PRUNED, None)
            del under_way[worker]
    return decided


def _plainly(pruner, direction, seed):
    storage = optuna.storages.InMemoryStorage()
    studies = [
        optuna.create_study(storage=storage, study_name="s", direction=direction, load_if_exists=True, pruner=pruner()) for _ in range(WORKERS)
    ]

    def report(worker, trial, step, value):
        trial.report(value, step)
        return trial.should_prune()

    def end(worker, trial, state, value):
        studies[worker].tell(trial, value if state == TrialState.COMPLETE else None, state=state)

    return _play(seed, lambda worker: studies[worker].ask(), report, end)


def _ours(url, pruner, direction, seed):
    create_tables(url)
    storages = [open_storage(url) for _ in range(WORKERS)]
    studies = [
        optuna.create_study(storage=storage, study_name="s", direction=direction, load_if_exists=True, pruner=pruner()) for storage in storages
    ]

    def begin(worker):
        trial = studies[worker].ask()
        storages[worker].sign(trial._trial_id, f"{worker}", {})
        return storages[worker].get_trial(trial._trial_id)

    def report(worker, trial, step, value):
        return judge(studies[worker], storages[worker], trial, f"{worker}", step, value)

    def end(worker, trial, state, value):
        storages[worker].finish(trial._trial_id, f"{worker}", state, [value] if state == TrialState.COMPLETE else None, {})

    return _play(seed, begin, report, end)


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.filterwarnings("ignore")
def test_decisions_are_those_of_optunas_own_report_and_should_prune(name, direction, tmp_path):
    expected = _plainly(PRUNERS[name], direction, seed=3)
    found = _ours(f"sqlite:///{tmp_path / 'ours.db'}", PRUNERS[name], direction, seed=3)

    assert found == expected
    assert {verdict for *_, verdict in expected} == ({False} if name == "none" else {False, True})


@pytest.fixture
def study(postgres_url):
    create_tables(postgres_url)
    return optuna.create_study(storage=open_storage(postgres_url), study_name="s", pruner=HyperbandPruner(4, 64, 4))


def _signed(study):
    trial = study.ask()
    storage = study._storage._backend
    storage.sign(trial._trial_id, "w:1", {})
    return storage, storage.get_trial(trial._trial_id)


def test_a_report_costs_one_statement_and_one_at_a_rung_a_transaction_and_a_read(study):
    storage, trial = _signed(study)
    judge(study, storage, trial, "w:1", 1, 0.5)
    said = []
    sqlalchemy.event.listen(storage.engine, "before_cursor_execute", lambda *arguments: said.append(arguments[2].split()[0]))

    judge(study, storage, trial, "w:1", 2, 0.5)
    assert said == ["INSERT"]
    said.clear()
    judge(study, storage, trial, "w:1", 64, 0.5)
    assert said[0] == "WITH"
    assert said.count("WITH") == 1
    assert set(said[1:]) == {"INSERT"}
    assert len(said) == 3


def test_the_workers_copy_is_what_the_database_holds(study):
    storage, trial = _signed(study)
    for step, value in ((4, 0.5), (16, float("inf")), (17, float("nan"))):
        judge(study, storage, trial, "w:1", step, value)
    again = storage.get_trial(trial._trial_id)
    assert repr(again.intermediate_values) == repr(trial.intermediate_values) == "{4: 0.5, 16: inf, 17: nan}"
    assert again.system_attrs == trial.system_attrs
    assert trial.system_attrs


def test_a_step_that_was_reported_keeps_its_value(study):
    storage, trial = _signed(study)
    judge(study, storage, trial, "w:1", 1, 0.5)
    judge(study, storage, trial, "w:1", 1, 0.7)
    assert storage.get_trial(trial._trial_id).intermediate_values == trial.intermediate_values == {1: 0.5}


def test_nothing_changes_once_the_lease_is_lost(study):
    storage, trial = _signed(study)
    judge(study, storage, trial, "w:1", 4, 0.5)
    storage.release(trial._trial_id, {}, lease=None)
    before = repr(storage.get_trial(trial._trial_id)), repr(trial)

    for step in (5, 64):
        with pytest.raises(LeaseLostError):
            judge(study, storage, trial, "w:1", step, 0.5)
    assert (repr(storage.get_trial(trial._trial_id)), repr(trial)) == before


def test_a_fresh_sqlite_study_is_judged_too(tmp_path):
    url = storage_url(tmp_path, None)
    create_tables(url)
    study = optuna.create_study(storage=open_storage(url), study_name="s", pruner=ThresholdPruner(upper=1.0))
    storage, trial = _signed(study)
    assert [judge(study, storage, trial, "w:1", step, value) for step, value in ((1, 0.5), (2, 1.5))] == [False, True]
