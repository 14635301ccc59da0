import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.config.load import override
from tts.errors import UsageError
from tts.tuning.kubernetes.job import build
from tts.tuning.kubernetes.names import INSTANCE
from tts.tuning.kubernetes.template import Template, read_template
from tts.tuning.launch import Task

TASK = Task("s3://bucket/features", "postgresql://tuner:hush@db/studies", "My Voice")
DEFAULT = read_template("")


def job(tiny, knobs=None, *, template=DEFAULT, task=TASK, workers=2, **said):
    return build(task, workers, override(tiny, knobs or {}), template, **said)


def pod_of(made):
    spec = made["spec"]["template"]["spec"]
    return spec, spec["containers"][0]


def test_the_job_is_one_index_for_each_worker_and_counts_failures_by_what_they_are(tiny):
    made = job(tiny, {"cluster.pod_retries": 4, "cluster.deadline_hours": 0.5, "cluster.ttl_seconds": 7, "cluster.grace_seconds": 45})
    spec = made["spec"]

    assert {name: value for name, value in spec.items() if name not in ("template", "podFailurePolicy")} == {
        "completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimitPerIndex": 4, "maxFailedIndexes": 2,
        "podReplacementPolicy": "Failed", "activeDeadlineSeconds": 1800, "ttlSecondsAfterFinished": 7,
    }  # fmt: skip
    assert spec["podFailurePolicy"]["rules"] == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailIndex", "onExitCodes": {"containerName": "worker", "operator": "In", "values": [64, 70]}},
    ]
    pod, container = pod_of(made)
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 45)
    assert container["args"] == ["worker", "s3://bucket/features", "--study", "My Voice", "--launched", "--node_cache", "/var/cache/tts"]
    assert spec["template"]["metadata"]["labels"].items() >= made["metadata"]["labels"].items()
    assert "hush" not in json.dumps(made)


@pytest.mark.parametrize(("each", "trials", "pods"), [(1, 30, 30), (4, 30, 8), (100, 30, 1)])
def test_with_a_few_trials_for_each_pod_there_are_as_many_indexes_as_that_takes(tiny, each, trials, pods):
    spec = job(tiny, {"tuning.trials_per_pod": each, "tuning.trials": trials}, workers=4)["spec"]

    assert (spec["completions"], spec["parallelism"]) == (pods, min(4, pods))
    assert spec["maxFailedIndexes"] <= max(4, pods)
    assert pod_of({"spec": spec})[1]["args"][-2:] == ["--trials_per_pod", str(each)]


def test_gpus_come_with_shared_memory_for_several(tiny):
    pod, container = pod_of(job(tiny, {"tuning.gpus_per_trial": 2}))

    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert {"name": "shared-memory", "emptyDir": {"medium": "Memory"}} in pod["volumes"]
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in container["volumeMounts"]  # noqa: S108
    pod, container = pod_of(job(tiny, {"tuning.gpus_per_trial": 1}))
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "shared-memory" not in json.dumps(pod)
    assert "nvidia.com/gpu" not in json.dumps(job(tiny))


@pytest.mark.parametrize("other", ["amd.com/gpu", "nvidia.com/mig-1g.10gb", "habana.ai/gaudi"])
@pytest.mark.parametrize("part", ["limits", "requests"])
def test_pods_that_ask_for_another_accelerator_ask_for_no_gpu_beside_it(tiny, other, part):
    placed = pod_of(job(tiny, {"tuning.gpus_per_trial": 2}, placement={"resources": {part: {other: "2"}}}))[1]["resources"]
    assert placed[part][other] == "2"
    assert "nvidia.com/gpu" not in json.dumps(placed)

    template = Template("theirs.yaml", {"metadata": {}, "spec": {"containers": [{"name": "worker", "resources": {part: {other: 2}}}]}})
    assert pod_of(job(tiny, {"tuning.gpus_per_trial": 2}, template=template))[1]["resources"] == {part: {other: 2}}


