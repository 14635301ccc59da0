"""The end of a pipeline's step that launches workers, on a real cluster: whether its Job ends with it."""

import json
import os
import signal
import subprocess
import sys
from uuid import uuid4

import pytest

from tests.cluster.cluster import eventually, kubectl, pod
from tests.cluster.kfp_run import WORKFLOWS
from tests.cluster.launching import FOREVER, room
from tts.config.load import to_json
from tts.errors import PreemptedError

__all__ = ["room"]  # a fixture

STEP = """
import sys, time
from pathlib import Path
from tts.config.load import from_mapping
import json
from tts.tuning.kubernetes.launcher import KubernetesLauncher
from tts.tuning.kubernetes.termination import on_termination, own_pod
from tts.tuning.launch import Task

launcher = KubernetesLauncher.of(from_mapping(json.loads(Path(sys.argv[1]).read_text()), "step"), owner=sys.argv[3])
with on_termination(launcher, own_pod()):
    launcher.start(Task("s3://bucket/features", "", sys.argv[2]), 1)
    print("started", flush=True)
    while True:
        launcher.poll()
        time.sleep(1000)
"""


@pytest.fixture
def step(room, tmp_path):
    """Starts a step that launches workers, in a process here; its pod stands beside it. Its Job is gone at the end."""
    begun = []

    def start(owner=""):
        room.cluster.apply(pod("step", room.image, ["sh", "-c", "trap '' TERM; sleep 60"]), namespace=room.namespace)
        eventually(lambda: room.cluster.phase("step", room.namespace) == "Running", "the step's pod runs")
        (tmp_path / "config.json").write_text(to_json(room.config(FOREVER)))
        command = [sys.executable, "-c", STEP, tmp_path / "config.json", "voices", owner]
        begun.append(subprocess.Popen(command, env=os.environ | {"KFP_POD_NAME": "step"}, stdout=subprocess.PIPE, text=True))
        assert begun[0].stdout.readline() == "started\n"
        assert len(room.jobs()) == 1
        return begun[0]

    yield start
    for process in begun:
        process.kill()
        process.wait()
    room.cluster.end_jobs(room.namespace)


def jobs_after_sigterm(room, process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == PreemptedError.exit_code
    assert process.stdout.read() == ""
    return len([job for job in room.jobs() if not job.metadata.deletion_timestamp])


@pytest.mark.parametrize("evicted", [False, True])
def test_a_step_that_ends_on_sigterm_and_knows_no_run_keeps_its_job_if_its_pod_is_deleted(room, step, evicted):
    process = step()
    if evicted:
        room.cluster.core.delete_namespaced_pod("step", room.namespace, grace_period_seconds=30)

    assert jobs_after_sigterm(room, process) == (1 if evicted else 0)


@pytest.fixture
def workflow(room):
    """The Workflow of a run, whose kind is made where Argo is not installed; it is held until the end when it is deleted."""
    kind, name = "crd/workflows.argoproj.io", f"run-{uuid4().hex[:6]}"
    installed = kubectl("get", kind).returncode == 0
    if not installed:
        room.cluster.apply(WORKFLOWS)
    room.cluster.kubectl("wait", "--for=condition=Established", kind, "--timeout=60s")
    held = {"name": name, "finalizers": ["smart-tuner-tts.test/held"]}
    room.cluster.apply({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": held, "spec": {}}, namespace=room.namespace)

    def change(**said):
        room.cluster.kubectl("patch", "workflow", name, "--namespace", room.namespace, "--type", "merge", "--patch", json.dumps(said))

    yield name, change
    room.cluster.end_jobs(room.namespace)
    if kubectl("get", "workflow", name, "--namespace", room.namespace).returncode == 0:
        change(metadata={"finalizers": None})
        room.cluster.kubectl("delete", "workflow", name, "--namespace", room.namespace, "--ignore-not-found")
    others = kubectl("get", "workflows.argoproj.io", "--all-namespaces", "--output", "name").stdout
    if not installed and not others:
        room.cluster.kubectl("delete", kind, "--ignore-not-found")


@pytest.mark.parametrize("evicted", [False, True])
def test_a_step_whose_run_goes_on_leaves_its_job_however_its_pod_ends(room, step, workflow, evicted):
    """A node that is short of memory or shuts down ends pods without deleting them."""
    name, change = workflow
    change(spec={"activeDeadlineSeconds": 3600})
    process = step(name)
    if evicted:
        room.cluster.core.delete_namespaced_pod("step", room.namespace, grace_period_seconds=30)

    assert jobs_after_sigterm(room, process) == 1


@pytest.mark.parametrize("ending", ["terminated", "shut down", "being deleted", "gone"])
def test_a_step_whose_run_was_terminated_takes_its_job_along(room, step, workflow, ending):
    name, change = workflow
    process = step(name)
    if ending == "terminated":
        change(spec={"activeDeadlineSeconds": 0})  # as Kubeflow does
    elif ending == "shut down":
        change(spec={"shutdown": "Terminate"})
    else:
        if ending == "gone":
            (job,) = room.jobs()
            orphan = {"metadata": {"ownerReferences": None}}  # or its owner would take it along
            room.cluster.batch.patch_namespaced_job(job.metadata.name, room.namespace, orphan)
            change(metadata={"finalizers": None})
        room.cluster.kubectl("delete", "workflow", name, "--namespace", room.namespace, "--wait=false")
        eventually(lambda: ending != "gone" or kubectl("get", "workflow", name, "--namespace", room.namespace).returncode, "it is gone")
    assert len(room.jobs()) == 1

    assert jobs_after_sigterm(room, process) == 0
