"""Trainings and studies recorded in MLflow."""

import json
from pathlib import Path

import optuna
import pytest

from tts.cli import main
from tts.config import Config, TrackingConfig
from tts.config.load import override, to_json
from tts.errors import PreemptedError
from tts.progress import Silent
from tts.tracking import open_tracker
from tts.training.preemption import StopFlag
from tts.training.run import run_training


def starts(folder: Path) -> list[dict]:
    (file,) = folder.glob(".spool/*/*.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines() if line]
    return [record for record in records if record["kind"] == "start"]


def test_only_a_start_over_with_another_configuration_is_recorded_anew(features, tiny, tmp_path):
    """A run stopped before its first checkpoint repeats itself, or is another one."""
    run, stop = tmp_path / "run", StopFlag()
    stop.set()

    def attempt(config: Config) -> None:
        with open_tracker(TrackingConfig(uri="http://127.0.0.1:9"), tmp_path) as tracker, pytest.raises(PreemptedError):
            run_training(features, run, config, tracker=tracker, progress=Silent(), stop=stop)
        for checkpoint in (run / "checkpoints").glob("*"):
            checkpoint.unlink()

    attempt(tiny)
    attempt(tiny)
    attempt(override(tiny, {"training.seed": 1}))
    assert [start["anew"] for start in starts(tmp_path)][1:] == [False, True]


@pytest.mark.slow
def test_a_study_in_mlflow_holds_what_the_database_holds(mlflow_server, look, features, tiny, tmp_path):
    config = override(tiny, {"tracking.backend": "mlflow", "tracking.uri": mlflow_server.uri, "tracking.experiment": "study", "tuning.trials": 2})
    (tmp_path / "config.json").write_text(to_json(config))
    study = tmp_path / "study"
    assert main(["tune", str(features), str(study), "--config", str(tmp_path / "config.json")]) == 0
    assert main(["tracking", "flush", str(study)]) == 0
    seen = look(mlflow_server.uri, "study")
    parent = seen.run(json.loads((study / "tracking.json").read_text())["run"])
    assert parent.info.status == "FINISHED"
    trials = optuna.load_study(study_name="tacotron2", storage=f"sqlite:///{study}/study.db").trials
    assert len(seen.all()) == 1 + len(trials) == 3
    for trial in trials:
        run = seen.run(trial.user_attrs["tracking_run"]["run"])
        assert (run.info.status, run.info.run_name) == ("FINISHED", f"trial-{trial.number}")
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params.keys() == trial.params.keys()
        assert seen.history(run.data.tags["tts.key"], "objective") == sorted(trial.intermediate_values.items())
