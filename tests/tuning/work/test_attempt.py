import json
import multiprocessing
import os
import signal

import psutil
import pytest
from optuna.trial import TrialState

from tts.config.load import flatten, override
from tts.data.store import FeatureStore
from tts.errors import PreemptedError, ServiceUnavailableError
from tts.training.preemption import StopFlag
from tts.training.run_folder import read_state
from tts.tuning.budget import Budget, covered
from tts.tuning.database.lock import is_locked
from tts.tuning.database.retry import persistently
from tts.tuning.database.storage import storage_url
from tts.tuning.launch import LocalLauncher, Task
from tts.tuning.study import Plan, create_study, open_study
from tts.tuning.work.attempt import trial_config
from tts.tuning.work.halt import trial_seconds
from tts.tuning.work.worker import work

LONG = {"steps": 24, "validation_interval": 2, "pruner": "none"}


def reports(study, number=0):
    trials = persistently(lambda: study.trials.trials, url=study.url)  # the test restarts the database, as others do
    return len(trials[number].intermediate_values) if len(trials) > number and trials[number].state == TrialState.RUNNING else 0


def test_a_trial_takes_its_values_and_the_studys_budget_of_steps(base):
    config = trial_config(base, {"optimiser.learning_rate": 1e-4})

    changed = {name: value for name, value in flatten(config).items() if flatten(base)[name] != value}
    assert changed == {
        "optimiser.learning_rate": 1e-4,
        "training.validation_interval": 2,
        "training.checkpoint_interval": 2,
        "training.keep_checkpoints": 1,
        "recovery.remedies": [],
    }


def test_a_trial_has_as_many_remedies_as_the_study_says(base):
    config = trial_config(override(base, {"tuning.trial_restarts": 2}), {})
    assert config.recovery.remedies == base.recovery.remedies[:2]


@pytest.mark.slow
def test_a_paused_worker_that_comes_back_reports_nothing_and_goes_on(make_study, features, tmp_path, until):
    study = make_study(trials=1, heartbeat_seconds=0.3, stale_seconds=1.5, steps=48, validation_interval=2, pruner="none")
    launcher = LocalLauncher(tmp_path / "workers")
    launcher.start(Task(str(features), study.url, "voices"), 1)
    (paused,) = [child for child in psutil.Process().children() if "tts.tuning" in child.cmdline()]
    until(lambda: reports(study))
    first = study.trials.trials[0].user_attrs["worker"]

    os.kill(paused.pid, signal.SIGSTOP)
    # Its trial's process ends by itself before the trial is another's.
    until(lambda: not is_locked(study.plan.folder / ".locks" / "trial-0"))
    assert study.trials.trials[0].user_attrs["worker"] == first
    assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 1
    (before,) = study.trials.trials
    os.kill(paused.pid, signal.SIGCONT)
    ended = until(lambda: (now := launcher.poll()).alive == 0 and now)
    launcher.stop()

    (trial,) = study.trials.trials
    assert trial == before
    assert trial.state == TrialState.COMPLETE
    assert trial.user_attrs["worker"] != first
    assert (trial.user_attrs["deaths"], trial.user_attrs["interruptions"]) == (1, ["its worker gave no sign of life for 1.5 s"])
    assert list(trial.intermediate_values) == list(range(2, 49, 2))
    lines = [json.loads(line) for line in (study.plan.folder / "trials" / "0" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 49))
    # It went on: it found the study at its end.
    assert [one.code for one in ended.ended] == [0]
    log = (tmp_path / "workers" / "0.log").read_text()
    assert "nothing of this attempt is reported" in log
    assert "this worker finished 0 trials" in log


@pytest.mark.parametrize(("grace", "seconds"), [(30, 10), (60, 10), (120, 60), (600, 540)])
def test_a_trial_leaves_its_worker_time_to_upload_and_to_hand_it_back(grace, seconds):
    assert trial_seconds(grace) == seconds


def test_a_trial_in_a_pod_that_does_not_stop_is_killed_before_its_pod_is(make_study, features, monkeypatch):
    monkeypatch.setattr("tts.tuning.work.halt.UPLOAD_SECONDS", 104.5)  # of the default's 120
    monkeypatch.setattr("tts.tuning.work.halt.SHORTEST_SECONDS", 0.5)
    study = make_study(launcher="kubernetes", trials=1, **LONG)

    def frozen():
        if not reports(study):
            return False
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGSTOP)
        return True

    with pytest.raises(PreemptedError, match="stopped after 0 trials"):
        work(features, storage=study.url, name="voices", stop=Stops(frozen))

    (trial,) = study.trials.trials
    assert trial.user_attrs["interruptions"] == ["the trial did not stop within 0.5 s and was killed; it goes on from its last checkpoint"]


class Stops(StopFlag):
    """Set once a condition holds."""

    def __init__(self, condition):
        super().__init__()
        self.condition = condition

    def __bool__(self):
        if not super().__bool__() and self.condition():
            self.set()
        return super().__bool__()


