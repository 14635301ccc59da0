"""A pipeline's step: the form's fields, the folder that stays, the end with the pipeline, and why it failed."""

import fcntl
import json
import logging
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kfp import dsl

from tts import step
from tts.chain import Stage
from tts.config.load import flatten
from tts.errors import DataError, UsageError
from tts.step import cluster, stages
from tts.step.artefact import input_folder, output_folder
from tts.step.edge import end, running
from tts.step.failure import record
from tts.tuning.kubernetes.merge import merged

NOTHING = {"preset": "", "language": "", "overrides": "", "work": ""}


def artefact(path, kind=dsl.Artifact):
    """As kfp.local hands it over: its URI is its path."""
    return kind(name=Path(path).name, uri=str(path))


def uploaded(name, kind=dsl.Artifact, **metadata):
    """As a cluster hands it over."""
    return kind(name=name, uri=f"minio://mlpipeline/v2/artifacts/p/run/task/uuid/{name}", metadata=metadata)


def test_an_output_is_made_in_its_own_folder_or_below_work(tmp_path):
    assert output_folder(artefact("/artefacts/features"), "", "features") == Path("/artefacts/features")
    here = artefact("/artefacts/features")
    assert output_folder(here, str(tmp_path), "features") == tmp_path / "features" == Path(here.path)
    assert output_folder(artefact("/artefacts/features"), "s3://voices/anna", "features") == Path("/artefacts/features")


def test_a_clusters_artefact_keeps_its_uri_and_is_uploaded_from_the_work_folder(tmp_path):
    there = uploaded("features")
    assert output_folder(there, str(tmp_path), "features") == tmp_path / "features"
    assert (there.uri, there.custom_path) == (uploaded("features").uri, str(tmp_path / "features"))
    plain = uploaded("features")
    assert output_folder(plain, "", "features") == Path("/minio/mlpipeline/v2/artifacts/p/run/task/uuid/features")
    assert plain.custom_path == ""


def test_an_input_whose_objects_were_deleted_is_told_as_such(tmp_path):
    gone = artefact(tmp_path / "features")
    for _ in range(2):
        with pytest.raises(DataError, match=r"the features at .* are gone: .*--no_cache"):
            input_folder(gone, "features")
        (tmp_path / "features").mkdir(exist_ok=True)
    (tmp_path / "features" / "features.json").touch()
    assert input_folder(gone, "features") == tmp_path / "features"


def test_the_forms_fields_and_overrides_reach_the_features(corpus, tiny, tmp_path):
    overrides = json.dumps(flatten(tiny) | {"text.unknown_symbol": "drop"})
    features, figures = artefact(tmp_path / "features", dsl.Dataset), artefact(tmp_path / "figures", dsl.Metrics)
    step.prepare(str(corpus), features, figures, preset="demo", language="en", overrides=overrides, work="")
    assert figures.metadata["utterances"] == 20.0
    assert features.metadata["utterances"] == 20.0
    stored = json.loads((tmp_path / "features" / "config.json").read_text())
    assert stored["text"] == {"language": "en", "unknown_symbol": "drop"}
    assert stored["model"]["prenet"] == tiny.model.prenet
    assert features.metadata["fingerprint"] == json.loads((tmp_path / "features" / "features.json").read_text())["fingerprint"]


def test_whole_numbers_arrive_as_the_backend_writes_them_and_others_are_refused():
    assert stages.configuration(None, "demo", "", {"tuning.trials": 20.0, "tuning.workers": 0, "text.language": ""}).tuning.trials == 20
    with pytest.raises(UsageError, match=r"tuning\.trials.*5\.5"):
        stages.configuration(None, "demo", "", {"tuning.trials": 5.5})


@pytest.mark.parametrize(("gpus", "number"), [("0", 0), ("4", 4), (2, 2), (" 1 ", 1)])
def test_gpus_are_a_number(gpus, number):
    assert stages.devices(gpus) == number