def test_what_is_no_accelerator_or_none_of_it_leaves_pods_their_gpus(tiny):
    native = {"hugepages-2Mi": "4Mi", "attachable-volumes.kubernetes.io/disk": "1", "amd.com/gpu": "0"}
    for beside in (native, {"nvidia.com/gpu": "1"}, {"nvidia.com/gpu": "1", "rdma/hca": "1"}):
        placed = pod_of(job(tiny, {"tuning.gpus_per_trial": 2}, placement={"resources": {"limits": beside}}))[1]["resources"]
        assert placed["limits"].items() >= {**beside, "nvidia.com/gpu": "2"}.items()
        assert placed["requests"]["nvidia.com/gpu"] == "2"


def test_the_configuration_says_where_pods_run(tiny):
    made = job(
        tiny,
        {
            "cluster.node_selector": ["pool=gpu", "zone="],
            "cluster.tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}, {"key": "team", "operator": "Equal", "value": "tts"}],
            "cluster.spread": "node", "cluster.priority_class": "low", "cluster.queue": "gpus", "cluster.image": "registry/tts@sha256:0",
        },
    )  # fmt: skip
    pod, container = pod_of(made)

    assert pod["nodeSelector"] == {"pool": "gpu", "zone": ""}
    assert pod["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}, {"key": "team", "operator": "Equal", "value": "tts"},
    ]  # fmt: skip
    (constraint,) = pod["topologySpreadConstraints"]
    assert (constraint["topologyKey"], constraint["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    assert constraint["labelSelector"]["matchLabels"].items() <= made["spec"]["template"]["metadata"]["labels"].items()
    assert (pod["priorityClassName"], container["image"]) == ("low", "registry/tts@sha256:0")
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert made["spec"]["suspend"] is True


def test_the_pod_is_the_platforms_where_nothing_else_is_said(tiny):
    theirs = {
        "name": "trial", "image": "theirs:1", "command": ["sh", "-c", 'exec tts "$@"', "sh"],
        "env": [{"name": "TTS_STORAGE", "valueFrom": {"x": 1}}],
        "resources": {"limits": {"memory": "1Gi"}}, "volumeMounts": [{"name": "disk", "mountPath": "/var/cache"}],
    }  # fmt: skip
    spec = {"containers": [theirs], "volumes": [{"name": "disk", "hostPath": {"path": "/x"}}], "terminationGracePeriodSeconds": 500}
    knobs = {"cluster.grace_seconds": 45}  # the worker's plan
    made = job(tiny, knobs, template=Template("theirs.yaml", {"metadata": {"name": "x", "labels": {"team": "a", INSTANCE: "b"}}, "spec": spec}))
    pod, container = pod_of(made)

    assert container == theirs | {"args": container["args"]}
    assert pod == spec | {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 45}
    assert made["spec"]["template"]["metadata"]["labels"]["team"] == "a"
    assert made["spec"]["template"]["metadata"]["labels"][INSTANCE] == made["metadata"]["name"]
    assert made["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]["containerName"] == "trial"


def test_the_database_comes_from_a_secret_where_the_template_says_nothing(tiny):
    bare = Template("bare.yaml", {"metadata": {}, "spec": {"containers": [{"name": "worker"}]}})
    pod, container = pod_of(job(tiny, template=bare))

    assert container["env"] == [{"name": "TTS_STORAGE", "valueFrom": {"secretKeyRef": {"name": "tts-study", "key": "storage"}}}]
    assert container["command"] == ["tts"]
    assert container["image"].startswith("smart-tuner-tts:")
    assert container["volumeMounts"] == [{"name": "node-cache", "mountPath": "/var/cache/tts"}]
    assert pod["volumes"] == [{"name": "node-cache", "emptyDir": {}}]


def test_the_tune_tasks_placement_reaches_the_pods(tiny):
    reference = {"name": "TTS_STORAGE", "valueFrom": {"secretKeyRef": {"name": "theirs", "key": "url"}}}
    said = {
        "affinity": {"nodeAffinity": {}}, "tolerations": [{"key": "a", "operator": "Exists"}], "node_selector": {"pool": "gpu"}, "env": [reference],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "shared"}}], "volume_mounts": [{"name": "data", "mountPath": "/data"}],
        "resources": {"limits": {"nvidia.com/gpu": "1", "memory": "4Gi"}},
    }  # fmt: skip
    pod, container = pod_of(job(tiny, {"cluster.tolerations": [{"key": "b"}]}, placement=said))

    assert (pod["affinity"], pod["nodeSelector"]) == (said["affinity"], said["node_selector"])
    assert pod["tolerations"] == [{"key": "b", "operator": "Exists"}, {"key": "a", "operator": "Exists"}]
    assert container["env"][0] == reference
    assert said["volumes"][0] in pod["volumes"]
    assert said["volume_mounts"][0] in container["volumeMounts"]
    assert container["resources"] == {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"nvidia.com/gpu": "1", "memory": "4Gi"}}


