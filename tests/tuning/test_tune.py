import json
import os
import re
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
import soundfile
import yaml
from mlflow import MlflowClient

from tts.config.load import flatten, override, read_config, to_json
from tts.errors import DataError, PreemptedError, TrainingDivergedError, TtsError, UsageError
from tts.progress import Silent
from tts.tracking import NoTracker, open_tracker
from tts.training.preemption import StopFlag
from tts.tuning.database.storage import storage_url
from tts.tuning.keep.archive import export_study
from tts.tuning.launch import Ended, Task, Workers
from tts.tuning.study import create_study, open_study
from tts.tuning.tune import _run, tune
from tts.tuning.work.worker import work

PROGRAM = """
import sys
from pathlib import Path
from tts.config.load import read_config
from tts.errors import TtsError
from tts.progress import Silent
from tts.tracking import NoTracker
from tts.training.preemption import listen
from tts.tuning.database.storage import storage_url
from tts.tuning.study import create_study, open_study
from tts.tuning.tune import tune

features, folder, config = map(Path, sys.argv[1:])
with listen() as stop:
    try:
        tune(features, folder, read_config(config), storage=None, name="voices", tracker=NoTracker(), progress=Silent(), stop=stop)
    except TtsError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
"""


class InThisProcess:
    """A launcher whose only worker runs to its end at once: real trials, without loading torch into one more process."""

    def __init__(self):
        self.ended = ()

    def start(self, task, workers):
        work(task.features, storage=task.storage, name=task.name, stop=StopFlag())
        self.ended = (Ended("worker 0", 0, ""),)

    def poll(self):
        return Workers(0, self.ended)

    def preempted(self):
        pass

    def stop(self):
        pass


def run(features, folder, config, **named):
    return tune(features, folder, config, storage=None, name="voices", tracker=NoTracker(), progress=Silent(), launcher=InThisProcess(), **named)


def alive(processes):
    """Those that have not ended. One that only waits for its new parent to fetch its exit code has."""
    return [process for process in processes if process.is_running() and status(process) != psutil.STATUS_ZOMBIE]


def status(process):
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_ZOMBIE


def budget(config, trials, **knobs):
    return override(config, {"tuning.trials": trials, **{f"tuning.{name}": value for name, value in knobs.items()}})


def test_a_study_leaves_its_results_says_when_it_is_done_and_can_be_extended(features, base, tmp_path):
    folder = tmp_path / "study"

    first = run(features, folder, budget(base, 2))
    files = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}
    again = run(features, folder, budget(base, 2))

    assert first.ran
    assert not again.ran
    assert again.params == first.params
    assert {name: (folder / name).stat().st_mtime_ns for name in files if name.endswith(("json", "html", "csv", "yaml"))}.items() >= {
        (name, files[name]) for name in ("study.json", "study.html", "trials.csv", "best.yaml")
    }
    assert sum(first.counts.values()) == 2

    extended = run(features, folder, budget(base, 3))

    assert extended.ran
    assert sum(extended.counts.values()) == 3
    assert extended.value <= first.value
    study = json.loads((folder / "study.json").read_text())
    assert study["best"]["number"] == extended.best
    assert [trial["number"] for trial in study["trials"]] == [0, 1, 2]
    assert len((folder / "trials.csv").read_text().splitlines()) == 4

    export_study(open_study(storage_url(folder, None), "voices"), tmp_path / "voices.json")
    warm = run(features, tmp_path / "warm", budget(base, 1), warm_start=tmp_path / "voices.json")
    study = json.loads((tmp_path / "warm" / "study.json").read_text())
    assert warm.best == 0
    assert len(study["trials"]) == 4
    assert sum(bool(trial["imported"]) for trial in study["trials"]) == 3


def test_the_best_configuration_is_a_file_for_training(features, base, tmp_path):
    summary = run(features, tmp_path / "study", budget(base, 2))

    values = yaml.safe_load(summary.best_file.read_text())
    config = read_config(summary.best_file, base)

    assert {f"{section}.{name}" for section, knobs in values.items() for name in knobs} == set(base.tuning.knobs)
    assert {name: flatten(config)[name] for name in base.tuning.knobs} == summary.params


