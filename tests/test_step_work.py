"""Steps whose `work` is in an object store: what is done is not done again, what is half done goes on, whatever became of the attempt before."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from kfp import dsl

from tests.s3_server import Bucket
from tts import step
from tts.config.load import flatten
from tts.errors import TtsError
from tts.step import cluster
from tts.step.ranks import train_together
from tts.storage import publish
from tts.training.run_folder import RunState, Totals, write_state

LONG = 100_000
"""Steps of a training that is killed before its end."""


def artefact(path: Path, kind=dsl.Artifact):
    return kind(name=path.name, uri=str(path))


@pytest.fixture
def overrides(tiny) -> str:
    return json.dumps({name: value for name, value in flatten(tiny).items() if name != "training.steps"} | {"training.checkpoint_interval": 2})


@pytest.fixture
def study(tmp_path) -> dsl.Artifact:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "best.yaml").write_text("optimiser:\n  learning_rate: 0.001\n")
    return artefact(folder)


def prepare(corpus: str, folder: Path, overrides: str, work: str) -> dsl.Dataset:
    features = artefact(folder, dsl.Dataset)
    step.prepare(corpus, features, artefact(folder.parent / "figures", dsl.Metrics), preset="demo", language="en", overrides=overrides, work=work)
    return features


def test_features_are_made_once_for_a_place_and_from_recordings_in_the_store(bucket: Bucket, corpus, overrides, tmp_path, caplog):
    publish(corpus, f"{bucket.uri}/corpus")
    work = f"{bucket.uri}/voices/anna"
    made = prepare(f"{bucket.uri}/corpus", tmp_path / "first" / "features", overrides, work)
    assert "voices/anna/features/features.json" in bucket.keys("voices/anna")
    caplog.set_level("INFO")
    again = prepare(f"{bucket.uri}/corpus", tmp_path / "second" / "features", overrides, work)
    assert "prepare: was done before" in caplog.text
    assert again.metadata == made.metadata
    assert (Path(again.path) / "features.json").read_bytes() == (Path(made.path) / "features.json").read_bytes()


def test_recordings_come_as_an_archive_too(bucket: Bucket, corpus, overrides, tmp_path):
    with tarfile.open(tmp_path / "anna.tar.gz", "w:gz") as archive:
        archive.add(corpus, arcname="anna")
    bucket.put("corpora/anna.tar.gz", (tmp_path / "anna.tar.gz").read_bytes())
    for number, place in enumerate((f"{bucket.uri}/corpora/anna.tar.gz", str(tmp_path / "anna.tar.gz"))):
        made = prepare(place, tmp_path / str(number) / "features", overrides, "")
        assert made.metadata["utterances"] == 20


def test_what_was_left_half_published_is_made_anew(bucket: Bucket, corpus, overrides, tmp_path, caplog):
    work = f"{bucket.uri}/voices/anna"
    bucket.put("voices/anna/features/.publishing.json", b'{"names": ["features.json"]}')
    bucket.put("voices/anna/features/features.json", b"half")
    made = prepare(str(corpus), tmp_path / "features", overrides, work)
    assert "this step begins anew" in caplog.text
    assert made.metadata["utterances"] == 20
    assert "voices/anna/features/.manifest.json" in bucket.keys("voices/anna/features/")


def test_a_failure_is_noted_in_the_store_until_an_attempt_ends_well(bucket: Bucket, corpus, overrides, tmp_path):
    work = f"{bucket.uri}/voices/anna"
    with pytest.raises(SystemExit):
        prepare(str(tmp_path / "missing"), tmp_path / "features", overrides, work)
    assert json.loads(bucket.get("voices/anna/failures/prepare.json"))["exit_code"] == 65
    prepare(str(corpus), tmp_path / "features", overrides, work)
    assert bucket.keys("voices/anna/failures/") == []


def test_the_study_of_a_place_is_known_by_all_its_runs(bucket: Bucket):
    assert cluster.study_name("run-a", f"{bucket.uri}/voices/anna") == "run-a"
    assert cluster.study_name("run-b", f"{bucket.uri}/voices/anna") == "run-a"
    assert cluster.study_name("run-b", f"{bucket.uri}/voices/inna") == "run-b"


TRAIN = """
import json, sys
from pathlib import Path
from kfp import dsl
from tts import step
features, study, run, steps, overrides, work = sys.argv[1:]
step.train(
    *(dsl.Artifact(name=Path(path).name, uri=path) for path in (features, study, run)), dsl.Metrics(name="figures", uri=run + "-figures"),
    preset="demo", training_steps=int(steps), gpus="0", overrides=overrides, tracking_uri="", work=work,
)
"""


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_from_the_last_state_in_the_store(bucket: Bucket, features, study, overrides, tmp_path):
    work = f"{bucket.uri}/voices/anna"

    def start(name: str, steps: int) -> "subprocess.Popen[bytes]":
        argv = [str(features), study.path, str(tmp_path / name / "run"), str(steps), overrides, work]
        (tmp_path / name).mkdir()
        return subprocess.Popen([sys.executable, "-c", TRAIN, *argv], env={**os.environ, "OMP_NUM_THREADS": "1"})

    def state() -> str:
        return bucket.get("voices/anna/run.state").decode().strip() if "voices/anna/run.state" in bucket.keys("voices/anna/") else ""

    first = start("first", LONG)
    try:
        end = time.monotonic() + 120
        while not state().endswith("/000002"):
            assert first.poll() is None
            assert time.monotonic() < end, "no second state within two minutes"
            time.sleep(0.1)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    left = state()
    reached = json.loads(bucket.get(f"{left.removeprefix(f'{bucket.uri}/')}/checkpoints/index.json"))["checkpoints"][-1]["step"]

    second = start("second", reached + 4)
    assert second.wait(timeout=120) == 0
    lines = [json.loads(line) for line in (tmp_path / "second" / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, reached + 5)), "no step twice, none left out"
    assert state() != left
    assert bucket.keys(left.removeprefix(f"{bucket.uri}/")) == [], "the state that was superseded is gone"

    third = start("third", reached + 4)
    assert third.wait(timeout=120) == 0
    assert (tmp_path / "third" / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "second" / "run" / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_training_on_several_devices_is_a_process_for_each(features, study, overrides, tmp_path, capfd):
    run, figures = artefact(tmp_path / "run", dsl.Model), artefact(tmp_path / "figures", dsl.Metrics)
    step.train(
        artefact(features), study, run, figures, preset="demo", training_steps=4, gpus="2",
        overrides=json.dumps({**json.loads(overrides), "training.device": "cpu"}), tracking_uri="", work="",
    )  # fmt: skip
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "finished"
    assert figures.metadata["steps"] == 4
    assert run.metadata["framework"] == "pytorch"


@pytest.mark.slow
@pytest.mark.parametrize("ended", ["preempted", "diverged"])
def test_processes_that_fail_do_not_end_as_the_attempt_before_them_did(tiny, tmp_path, ended):
    run = tmp_path / "run"
    run.mkdir()
    write_state(run, RunState(state=ended, step=2, fingerprint="", language="en", totals=Totals()))
    with pytest.raises(TtsError, match="ended with exit code") as failed:
        train_together(tmp_path / "missing", run, tiny, 2)
    assert failed.value.exit_code == 1