def test_a_worker_that_is_stopped_while_its_database_is_away_loses_nothing(make_study, features, postgres, caplog, monkeypatch):
    monkeypatch.setattr("tts.tuning.work.halt.FAREWELL_SECONDS", 1.0)
    study = make_study(url=postgres.database(), trials=1, heartbeat_seconds=0.2, stale_seconds=4.0, **LONG)
    state = {"down": False}

    def away():
        if not state["down"] and reports(study):
            postgres.stop()
            state["down"] = True
        return state["down"] and "trying again" in caplog.text

    with pytest.raises(PreemptedError, match="stopped after 0 trials"):
        work(features, storage=study.url, name="voices", stop=Stops(away))
    postgres.start()

    waiting = study.trials.trials[0]
    assert waiting.state == TrialState.RUNNING  # nobody could say otherwise
    assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 1
    (trial,) = study.trials.trials
    assert trial.user_attrs["interruptions"] == ["its worker died"]
    assert list(trial.intermediate_values) == list(range(2, 25, 2))


def test_a_trial_outlasts_a_restart_of_its_database(make_study, features, postgres):
    study = make_study(url=postgres.database(), trials=1, **LONG)
    restarts = []

    def restart():
        if len(restarts) < 2 and reports(study) > 5 * len(restarts):
            restarts.append(postgres.restart("immediate"))
        return False

    assert work(features, storage=study.url, name="voices", stop=Stops(restart)).finished == 1

    (trial,) = study.trials.trials
    assert len(restarts) == 2
    assert trial.state == TrialState.COMPLETE
    assert list(trial.intermediate_values) == list(range(2, 25, 2))
    assert "interruptions" not in trial.user_attrs


def test_a_database_that_stays_away_ends_the_worker_and_the_trial_goes_on_later(make_study, features, postgres, monkeypatch):
    study = make_study(url=postgres.database(), trials=1, **LONG)
    monkeypatch.setattr("tts.tuning.database.retry.OUTAGE_SECONDS", 1.0)
    state = {"down": False}

    def away():
        if not state["down"] and reports(study):
            postgres.stop()
            state["down"] = True
        return False

    with pytest.raises(ServiceUnavailableError, match="check that it runs and is reachable"):
        work(features, storage=study.url, name="voices", stop=Stops(away))
    postgres.start()

    assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 1
    (trial,) = study.trials.trials
    assert list(trial.intermediate_values) == list(range(2, 25, 2))


def test_when_the_hours_are_over_trials_wait_at_a_checkpoint_and_an_extension_goes_on_with_them(make_study, features):
    study = make_study(trials=3, hours=0.25 / 3600, heartbeat_seconds=0.05, steps=40, validation_interval=2, pruner="none")

    worked = work(features, storage=study.url, name="voices", stop=StopFlag())

    assert worked.finished == 0
    assert worked.spent == "its 6.94444e-05 hours (tuning.hours) are over"
    (trial,) = study.trials.trials
    assert trial.state == TrialState.WAITING
    assert trial.user_attrs["interruptions"] == [worked.spent]
    (span,) = trial.user_attrs["spans"]
    assert trial.user_attrs["seconds"] == pytest.approx(covered([tuple(span)]), abs=0.01)

    make_study(trials=1, hours=0, heartbeat_seconds=0.05, steps=40, validation_interval=2, pruner="none")
    assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 1
    (trial,) = study.trials.trials
    assert trial.state == TrialState.COMPLETE
    assert list(trial.intermediate_values) == list(range(2, 41, 2))
    assert len(trial.user_attrs["spans"]) == 2
    assert Budget.state(study).gpu_hours_used * 3600 == pytest.approx(trial.user_attrs["seconds"], abs=0.01)


def test_a_trial_that_is_always_short_of_memory_is_given_up(base, features, tmp_path):
    """Each attempt makes one step, too few to begin again for, and the worker lives to say so."""
    config = override(base, {"recovery.memory_share": 1e-9, "tuning.trials": 1, "tuning.max_retries": 1})
    plan = Plan.of(config, FeatureStore.open(features).fingerprint, tmp_path / "study")
    study = create_study(storage_url(tmp_path / "study", None), "voices", plan)

    assert work(features, storage=study.url, name="voices", stop=StopFlag()).finished == 1

    (trial,) = study.trials.trials
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs["reason"].startswith("given up after 2 interrupted attempts, the last one: memory is short: ")
    assert read_state(tmp_path / "study" / "trials" / "0").step == 2, "the second attempt went on from the first one's checkpoint"


def test_workers_end_on_a_plateau_with_the_trials_under_way_finished(make_study, features):
    study = make_study(trials=30, plateau_trials=2, plateau_share=0.9, sampler="random", pruner="none")

    worked = work(features, storage=study.url, name="voices", stop=StopFlag())

    assert worked.spent == "2 trials in a row (tuning.plateau_trials) brought none that is better"
    assert {trial.state for trial in study.trials.trials} == {TrialState.COMPLETE}
    assert worked.finished == len(study.trials.trials) < 30


def test_several_objectives_are_all_told(make_study, features):
    terms = [{"metric": "mel_loss", "objective": "sound"}, {"metric": "gate_loss", "objective": "end"}]
    study = make_study(trials=2, objective=terms, pruner="none", sampler="tpe")

    work(features, storage=study.url, name="voices", stop=StopFlag())

    for trial in study.trials.trials:
        assert trial.values == [trial.user_attrs["metrics"]["mel_loss"], trial.user_attrs["metrics"]["gate_loss"]]
        assert trial.intermediate_values[6] == trial.values[0]
    assert [direction.name for direction in open_study(study.url, "voices").trials.directions] == ["MINIMIZE", "MINIMIZE"]