@pytest.mark.parametrize("gpus", ["", "-1", "1.5", "two", "²"])
def test_gpus_that_are_no_number_are_refused(gpus):
    with pytest.raises(UsageError, match="gpus must be a whole number"):
        stages.devices(gpus)


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"overrides": '{"training.stepz": 3}'}, 64, "did you mean training.steps?"),
        ({"overrides": "steps=3"}, 64, "overrides must be a JSON object"),
        ({"preset": "big"}, 64, "preset 'big' is not known"),
        ({"language": "fr"}, 64, "text.language"),
        ({}, 65, "does not exist"),
    ],
)
def test_an_error_is_one_line_an_exit_code_and_a_note_beside_the_output(tmp_path, caplog, fields, code, message):
    features, figures = artefact(tmp_path / "task" / "features", dsl.Dataset), artefact(tmp_path / "figures", dsl.Metrics)
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as stop:
        step.prepare(str(tmp_path / "missing"), features, figures, **(NOTHING | fields))
    assert stop.value.code == code
    assert [record.getMessage() for record in caplog.records if message in record.getMessage()]
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()] == [Path("task/prepare-failure.json")]
    noted = json.loads((tmp_path / "task" / "prepare-failure.json").read_text())
    assert noted["exit_code"] == code
    assert message in noted["message"]


def test_a_step_that_ends_well_takes_back_what_was_noted_of_the_attempt_before(tmp_path):
    output = artefact(tmp_path / "out" / "diagnostics")
    for work in ("", str(tmp_path / "work")):
        with pytest.raises(SystemExit), running("diagnose", output, work):
            raise DataError("the first attempt")
        assert len(list(tmp_path.rglob("*diagnose*.json"))) == 1
        with running("diagnose", output, work):
            pass
        assert list(tmp_path.rglob("*diagnose*.json")) == []


