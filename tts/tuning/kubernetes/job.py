"""The Job of a study: one Indexed Job, made of the platform's template, the configuration, and what the pipeline's tune task was given."""

import copy
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import tts
from tts.config import ClusterConfig, Config
from tts.errors import TrainingDivergedError, UsageError
from tts.tuning.kubernetes.merge import merged
from tts.tuning.kubernetes.names import APPLICATION, INSTANCE, SHAPE, STUDY, job_name, labels
from tts.tuning.kubernetes.template import Template, check_secrets, worker_of
from tts.tuning.launch import Task

GPU = "nvidia.com/gpu"
STORAGE = {"name": "TTS_STORAGE", "valueFrom": {"secretKeyRef": {"name": "tts-study", "key": "storage"}}}
TOPOLOGY = {"node": "kubernetes.io/hostname", "zone": "topology.kubernetes.io/zone"}
QUEUE = "kueue.x-k8s.io/queue-name"
HOPELESS = (UsageError.exit_code, TrainingDivergedError.exit_code)
"""Exit codes after which a pod is not started again: it would end the same way."""
PLACED = ("affinity", "tolerations", "node_selector", "env", "volumes", "volume_mounts", "resources")
"""What a placement may say: the fields of Kubeflow's TaskConfig."""


def build(
    task: Task,
    workers: int,
    config: Config,
    template: Template,
    *,
    placement: Mapping[str, Any] | None = None,
    owner: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The Job, as the API takes it.

    Args:
        task: What workers work on. Its database's URL is not used: pods have that from a Secret.
        workers: Pods at a time.
        config: Sections cluster and tuning.
        template: The platform's pod.
        placement: Fields of PLACED, merged over the template.
        owner: Owner reference: the Job goes when its owner goes.

    Raises:
        UsageError: A secret in the open, an unknown field of the placement, a name that Kubernetes' arguments cannot hold.
    """
    pod, container = _pod(task, config, template, placement or {})
    name = job_name(task.name, database_of(container))
    marks = labels(name)
    pod["metadata"]["labels"] = pod["metadata"].get("labels", {}) | marks
    if config.cluster.spread:
        constraint = {
            "topologyKey": TOPOLOGY[config.cluster.spread], "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {INSTANCE: name}},
        }  # fmt: skip
        pod["spec"] = merged(pod["spec"], {"topologySpreadConstraints": [constraint]})
    spec = _rules(config, workers, container["name"]) | {"template": pod}
    metadata: dict[str, Any] = {"name": name, "labels": marks | ({QUEUE: config.cluster.queue} if config.cluster.queue else {})}
    if owner is not None:
        metadata["ownerReferences"] = [dict(owner)]
    metadata["annotations"] = {STUDY: task.name, SHAPE: _shape(metadata, spec)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def completions(config: Config, workers: int) -> int:
    """Indexes of the Job: one for each worker, or one for each pod that does its few trials."""
    each = config.tuning.trials_per_pod
    return workers if each == 0 else math.ceil(config.tuning.trials / each)


def database_of(container: Mapping[str, Any]) -> str:
    """What a pod knows the study's database by."""
    entry: Mapping[str, Any] = next((entry for entry in container.get("env", []) if entry["name"] == STORAGE["name"]), {})
    reference = entry.get("valueFrom", {}).get("secretKeyRef", {})
    return f"{reference.get('name', '')}/{reference.get('key', '')}"


def _rules(config: Config, workers: int, container: str) -> dict[str, Any]:
    """How the Job treats its pods."""
    cluster, pods = config.cluster, completions(config, workers)
    rules = {
        "completionMode": "Indexed",
        "completions": pods,
        "parallelism": min(workers, pods),
        "backoffLimitPerIndex": cluster.pod_retries,
        # While one worker lives the study goes on. Pods for a few trials each are many: a tenth that fail is more than chance.
        "maxFailedIndexes": pods if config.tuning.trials_per_pod == 0 else max(workers, pods // 10),
        "podReplacementPolicy": "Failed",  # no two pods on one index, so none on one cache or checkpoint
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailIndex", "onExitCodes": {"containerName": container, "operator": "In", "values": sorted(HOPELESS)}},
            ]
        },
        "activeDeadlineSeconds": math.ceil(cluster.deadline_hours * 3600),
        "ttlSecondsAfterFinished": cluster.ttl_seconds,
    }
    if cluster.queue:
        rules["suspend"] = True  # Kueue lets it go; without Kueue it waits, and says so, instead of passing by the queue
    return rules


