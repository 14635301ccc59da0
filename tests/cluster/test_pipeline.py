"""Every step of the compiled pipeline as a pod, with the pipeline's own image and command and the executor's input as the backend passes it.

Features, runs and reports go through a real S3 server, trials through a real Job and a PostgreSQL in the cluster.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.compile import compiled
from pipelines.placement import Placement, Resources
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import Images, Stack
from tests.cluster.kfp_run import WORKFLOWS, PipelineRun
from tests.conftest import TINY

OVERRIDES = {
    **TINY, "training.steps": 6, "tuning.knobs": ["optimiser.learning_rate"], "tuning.free_running_utterances": 1,
    "tracking.backend": "mlflow", "evaluation.max_mel_cepstral_distortion": 1000.0, "evaluation.min_stopped_share": 0.0,
    "evaluation.min_diagonality": 0.0,
}  # fmt: skip
SMALL = Resources("100m", "512Mi", "4Gi")
"""Two trials at a time, and the step that launched them, fit two cores beside the rest."""


@pytest.fixture(scope="module")
def run(cluster: Cluster, stack: Stack, images: Images, corpus: Path) -> Iterator[PipelineRun]:
    client = stack.store.client()
    for file in corpus.rglob("*"):
        if file.is_file():
            client.upload_file(str(file), stack.store.bucket, f"corpus/{file.relative_to(corpus).as_posix()}")
    cluster.apply(WORKFLOWS)
    cluster.kubectl("wait", "--for=condition=Established", "crd/workflows.argoproj.io", "--timeout=60s")
    overrides = {name: value for name, value in OVERRIDES.items() if name != "tuning.workers"}
    form = {
        "corpus": f"minio://{stack.store.bucket}/corpus", "preset": "demo", "trials": 3.0, "workers": 2.0, "gpus": "0",
        "overrides": json.dumps(overrides), "work": f"minio://{stack.store.bucket}/work",
        "node_selector": {"kubernetes.io/os": "linux"}, "tolerations": [{"key": "team", "operator": "Exists"}],
    }  # fmt: skip
    pipeline = compiled(Placement(image=images.tts, light=SMALL, heavy=SMALL, trials=SMALL))
    try:
        yield PipelineRun(cluster, stack.namespace, stack.store, pipeline, **form)
    finally:
        cluster.kubectl("delete", "crd", "workflows.argoproj.io", "--ignore-not-found")


def done(run: PipelineRun, task: str, **how: Any) -> str:
    phase, log = run.step(task, **how)
    assert phase == "Succeeded", log[-6000:]
    return log


def content(run: PipelineRun, task: str, output: str, name: str = "") -> bytes:
    key = run.outputs[task][output]["uri"].removeprefix(f"minio://{run.store.bucket}/") + (f"/{name}" if name else "")
    return run.store.client().get_object(Bucket=run.store.bucket, Key=key)["Body"].read()


@pytest.mark.timeout(900)
def test_the_pipeline_runs_as_pods(run: PipelineRun, cluster: Cluster) -> None:
    done(run, "prepare")
    features = run.outputs["prepare"]["features"]
    assert features["uri"].startswith(f"minio://{run.store.bucket}/v2/artifacts/"), "an artefact keeps the backend's URI"
    assert features["metadata"]["utterances"] == 20
    assert json.loads(content(run, "prepare", "features", "features.json"))["fingerprint"] == features["metadata"]["fingerprint"]

    jobs: dict[str, Any] = {}
    done(run, "tune", look=lambda: jobs.update({job["metadata"]["name"]: job for job in cluster.get("jobs", namespace=run.namespace)}))
    (job,) = jobs.values()
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("Workflow", run.name, False), "the Job goes with the run"
    pod = job["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    assert (job["spec"]["completions"], worker["image"]) == (2, run.image)
    assert worker["resources"]["limits"] == {"memory": SMALL.memory_limit, "nvidia.com/gpu": "0"}, "what the tune task asks for is the trials'"
    assert {"key": "team", "operator": "Exists"} in pod["tolerations"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert worker["args"][1] == features["uri"], "trials read the features where the backend keeps them"
    study = run.outputs["tune"]["study"]
    assert study["metadata"]["study"] == run.name
    assert run.outputs["tune"]["figures"]["metadata"]["trials_complete"] >= 1
    assert sum(value for name, value in run.outputs["tune"]["figures"]["metadata"].items() if name.startswith("trials_")) == 3
    assert b"<html" in content(run, "tune", "report")
    assert run.store.objects(f"work/runs/{run.name}/"), "trials keep their runs below work"
    assert run.store.objects(f"{study['uri'].removeprefix(f'minio://{run.store.bucket}/')}/runs") == [], "what reads the study fetches none of them"

    done(run, "train")
    assert run.outputs["train"]["figures"]["metadata"]["steps"] == 6
    assert json.loads(content(run, "train", "run", "run.json"))["state"] == "finished"
    assert run.outputs["train"]["run"]["metadata"]["framework"] == "pytorch"

    for task in ("diagnose", "evaluate", "register"):
        done(run, task)
    for task in ("diagnose", "evaluate"):
        assert b"<html" in content(run, task, "report")
    assert run.outputs["evaluate"]["figures"]["metadata"]["passed"] == 1.0
    assert json.loads(content(run, "register", "registration", "registration.json"))["champion"] is True


@pytest.mark.timeout(300)
def test_a_step_that_is_run_again_goes_on_from_work(run: PipelineRun) -> None:
    """As a pod that takes the place of an evicted one: another pod, with nothing but what the object store has."""
    assert "train: was done before" in done(run, "train")


@pytest.mark.timeout(300)
def test_a_cached_input_whose_objects_are_gone_is_told_in_the_store(run: PipelineRun) -> None:
    """The backend uploads nothing of a failed step, and loses its exit code."""
    gone = {**run.outputs["train"]["run"], "uri": f"minio://{run.store.bucket}/v2/artifacts/gone/run"}
    phase, log = run.step("diagnose", inputs={"run": gone})
    assert phase == "Failed"
    assert "the training run at" in log
    assert "Traceback" not in log.split("the training run at")[0]
    (note,) = run.store.objects("work/failures/")
    told = json.loads(run.store.client().get_object(Bucket=run.store.bucket, Key=note)["Body"].read())
    assert (told["step"], told["exit_code"], told["error"]) == ("diagnose", 65, "DataError")
    pages = [key for key in run.store.objects(f"v2/artifacts/smart-tuner-tts/{run.name}/diagnose/") if key.endswith("/report")]
    assert any(b"The step diagnose failed" in run.store.client().get_object(Bucket=run.store.bucket, Key=key)["Body"].read() for key in pages), (
        "the page is where the interface looks for it"
    )