@pytest.fixture
def no_store(monkeypatch, tmp_path):
    """Nothing says how an object store is reached."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "TTS_S3_SECRET_DIR", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "us-east-1")


def test_a_step_that_did_its_work_ends_well_though_the_store_of_notes_cannot_be_asked(no_store, caplog):
    with running("diagnose", uploaded("diagnostics"), ""):
        pass
    assert "whether an earlier attempt left a failure cannot be seen" in caplog.text


def test_a_failure_that_cannot_be_noted_is_what_the_step_ends_with(no_store, caplog):
    for work in ("", "gs://voices/anna"):
        caplog.clear()
        with pytest.raises(SystemExit) as stop, running("diagnose", uploaded("diagnostics"), work):
            raise DataError("the clip is broken")
        assert stop.value.code == (64 if work else 65)
        assert "why the step failed could not be written" in caplog.text


def test_the_page_says_why_there_is_none_and_lets_nobody_write_html_into_it(tmp_path):
    page = artefact(tmp_path / "page", dsl.HTML)
    record(DataError("clip <b>7</b> is broken"), 65, stage="tune", output=artefact(tmp_path / "study"), page=page, work="")
    text = (tmp_path / "page").read_text()
    assert "clip &lt;b&gt;7&lt;/b&gt; is broken" in text
    assert "<h1>The step tune failed</h1>" in text


def test_a_defect_is_noted_too_and_keeps_its_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError), running("tune", artefact(tmp_path / "study"), ""):
        raise ZeroDivisionError("a defect")
    assert json.loads((tmp_path / "tune-failure.json").read_text())["exit_code"] == 1


def test_the_page_becomes_the_artefact(trained, tmp_path):
    report, figures = artefact(tmp_path / "artefacts" / "page", dsl.HTML), artefact(tmp_path / "figures", dsl.Metrics)
    step.diagnose(artefact(trained, dsl.Model), artefact(tmp_path / "diagnostics"), report, figures, work="")
    assert Path(report.path).read_bytes() == (tmp_path / "diagnostics" / "diagnostics.html").read_bytes()
    assert figures.metadata["mel_loss"] > 0


def test_figures_that_are_not_finite_stay_behind():
    stage = Stage("train", Path("run"), done_before=False, figures={"loss": 1, "mel_loss": math.nan, "gate_loss": math.inf})
    assert end(stage) == {"loss": 1.0}


def test_nothing_is_tracked_where_nothing_would_last(monkeypatch, tiny, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = tiny.model_copy(update={"tracking": tiny.tracking.model_copy(update={"backend": "jsonl"})})

    def kind(work: str, output: str, **fields: bool) -> str:
        return type(stages.tracking(config, work, output, **fields)[0]).__name__

    assert kind("", "") == "NoTracker"
    assert kind("s3://voices/anna", "") == "NoTracker"
    assert kind(str(tmp_path), "") == "JsonLinesTracker"
    assert kind("", str(tmp_path), shared=False) == "NoTracker", "trial pods do not see the folder"


def test_a_study_is_named_by_the_run_and_stays_that_of_its_work_folder(tmp_path):
    assert cluster.study_name("smart-tuner-tts-x7k2p", "") == "smart-tuner-tts-x7k2p"
    assert cluster.study_name("smart-tuner-tts-x7k2p", str(tmp_path)) == "smart-tuner-tts-x7k2p"
    assert cluster.study_name("smart-tuner-tts-another", str(tmp_path)) == "smart-tuner-tts-x7k2p"
    (tmp_path / "study.name").write_text("Not a label\n")
    with pytest.raises(DataError, match="should name a study, and says 'Not a label'"):
        cluster.study_name("smart-tuner-tts-another", str(tmp_path))
    with pytest.raises(UsageError, match="compile the pipeline anew"):
        cluster.study_name("", "")


def test_names_that_are_no_labels_stay_apart():
    names = ["Anna's voice", "anna-s-voice", "anna s voice", "x" * 60, "x" * 61, "Анна", "Инна"]
    labels = [cluster.label(name) for name in names]
    assert len(set(labels)) == len(names)
    for label in labels:
        assert 0 < len(label) <= cluster.LONGEST_NAME
        assert label == cluster.label(label), "a label of a label is the same"
        assert label.replace("-", "").isalnum()
        assert label.isascii()


def test_trials_keep_their_runs_below_work_or_beside_the_study(tmp_path):
    assert cluster.runs_uri(uploaded("study"), "s3://voices/anna") == "s3://voices/anna/runs"
    beside = cluster.runs_uri(uploaded("study"), "")
    assert beside == "minio://mlpipeline/v2/artifacts/p/run/task/uuid/runs", "what reads the study does not fetch its trials' runs"
    assert cluster.runs_uri(uploaded("study"), str(tmp_path)) == beside
    with pytest.raises(UsageError, match="need an object store"):
        cluster.runs_uri(artefact(tmp_path / "study"), "")


def test_the_stores_address_is_taken_from_what_the_backend_notes(monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.setenv(name, "")  # monkeypatch then puts back whatever the step sets
    params = {"endpoint": "seaweedfs.kubeflow:9000", "disableSSL": "true", "region": "minio", "secretName": "mlpipeline-minio-artifact"}
    taken = cluster.use_store_of(uploaded("features", store_session_info=json.dumps({"Provider": "minio", "Params": params})))
    handed_on = cluster.placement_of({"env": [{"name": "A", "value": "1"}], "resources": None, "tolerations": []}, taken)
    assert handed_on == {
        "env": [
            {"name": "A", "value": "1"},
            {"name": "AWS_ENDPOINT_URL", "value": "http://seaweedfs.kubeflow:9000"},
            {"name": "AWS_REGION", "value": "minio"},
        ]
    }
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "")
    taken = cluster.use_store_of(
        uploaded("features", store_session_info=json.dumps({"Params": params})), uploaded("study", store_session_info="no JSON")
    )
    assert "AWS_ENDPOINT_URL" not in [entry["name"] for entry in cluster.placement_of({}, taken)["env"]], "the environment's own address stays"


REFERENCES = {
    "AWS_ACCESS_KEY_ID": {"secretKeyRef": {"name": "tts-object-store", "key": "accesskey", "optional": True}},
    "AWS_ENDPOINT_URL": {"secretKeyRef": {"name": "tts-object-store", "key": "endpoint", "optional": True}},
    "AWS_REGION": {"secretKeyRef": {"name": "tts-object-store", "key": "region", "optional": True}},
    "MLFLOW_TRACKING_URI": {"configMapKeyRef": {"name": "tts-tracking", "key": "MLFLOW_TRACKING_URI", "optional": True}},
}
"""As the compiled pipeline sets them on the tune task, whether or not their objects hold the key."""


@pytest.mark.parametrize("noted", [False, True])
def test_trial_pods_get_the_references_that_led_somewhere_and_the_address_that_was_found(monkeypatch, noted):
    for name in REFERENCES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)  # put back to what it was, whatever the step sets
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anna")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    params = {"endpoint": "seaweedfs.kubeflow:9000", "disableSSL": "true", "region": "minio"}
    taken = cluster.use_store_of(uploaded("features", **({"store_session_info": json.dumps({"Params": params})} if noted else {})))
    placed = cluster.placement_of({"env": [{"name": name, "valueFrom": source} for name, source in REFERENCES.items()]}, taken)

    template = [{"name": "AWS_ENDPOINT_URL", "value": "http://platform:9000"}, {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow"}]
    pod = {entry.pop("name"): entry for entry in merged({"env": template}, placed)["env"]}
    assert pod == {
        "AWS_ENDPOINT_URL": {"value": "http://seaweedfs.kubeflow:9000" if noted else "http://platform:9000"},
        "MLFLOW_TRACKING_URI": {"value": "http://mlflow"},
        "AWS_ACCESS_KEY_ID": {"valueFrom": REFERENCES["AWS_ACCESS_KEY_ID"]},
        "AWS_REGION": {"valueFrom": REFERENCES["AWS_REGION"]},
    }


def test_pods_are_for_a_cluster_unless_the_form_says_otherwise(monkeypatch):
    monkeypatch.delenv(cluster.POD, raising=False)
    assert [stages.on_pods(launcher) for launcher in ("", "local", "kubernetes")] == [False, False, True]
    monkeypatch.setenv(cluster.POD, "smart-tuner-tts-x7k2p-1")
    assert [stages.on_pods(launcher) for launcher in ("", "local", "kubernetes")] == [True, False, True]
    with pytest.raises(UsageError, match="launcher must be kubernetes or local"):
        stages.on_pods("slurm")


def test_pods_without_a_database_server_are_refused_with_the_secret_that_is_missing(monkeypatch):
    monkeypatch.delenv("TTS_STORAGE", raising=False)
    with pytest.raises(UsageError, match="Secret tts-study") as refused:
        cluster.storage(pods=True)
    assert "--from-file=storage=/dev/stdin" in str(refused.value), "a password on a command line is in the shell's history"
    assert "--from-literal" not in str(refused.value)
    monkeypatch.setenv("TTS_STORAGE", "postgresql://tuner:secret@db/studies")
    assert cluster.storage(pods=True) == "postgresql://tuner:secret@db/studies"


def test_trials_of_the_steps_own_pod_have_a_database_of_their_own(monkeypatch, features, tiny, tmp_path):
    """The Secret is the same in all runs of a namespace, and so is the name of a study that one folder holds."""
    shared = tmp_path / "shared.db"
    monkeypatch.setenv(cluster.POD, "smart-tuner-tts-x7k2p-1")
    monkeypatch.setenv("TTS_STORAGE", f"sqlite:///{shared}")
    for name in ("first", "second"):
        study, report = artefact(tmp_path / name / "study"), artefact(tmp_path / name / "page", dsl.HTML)
        figures = artefact(tmp_path / name / "figures", dsl.Metrics)
        step.tune(
            artefact(features), study, report, figures, preset="demo", trials=1, workers=1, gpus="0", launcher="local",
            overrides=json.dumps(flatten(tiny) | {"tuning.trials": 1, "tracking.backend": "none"}), tracking_uri="", work="",
            workflow=f"smart-tuner-tts-{name}", image="", placement={},
        )  # fmt: skip
        assert figures.metadata["trials_complete"] == 1
        assert (tmp_path / name / "study" / "workers").is_dir(), "this run's own trial, not one of the run before"
    assert not shared.exists()


STEP = """
import signal, sys
from pathlib import Path
from tts.step.alone import alone
with alone(Path(sys.argv[1])):
    print("running", flush=True)
    signal.pause()
"""


def test_a_step_ends_with_the_pipeline_that_started_it(tmp_path: Path):
    """The lock is held by this process, as by a pipeline's; letting it go is what the kernel does when its holder is killed."""
    with (tmp_path / step.PIPELINE_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen([sys.executable, "-c", STEP, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        assert process.poll() is None
    assert process.wait(timeout=60) == -signal.SIGTERM
    process.stdout.close()


def test_a_step_waits_for_one_that_is_still_ending(tmp_path: Path):
    program = STEP.replace("with alone", 'print("starting", flush=True)\nwith alone').replace(
        'print("running"', 'print("ended" if (Path(sys.argv[1]) / "ended").exists() else "too early"'
    )
    with (tmp_path / step.STEP_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "starting\n"
        (tmp_path / "ended").touch()
    assert process.stdout.readline() == "ended\n"
    process.terminate()
    process.wait(timeout=60)
    process.stdout.close()
