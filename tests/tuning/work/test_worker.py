import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import socket

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from tts.config import TrackingConfig
from tts.data.fingerprint import fingerprint
from tts.data.store import FeatureStore
from tts.errors import CannotWriteError, DataError, PreemptedError, UsageError
from tts.training.preemption import StopFlag
from tts.training.run_folder import read_state
from tts.tuning.report.results import record
from tts.tuning.search.pruning import judge
from tts.tuning.work.identity import new_worker
from tts.tuning.work.queue import take
from tts.tuning.work.recording import note_run
from tts.tuning.work.worker import work


def enqueue(study, **values):
    """Lets a trial with these values wait; names without their section."""
    params = {
        **study.trials.trials[0].system_attrs["fixed_params"],
        **{name: values[name.split(".")[1]] for name in study.plan.space if name.split(".")[1] in values},
    }
    study.trials.add_trial(optuna.create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": params}))


def test_the_budget_is_spent_on_real_trainings_and_the_best_is_the_lowest(make_study, base, features):
    study = make_study(trials=3)

    assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 3

    trials = study.trials.trials
    assert trials[0].params["optimiser.learning_rate"] == base.optimiser.learning_rate
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    results = record(study)
    assert results.best.value == min(trial.value for trial in trials if trial.state == TrialState.COMPLETE)
    for trial in results.trials:
        last = trial.intermediate[-1]
        expected = trial.metrics["mel_loss"] + trial.metrics["gate_loss"] - trial.metrics["attention_diagonality"]
        assert last[1] == pytest.approx(expected, rel=1e-12)
        if trial.state == "complete":
            assert last == (6, trial.value)
            assert json.loads((study.plan.folder / "trials" / str(trial.number) / "config.json").read_text())["training"]["steps"] == 6
    assert list((study.plan.folder / ".locks").glob("worker-*")) == []
    assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 0


def test_a_trial_that_learns_nothing_is_pruned_where_the_configuration_says(make_study, features):
    study = make_study(trials=2)
    enqueue(study, learning_rate=1e-4, warmup_steps=1000)

    work(features, storage=study.url, name="voices", stop=StopFlag())

    first, second = study.trials.trials
    assert first.state == TrialState.COMPLETE
    assert second.state == TrialState.PRUNED
    assert list(second.intermediate_values) == [2, 4]
    assert second.intermediate_values[4] > first.intermediate_values[4]
    state = read_state(study.plan.folder / "trials" / "1")
    assert (state.state, state.step) == ("stopped", 4)


def test_the_configurations_own_values_run_to_the_end_whatever_the_others_reached(make_study, features):
    study = make_study(trials=7, pruner="median")
    params = study.trials.trials[0].system_attrs["fixed_params"]
    for _ in range(5):
        unreachable = {"value": -100.0, "intermediate_values": {2: -100.0, 4: -100.0, 6: -100.0}}
        study.trials.add_trial(optuna.create_trial(params=params, distributions=study.space, **unreachable))
    enqueue(study)

    assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 2

    baseline, *_, same_values = study.trials.trials
    assert (baseline.state, same_values.state) == (TrialState.COMPLETE, TrialState.PRUNED)


def test_a_metric_that_is_not_finite_fails_the_trial_which_is_never_the_best(make_study, features, tmp_path):
    damaged = tmp_path / "features"
    shutil.copytree(features, damaged)
    study = make_study(trials=1, sampler="random")
    mels = np.load(damaged / "mels.npy", mmap_mode="r+")
    healthy = mels.copy()
    mels[:] = math.nan
    mels.flush()

    work(damaged, storage=study.url, name="voices", stop=StopFlag())
    mels[:] = healthy
    mels.flush()
    make_study(trials=2, sampler="random")
    work(damaged, storage=study.url, name="voices", stop=StopFlag())

    failed, completed = record(study).trials
    assert (failed.state, failed.value) == ("fail", None)
    assert failed.reason == "metric mel_loss is nan at step 2"
    assert failed.metrics["mel_loss"] is None
    assert completed.state == "complete"
    assert record(study).best.number == 1


class KillsTrials(StopFlag):
    """Kills the child of the first trial each time it has reported another time; the flag itself stays unset."""

    def __init__(self, study, times):
        super().__init__()
        self.study, self.times, self.killed = study, times, 0

    def __bool__(self):
        trial = self.study.trials.trials[0]
        if self.killed < self.times and trial.state == TrialState.RUNNING and trial.user_attrs.get("deaths", 0) == self.killed:
            for child in multiprocessing.active_children() if trial.intermediate_values else ():
                os.kill(child.pid, signal.SIGKILL)
                self.killed = trial.user_attrs.get("deaths", 0) + 1
        return False


def test_a_killed_process_costs_its_trial_an_attempt_and_no_more(make_study, features):
    study = make_study(trials=2, pruner="none")

    work(features, storage=study.url, name="voices", stop=KillsTrials(study, 1))

    first, second = study.trials.trials
    assert (first.state, second.state) == (TrialState.COMPLETE, TrialState.COMPLETE)
    assert first.user_attrs["interruptions"] == ["its process was killed by SIGKILL (out of memory?)"]
    assert list(first.intermediate_values) == [2, 4, 6]


def test_a_trial_whose_process_is_killed_again_and_again_fails(make_study, features):
    study = make_study(trials=2, max_retries=1, pruner="none")

    finished = work(features, storage=study.url, name="voices", stop=KillsTrials(study, 2)).finished

    first, second = study.trials.trials
    assert finished == 2
    assert first.state == TrialState.FAIL
    assert first.user_attrs["reason"] == "given up after 2 interrupted attempts, the last one: its process was killed by SIGKILL (out of memory?)"
    assert second.state == TrialState.COMPLETE


def test_a_stopped_worker_hands_its_trial_back_and_the_next_one_ends_it(make_study, features):
    whole, study = make_study("whole", trials=1), make_study(trials=1)

    class StopsAfterAReport(StopFlag):
        def __bool__(self):
            if study.trials.trials[0].intermediate_values:
                self.set()
            return super().__bool__()

    work(features, storage=whole.url, name="voices", stop=StopFlag())
    with pytest.raises(PreemptedError, match="worker of study 'voices' stopped after 0 trials"):
        work(features, storage=study.url, name="voices", stop=StopsAfterAReport())
    waiting = study.trials.trials[0]
    work(features, storage=study.url, name="voices", stop=StopFlag())

    assert waiting.state == TrialState.WAITING
    assert waiting.user_attrs["interruptions"] == ["handed back at its checkpoint"]
    (trial,) = study.trials.trials
    assert trial.state == TrialState.COMPLETE
    assert trial.value == whole.trials.trials[0].value
    assert trial.intermediate_values == whole.trials.trials[0].intermediate_values


def test_a_worker_with_other_features_is_refused(make_study, features, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(features, other)
    summary = json.loads((other / "features.json").read_text())
    store = FeatureStore.open(features)
    key = fingerprint(store.config, store.symbol_table, "another corpus")
    (other / "features.json").write_text(json.dumps({**summary, "corpus": "another corpus", "fingerprint": key}))
    study = make_study()

    with pytest.raises(UsageError, match=re.escape(f"{other} holds {key}")):
        work(other, storage=study.url, name="voices", stop=StopFlag())


def test_a_worker_with_other_code_or_without_the_studys_folder_is_refused(make_study, features):
    study = make_study()
    plan = study.plan
    study.trials.set_user_attr("plan", plan.model_copy(update={"code": "0123"}).model_dump(mode="json"))
    with pytest.raises(UsageError, match=re.escape("was made by the code of version 0.1.0 (0123), this is version 0.1.0")):
        work(features, storage=study.url, name="voices", stop=StopFlag())

    study.trials.set_user_attr("plan", plan.model_copy(update={"folder": plan.folder / "elsewhere"}).model_dump(mode="json"))
    with pytest.raises(DataError, match="its workers need that folder, under the same path"):
        work(features, storage=study.url, name="voices", stop=StopFlag())


def test_broken_surroundings_end_the_worker_and_leave_the_trial_to_the_next(make_study, features):
    study = make_study(trials=1)
    checkpoints = study.plan.folder / "trials" / "0" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "index.json").write_text("{")

    with pytest.raises(DataError, match=re.escape("index.json is damaged")):
        work(features, storage=study.url, name="voices", stop=StopFlag())

    (trial,) = study.trials.trials
    assert trial.state == TrialState.WAITING
    assert "index.json is damaged" in trial.user_attrs["interruptions"][0]


def test_a_run_folder_that_cannot_be_made_costs_nothing_of_the_budget(make_study, features):
    study = make_study(trials=1)
    (study.plan.folder / "trials").write_text("")

    with pytest.raises(CannotWriteError, match="a file is in the way"):
        work(features, storage=study.url, name="voices", stop=StopFlag())

    (trial,) = study.trials.trials
    assert trial.state == TrialState.WAITING
    assert "deaths" not in trial.user_attrs
    (study.plan.folder / "trials").unlink()
    assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 1
    assert study.trials.trials[0].state == TrialState.COMPLETE


def test_a_worker_whose_lock_file_was_cleared_away_ends_well(make_study, features):
    study = make_study(trials=1)

    class Clears(StopFlag):
        def __bool__(self):
            for lock in (study.plan.folder / ".locks").glob("worker-*"):
                lock.unlink()
            return False

    assert work(features, storage=study.url, name="voices", stop=Clears()).finished == 1


@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband"])
def test_a_verdict_that_its_worker_did_not_live_to_act_on_is_given_again(make_study, features, pruner):
    study = make_study(trials=4, pruner=pruner, pruner_min_reports=1, pruner_reduction_factor=4, sampler="random")
    for _ in range(3):
        held = take(study, "here", lambda: 0.0)
        judge(study.trials, study.storage, held.trial, held.lease, 2, -100.0)
        study.storage.finish(held.id, held.lease, TrialState.COMPLETE, [-100.0], {})
    lost = take(study, new_worker(), lambda: 0.0)
    assert judge(study.trials, study.storage, lost.trial, lost.lease, 2, 9.9)

    assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 1

    trial = study.trials.trials[lost.number]
    assert (trial.state, trial.intermediate_values, trial.value) == (TrialState.PRUNED, {2: 9.9}, 9.9)
    assert trial.user_attrs["interruptions"] == ["its worker died"]


def test_what_is_left_undelivered_is_told_once(make_study, features, caplog):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        study = make_study(trials=1)
        tracking = TrackingConfig(backend="mlflow", uri=f"http://127.0.0.1:{nobody.getsockname()[1]}")
        plan = study.plan.model_copy(update={"config": study.plan.config.model_copy(update={"tracking": tracking})})
        study.trials.set_user_attr("plan", plan.model_dump(mode="json"))

        work(features, storage=study.url, name="voices", stop=StopFlag())

    assert caplog.text.count("deliver them with") == 1


def test_each_trial_is_a_run_below_the_studys(base, make_study, features):
    study = make_study(trials=2, pruner="none")
    folder = study.plan.folder
    plan = study.plan.model_copy(update={"config": study.plan.config.model_copy(update={"tracking": TrackingConfig(backend="jsonl")})})
    study.trials.set_user_attr("plan", plan.model_dump(mode="json"))
    note_run(study, "parent", {"folder": str(folder), "store": "lines", "reach": "folder"})

    work(features, storage=study.url, name="voices", stop=StopFlag())

    lines = [json.loads(line) for line in (folder / "tracking.jsonl").read_text().splitlines()]
    starts = [line for line in lines if line["kind"] == "start"]
    assert [(line["name"], line["parent"]) for line in starts] == [("trial-0", "parent"), ("trial-1", "parent")]
    for trial, start in zip(study.trials.trials, starts, strict=True):
        assert trial.user_attrs["tracking_run"] == {"parent": "parent", "run": start["run"]}
        own = [line for line in lines if line["run"] == start["run"]]
        (params,) = [line["values"] for line in own if line["kind"] == "params"]
        assert params == {name: str(value) for name, value in trial.params.items()}
        metrics = [line for line in own if line["kind"] == "metrics"]  # two of each step: what was measured, and what it is worth
        assert {line["step"]: line["values"]["objective"] for line in metrics if "objective" in line["values"]} == trial.intermediate_values
        assert {line["step"] for line in metrics if "mel_loss" in line["values"]} == set(trial.intermediate_values)
        assert own[-1]["status"] == "FINISHED"