def _pod(task: Task, config: Config, template: Template, placement: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pods' template, and the worker's container in it."""
    cluster = config.cluster
    name = worker_of(template.pod, template.file)["name"]
    pod = merged(copy.deepcopy(template.pod), {"spec": _configured(cluster) | {"restartPolicy": "Never"}})
    pod = merged(pod, _placed(placement, name))
    pod["metadata"].pop("name", None)
    pod["metadata"].pop("namespace", None)
    pod["spec"]["terminationGracePeriodSeconds"] = cluster.grace_seconds  # whatever the template says: the worker plans its end by the same number
    container = dict(worker_of(pod, template.file))
    container.setdefault("command", ["tts"])
    container["args"] = _arguments(task, config)
    if cluster.image or "image" not in container:
        container["image"] = cluster.image or f"{APPLICATION}:{tts.__version__}"
    if "envFrom" not in container and all(entry["name"] != STORAGE["name"] for entry in container.get("env", [])):
        container["env"] = [*container.get("env", []), STORAGE]
    gpus = config.tuning.gpus_per_trial
    if gpus and not _has_other_devices(container):
        container["resources"] = merged(container.get("resources", {}), {"limits": {GPU: str(gpus)}, "requests": {GPU: str(gpus)}})
    volumes = []
    if gpus > 1:
        volumes.append(("shared-memory", "/dev/shm", {"medium": "Memory"}))  # noqa: S108  # where processes of one trial meet
    volumes.append(("node-cache", cluster.node_cache, {}))
    for volume, path, source in volumes:
        if not _mounted(container, path):
            container["volumeMounts"] = [*container.get("volumeMounts", []), {"name": volume, "mountPath": path}]
            pod["spec"] = merged(pod["spec"], {"volumes": [{"name": volume, "emptyDir": source}]})
    pod["spec"] = merged(pod["spec"], {"containers": [container]})
    check_secrets(pod, f"{template.file}, with the tune task's placement" if placement else template.file)
    return pod, container


def _configured(cluster: ClusterConfig) -> dict[str, Any]:
    """What the section cluster says of a pod; what is empty says nothing."""
    tolerations = [{key: value for key, value in toleration.model_dump().items() if value} for toleration in cluster.tolerations]
    said = {
        "nodeSelector": dict(pair.split("=", 1) for pair in cluster.node_selector),
        "tolerations": tolerations,
        "priorityClassName": cluster.priority_class,
    }
    return {name: value for name, value in said.items() if value}


def _placed(placement: Mapping[str, Any], container: str) -> dict[str, Any]:
    """A placement as a part of a pod."""
    for name in placement:
        if name not in PLACED:
            raise UsageError(f"placement: unknown field {name!r}; known are {', '.join(PLACED)}")
    said = {name: value for name, value in placement.items() if value}
    inside = {"env": said.get("env"), "volumeMounts": said.get("volume_mounts"), "resources": said.get("resources")}
    outside = {"affinity": "affinity", "tolerations": "tolerations", "node_selector": "nodeSelector", "volumes": "volumes"}
    spec = {field: said[name] for name, field in outside.items() if name in said}
    worker = {"name": container} | {field: value for field, value in inside.items() if value}
    return {"spec": spec | {"containers": [worker]}}


def _arguments(task: Task, config: Config) -> list[str]:
    if "://" not in task.features and not PurePosixPath(task.features).is_absolute():
        raise UsageError(
            f"features {task.features} are a path on this machine, which trial pods do not see; give a URI such as s3://bucket/features, "
            "or an absolute path on a volume that is mounted in the pods' template"
        )
    arguments = ["worker", task.features, "--study", task.name, "--launched", "--node_cache", config.cluster.node_cache]
    if config.tuning.trials_per_pod:
        arguments += ["--trials_per_pod", str(config.tuning.trials_per_pod)]
    # Kubernetes puts a variable's value, a password say, where an argument holds its name: $(NAME); two dollars are one.
    return [argument.replace("$", "$$") for argument in arguments]


def _mounted(container: Mapping[str, Any], path: str) -> bool:
    """Whether a folder is on one of the container's volumes. The root, where it may be written to, is none."""
    return any(PurePosixPath(path).is_relative_to(mount["mountPath"]) for mount in container.get("volumeMounts", []))


def _has_other_devices(container: Mapping[str, Any]) -> bool:
    """Whether the container asks for extended resources, another accelerator's say, and for no GPU: what else it needs is its template's to say."""
    resources = container.get("resources", {})
    asked = {name for part in ("requests", "limits") for name, number in resources.get(part, {}).items() if str(number) != "0"}
    # As Kubernetes tells them from its own: cpu, hugepages-2Mi, attachable-volumes.kubernetes.io/x.
    return GPU not in asked and any("/" in name and "kubernetes.io/" not in name for name in asked)


def _shape(metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    """A hash of all but the numbers that may change while the Job runs."""
    fixed = {name: value for name, value in spec.items() if name not in ("completions", "parallelism", "maxFailedIndexes", "suspend")}
    return hashlib.sha256(json.dumps([metadata, fixed], sort_keys=True).encode()).hexdigest()[:16]