def test_a_template_is_as_it_was_after_it_was_used(tiny):
    template = read_template("")
    template.pod["metadata"]["name"] = "any"
    before = copy.deepcopy(template.pod)

    job(tiny, {"tuning.gpus_per_trial": 2, "cluster.spread": "zone"}, template=template, placement={"env": [{"name": "X", "value": "1"}]})

    assert template.pod == before


def test_an_empty_placement_says_nothing(tiny):
    assert job(tiny, placement={"env": None, "tolerations": [], "resources": {}}) == job(tiny)


def test_a_placement_with_a_secret_in_the_open_or_an_unknown_field_is_refused(tiny):
    with pytest.raises(UsageError, match="AWS_SECRET_ACCESS_KEY holds a value") as refused:
        job(tiny, placement={"env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "hush"}]})
    assert "hush" not in str(refused.value)
    with pytest.raises(UsageError, match="placement: unknown field 'nodes'; known are affinity, tolerations"):
        job(tiny, placement={"nodes": 1})


def test_features_must_be_where_pods_see_them(tiny):
    with pytest.raises(UsageError, match="features demo/features are a path on this machine"):
        job(tiny, task=Task("demo/features", "", "voices"))
    assert pod_of(job(tiny, task=Task("/data/features", "", "voices")))[1]["args"][1] == "/data/features"


@given(st.text().filter(lambda name: "\0" not in name))
def test_kubernetes_reads_no_argument_as_a_variable(tiny, study):
    """As its documentation says: $$ is a dollar, $(NAME) a variable's value, any other dollar itself."""
    arguments = pod_of(job(tiny, task=Task("s3://b/f", "", f"{study}$(TTS_STORAGE)")))[1]["args"]

    read, rest = "", arguments[3]
    while rest:
        assert not rest.startswith("$(")
        length = 2 if rest.startswith("$$") else 1
        read, rest = read + rest[0], rest[length:]
    assert read == f"{study}$(TTS_STORAGE)"


def test_the_shape_changes_with_the_pods_and_not_with_their_number(tiny):
    def shape(*args, **said):
        return job(tiny, *args, **said)["metadata"]["annotations"]["smart-tuner-tts/shape"]

    assert shape() == shape(workers=5) == shape({"tuning.trials": 9})
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run", "uid": "1", "controller": False, "blockOwnerDeletion": False}
    assert len({shape(), shape({"cluster.image": "other"}), shape({"cluster.pod_retries": 1}), shape(owner=owner)}) == 4
    assert job(tiny, owner=owner)["metadata"]["ownerReferences"] == [owner]


@pytest.mark.parametrize("each", [0, 2])
def test_the_program_takes_the_arguments_that_pods_give_it(tiny, tts, monkeypatch, each):
    monkeypatch.delenv("TTS_STORAGE", raising=False)

    code, _, said = tts(*pod_of(job(tiny, {"tuning.trials_per_pod": each}))[1]["args"])

    assert code == UsageError.exit_code
    assert "--storage is missing" in said