def test_a_study_in_which_no_trial_completes_says_why(features, base, tmp_path):
    damaged = tmp_path / "features"
    shutil.copytree(features, damaged)
    content = (damaged / "mels.npy").read_bytes()
    header = len(content) - base.audio.mels * 4 * json.loads((damaged / "features.json").read_text())["frames"]
    (damaged / "mels.npy").write_bytes(content[:header] + b"\xff" * (len(content) - header))  # every float is NaN

    with pytest.raises(TrainingDivergedError, match=re.escape("no trial of study 'voices' completed (2 x metric mel_loss is nan at step 2)")):
        run(damaged, tmp_path / "study", budget(base, 2))

    assert not (tmp_path / "study" / "best.yaml").exists()
    assert [trial["state"] for trial in json.loads((tmp_path / "study" / "study.json").read_text())["trials"]] == ["fail", "fail"]
    assert "metric mel_loss is nan" in (tmp_path / "study" / "study.html").read_text()


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"tuning.objective": [{"metric": "val_loss"}]}, "'val_loss' is not a validation metric"),
        ({"tuning.knobs": ["optimiser.lr"]}, "'optimiser.lr' is not a knob"),
        ({"optimiser.warmup_steps": 2000}, "optimiser.warmup_steps is 2000, outside its search range"),
        ({"tuning.pruner_min_reports": 9}, "judges a trial first at step 18"),
        ({"audio.mels": 40}, "audio.mels is 40"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_made(features, base, tmp_path, knobs, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        run(features, tmp_path / "study", override(base, knobs))
    assert not (tmp_path / "study" / "study.db").exists()


def test_workers_that_all_end_early_are_reported_with_their_reason(features, base, tmp_path):
    class Broken(InThisProcess):
        def start(self, task, workers):
            self.ended = tuple(Ended(f"worker {number}", 65, "trial 0\nfeature store is damaged") for number in range(2))

    with pytest.raises(
        DataError, match=re.escape("no worker left after 0 finished trials (worker 0 ended with exit code 65: feature store is damaged;")
    ):
        tune(features, tmp_path / "study", base, storage=None, name="voices", tracker=NoTracker(), progress=Silent(), launcher=Broken())


def test_a_study_whose_workers_were_all_killed_was_preempted_and_goes_on(features, base, tmp_path):
    class Killed(InThisProcess):
        def __init__(self, *codes):
            self.ended = tuple(Ended(f"worker {number}", code, "") for number, code in enumerate(codes))

        def start(self, task, workers):
            pass

    def ending(*codes):
        with pytest.raises(TtsError, match="no worker left after 0 finished trials") as caught:
            tune(
                features, tmp_path / "study", base,
                storage=None, name="voices", tracker=NoTracker(), progress=Silent(), launcher=Killed(*codes),
            )  # fmt: skip
        return caught.value.exit_code

    assert ending(-signal.SIGKILL, -signal.SIGTERM) == PreemptedError.exit_code
    assert ending(-signal.SIGKILL, 1) == TtsError.exit_code  # a defect does not go away by itself
    assert ending(-signal.SIGKILL, 65) == DataError.exit_code


@pytest.mark.parametrize(("number", "ending"), [(signal.SIGTERM, PreemptedError), (signal.SIGINT, KeyboardInterrupt)])
def test_a_tune_that_is_stopped_while_its_database_is_away_ends_as_asked(make_study, features, postgres, caplog, number, ending):
    study = make_study(url=postgres.database())

    class Asked(StopFlag):
        """Once the waiting for the database has begun."""

        def __bool__(self):
            if "trying again" in caplog.text:
                self.set(number)
            return super().__bool__()

    class LosesItsDatabase(InThisProcess):
        def start(self, task, workers):
            pass

        def poll(self):
            postgres.stop()
            return Workers(1, ())

    try:
        with pytest.raises(ending, match="study 'voices' stopped while its database was away"):
            _run(study, LosesItsDatabase(), Task(str(features), study.url, "voices"), 1, Silent(), Asked())
    finally:
        postgres.start()


def test_a_study_that_goes_on_continues_its_run_but_not_one_of_another_store(features, base, tmp_path):
    def parents(config, folder):
        tracker = open_tracker(config.tracking, folder)
        tune(
            features, tmp_path / "study", config,
            storage=None, name="voices", tracker=tracker, progress=Silent(), launcher=InThisProcess(), tracking_folder=folder,
        )  # fmt: skip
        lines = [json.loads(line) for line in (folder / "tracking.jsonl").read_text().splitlines()]
        starts = [line for line in lines if line["kind"] == "start" and line["name"] == "voices"]
        trials = [line for line in lines if line["kind"] == "start" and line["name"].startswith("trial-")]
        assert {line["parent"] for line in trials} == {line["run"] for line in starts}
        return [line["run"] for line in starts], {line["name"] for line in trials}

    config = override(base, {"tracking.backend": "jsonl"})
    first, _ = parents(budget(config, 1), tmp_path / "a")
    second, _ = parents(budget(config, 2), tmp_path / "a")
    elsewhere, trials = parents(budget(config, 3), tmp_path / "b")

    assert second == first * 2
    assert elsewhere[0] not in first
    assert trials == {"trial-2"}


@pytest.mark.slow
def test_a_second_worker_joins_a_study_on_a_server_and_both_end_with_it(features, base, tmp_path, until, postgres):
    url, folder, config = postgres.database(), tmp_path / "study", tmp_path / "config.json"
    config.write_text(to_json(budget(base, 2, pruner="none")))
    environment = {**os.environ, "TTS_STORAGE": url}

    def start(*arguments):
        line = [sys.executable, "-m", "tts.cli", *map(str, arguments)]
        return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    tuning = start("tune", features, folder, "--study", "voices", "--config", config, "--workers", "1", "--trials", "9999")
    until((folder / "tracking.json").exists)
    joined = start("worker", features, "--study", "voices")
    study = open_study(url, "voices")
    until(lambda: len({trial.user_attrs["worker"] for trial in study.trials.trials if trial.state.name == "COMPLETE"}) == 2)
    plan = study.plan
    last = len(study.trials.trials) + 2
    create_study(url, "voices", plan.model_copy(update={"config": budget(plan.config, last)}))  # as another `tts tune` would
    second, second_errors = joined.communicate()
    first, first_errors = tuning.communicate()

    assert (tuning.returncode, joined.returncode) == (0, 0), first_errors + second_errors
    assert f"ended: all {last} trials (tuning.trials) are finished" in first
    assert re.search(rf"finished \d+ trials of study voices; it is at its end: all {last} trials \(tuning.trials\) are finished", second)
    assert [trial.state.name for trial in study.trials.trials] == ["COMPLETE"] * last
    assert not (folder / "study.db").exists()
    files = "".join(path.read_text() for path in folder.rglob("*") if path.suffix in (".json", ".log"))
    assert "s3cret" not in first + second + first_errors + second_errors + files


@pytest.mark.slow
def test_nothing_is_lost_by_ctrl_c_by_a_killed_tune_or_by_a_killed_worker(features, base, tmp_path, until):
    folder, config = tmp_path / "study", tmp_path / "config.json"

    def start(workers):
        config.write_text(to_json(budget(base, 3, steps=12, validation_interval=3, workers=workers, pruner="none")))
        return subprocess.Popen([sys.executable, "-c", PROGRAM, str(features), str(folder), str(config)], stderr=subprocess.PIPE, text=True)

    def trials():
        return study.trials.get_trials(deepcopy=False)

    def reported(number):
        """A trial under way that has reported, in a process, at least `number` reports over all trials."""
        return sum(len(trial.intermediate_values) for trial in trials()) >= number and any(trial.state.name == "RUNNING" for trial in trials())

    def family(process):
        return psutil.Process(process.pid).children(recursive=True)

    interrupted = start(workers=1)
    until((folder / "tracking.json").exists)
    study = open_study(storage_url(folder, None), "voices")
    until(lambda: reported(1))
    processes = family(interrupted)
    interrupted.send_signal(signal.SIGINT)
    _, errors = interrupted.communicate()
    assert (interrupted.returncode, errors) == (130, "")
    until(lambda: not alive(processes))
    assert {trial.state.name for trial in trials()} <= {"WAITING", "COMPLETE"}
    before = sum(len(trial.intermediate_values) for trial in trials())

    killed = start(workers=1)
    until(lambda: reported(before + 1))
    processes = family(killed)
    killed.kill()
    killed.communicate()
    until(lambda: not alive(processes))
    before = sum(len(trial.intermediate_values) for trial in trials())

    last = start(workers=2)
    until(lambda: reported(before + 1))
    workers = [process for process in psutil.Process(last.pid).children() if "tts.tuning" in process.cmdline()]
    assert len(workers) == 2
    os.kill(workers[0].pid, signal.SIGKILL)
    _, errors = last.communicate()

    assert (last.returncode, errors) == (0, "worker 0 was killed by SIGKILL; it is started again\n")
    finished = trials()
    assert [trial.state.name for trial in finished] == ["COMPLETE"] * 3
    assert [list(trial.intermediate_values) for trial in finished] == [[3, 6, 9, 12]] * 3
    assert any("handed back at its checkpoint" in trial.user_attrs.get("interruptions", []) for trial in finished)
    for trial in finished:
        lines = [json.loads(line) for line in (folder / "trials" / str(trial.number) / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 13))


def test_the_best_trial_is_heard(features, base, tmp_path):
    config = budget(override(base, {"tracking.backend": "jsonl"}), 2)
    folder = tmp_path / "study"
    with open_tracker(config.tracking, folder) as tracker:
        made = tune(features, folder, config, storage=None, name="voices", tracker=tracker, progress=Silent(), launcher=InThisProcess())

    lines = [json.loads(line) for line in (folder / "tracking.jsonl").read_text().splitlines()]
    of_best = {line["run"] for line in lines if line["kind"] == "start" and line["name"] == f"trial-{made.best}"}
    assert [line["folder"] for line in lines if line["kind"] == "artefact" and line["run"] in of_best] == ["best"]
    assert soundfile.info(folder / "best" / "speech.wav").samplerate == base.audio.sample_rate
    assert (folder / "best" / "alignment.svg").read_text().startswith("<svg")


@pytest.mark.slow
def test_from_another_folder_a_study_goes_on_under_the_run_that_a_server_keeps(features, base, tmp_path, postgres_url, mlflow_server, bucket):
    at = {
        "tracking.backend": "mlflow",
        "tracking.uri": mlflow_server.uri,
        "tracking.experiment": "two folders",
        "tuning.runs_uri": f"{bucket.uri}/runs",
    }
    for folder, trials in ((tmp_path / "a", 1), (tmp_path / "b", 2)):
        config = budget(override(base, at), trials)
        with open_tracker(config.tracking, folder) as tracker:
            tune(features, folder, config, storage=postgres_url, name="voices", tracker=tracker, progress=Silent(), launcher=InThisProcess())

    client = MlflowClient(mlflow_server.uri)
    runs = client.search_runs([client.get_experiment_by_name("two folders").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs if run is not parent} == {parent.info.run_id}
    assert (len(runs), parent.data.tags["trials.complete"], parent.info.status) == (3, "2", "FINISHED")


def test_a_study_whose_hours_are_over_ends_well_and_says_so(features, base, tmp_path):
    config = budget(base, 30, steps=40, heartbeat_seconds=0.05, hours=0.5 / 3600, pruner="none")
    with pytest.raises(UsageError, match=re.escape("its 0.000138889 hours (tuning.hours) are over before a trial completed; give it more")):
        run(features, tmp_path / "study", config)

    more = run(features, tmp_path / "study", budget(base, 1, steps=40, heartbeat_seconds=0.05, pruner="none"))

    assert more.spent == "all 1 trials (tuning.trials) are finished"
    assert more.counts == {"complete": 1}
