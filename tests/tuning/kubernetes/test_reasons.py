import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.tuning.kubernetes.reasons import LONGEST, brief, counted, fate_of, indexes, waits_for

INDEX = {"batch.kubernetes.io/job-completion-index": "3"}


def pod(phase="Failed", *, metadata=None, **status):
    return {
        "metadata": {"name": "tts-voices-3-abcde", "uid": "u", "annotations": INDEX} | (metadata or {}),
        "spec": {"nodeName": "node-1", "containers": [{"name": "worker", "resources": {"limits": {"memory": "64Mi"}}}]},
        "status": {"phase": phase, **status},
    }  # fmt: skip


def container(**state):
    return {"containerStatuses": [{"name": "worker", "image": "tts:1", "state": state}]}


def terminated(code, reason="Error", **more):
    return container(terminated={"exitCode": code, "reason": reason, "startedAt": "2026-01-01T00:00:00Z", **more})


@given(st.sets(st.integers(0, 200)))
def test_indexes_are_read_as_kubernetes_writes_them(numbers):
    runs = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)

    assert indexes(text) == sorted(numbers)
    assert counted(text) == len(numbers)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (terminated(65, message="tts: bad"), "ended with exit code 65, bad data"),
        (terminated(3), "ended with exit code 3"),
        (terminated(137), "was killed by SIGKILL (exit code 137)"),
        (
            terminated(137, "OOMKilled"),
            (
                "was killed for its memory (OOMKilled, limit 64Mi); give it more in the pods' template or, in the pipeline, "
                "`python -m pipelines.compile --memory_limit`"
            ),
        ),
        (terminated(128, "StartError", message="exec: no such file"), "could not be started (StartError): exec: no such file"),
        ({"reason": "Evicted", "message": "low on\nmemory"}, "was ended by the cluster (Evicted): low on memory"),
        ({}, "failed, for a reason that the cluster does not tell"),
        (
            terminated(75) | {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "x"}]},
            "was evicted, as when its node is drained",
        ),
        (
            {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": "shutdown"}]},
            "was ended by its node: shutdown",
        ),
        ({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "New", "message": "x"}]}, "was disrupted: x"),
    ],
)
def test_how_a_pod_ended_is_told_in_words(status, reason):
    fate = fate_of(pod(**status))

    assert (fate.index, fate.pod, fate.reason) == (3, "tts-voices-3-abcde", reason)


def test_a_pod_that_was_deleted_says_so():
    fate = fate_of(pod(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}, **terminated(75)))

    assert str(fate) == "worker 3 was deleted, and ended with exit code 75 (pod tts-voices-3-abcde)"
    assert fate.code == 75


def test_last_words_are_the_pods_own_or_to_be_read_from_its_log():
    kept = fate_of(pod(**terminated(65, message="first\nlast words\n")))
    assert (kept.log, kept.container) == ("first\nlast words", "")
    assert str(kept).endswith("(pod tts-voices-3-abcde): last words")
    assert fate_of(pod(**terminated(65))).container == "worker"
    assert fate_of(pod(**terminated(128, "StartError", message="x"))).container == ""


def test_what_failed_first_counts_among_several_containers():
    both = {
        "initContainerStatuses": [{"name": "prepare", "image": "x", "state": {"terminated": {"exitCode": 4, "startedAt": "x"}}}],
        "containerStatuses": [{"name": "worker", "image": "x", "state": {"waiting": {"reason": "PodInitializing"}}}],
    }
    assert (fate_of(pod(**both)).code, fate_of(pod(**both)).container) == (4, "prepare")


def waiting(reason, message=""):
    return container(waiting={"reason": reason, "message": message})


UNSCHEDULABLE = {
    "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: 1 Insufficient gpu. preemption: 0/1 nodes: no",
}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({}, ""),
        (waiting("ContainerCreating"), ""),
        ({"conditions": [UNSCHEDULABLE]}, "0/1 nodes: 1 Insufficient gpu."),
        (waiting("ErrImagePull", "not found"), "image tts:1 cannot be pulled: not found"),
        (waiting("ImagePullBackOff", 'Back-off pulling image "tts:1": ErrImagePull: not found'), "image tts:1 cannot be pulled: not found"),
        (waiting("ErrImageNeverPull"), "image tts:1 cannot be pulled: ErrImageNeverPull"),
        (waiting("CreateContainerConfigError", 'secret "x" not found'), 'CreateContainerConfigError: secret "x" not found'),
    ],
)
def test_why_a_pod_waits_is_told_in_the_clusters_words(status, reason):
    assert waits_for(pod("Pending", **status)) == reason


def test_a_running_pod_whose_node_is_lost_is_not_ready():
    ready, lost = ({"conditions": [{"type": "Ready", "status": status}], **container(running={})} for status in ("True", "False"))

    assert waits_for(pod("Running", **ready)) == ""
    assert waits_for(pod("Running", **lost)) == "its node node-1 does not answer"


@given(st.text())
def test_a_message_is_one_line_of_bounded_length(text):
    line = brief(text)

    assert len(line) <= LONGEST
    assert line == " ".join(line.split())
