"""Where the pipeline's steps run on a cluster, and what they find there: the one place for it.

All steps run as any user but root, in an image that holds the program. None is started again by the backend: exit codes do not reach it, so a
step retries what can be retried by itself. Secrets and addresses are references to objects in the run's namespace, all of them optional,
so that a step that misses one says so instead of a pod that waits for ever.
"""

from dataclasses import dataclass
from typing import Any

from kfp import dsl, kubernetes

from components.image import IMAGE
from tts.step.cluster import TEMPLATE

STUDY_SECRET = {"storage": "TTS_STORAGE"}
STORE_SECRET = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY", "endpoint": "AWS_ENDPOINT_URL", "region": "AWS_REGION"}
TRACKING_MAP = {"MLFLOW_TRACKING_URI": "MLFLOW_TRACKING_URI"}


@dataclass(frozen=True)
class Resources:
    """What a step asks a node for; empty: nothing. No limit of CPUs: a step that finds idle ones may use them."""

    cpu: str = ""
    memory: str = ""
    memory_limit: str = ""


LIGHT = Resources("250m", "512Mi", "4Gi")
HEAVY = Resources("500m", "1Gi", "16Gi")


@dataclass(frozen=True)
class Placement:
    """What is settled when the pipeline is compiled. GPUs, node labels and tolerations are fields of the form."""

    image: str = IMAGE
    """Image of the steps and the trials' pods; best by digest, because the cache's key is this text."""
    pvc: str = ""
    """Claim that every step and trial mounts, ReadWriteMany; empty: none, results are in the object store only."""
    pvc_path: str = "/work"
    """Where; `work` may then be a folder below it."""
    accelerator: str = "nvidia.com/gpu"
    """Resource that a GPU is on this cluster."""
    light: Resources = LIGHT
    """Of steps that mostly wait or draw."""
    heavy: Resources = HEAVY
    """Of the final training and what reads all recordings."""
    trials: Resources = Resources()
    """Of trials' pods; what is empty is as their template says."""
    study_secret: str = "tts-study"  # noqa: S105  # a name, no secret
    store_secret: str = "tts-object-store"  # noqa: S105  # a name, no secret
    tracking_map: str = "tts-tracking"
    template_map: str = "tts-trial-pod"
    """ConfigMap with the platform's template of trial pods, trial-pod.yaml."""


def place(task: dsl.PipelineTask, placement: Placement, resources: Resources, *, tracked: bool = False) -> None:
    """What every step has: the image, a user that is not root, the object store's keys, the claim, what it asks a node for."""
    task.set_container_image(placement.image)
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.use_secret_as_env(task, placement.store_secret, STORE_SECRET, optional=True)
    if tracked:
        kubernetes.use_config_map_as_env(task, placement.tracking_map, TRACKING_MAP, optional=True)
    if placement.pvc:
        kubernetes.mount_pvc(task, placement.pvc, placement.pvc_path)
    for ask, amount in (
        (task.set_cpu_request, resources.cpu),
        (task.set_memory_request, resources.memory),
        (task.set_memory_limit, resources.memory_limit),
    ):
        if amount:
            ask(amount)


def place_on_gpus(task: dsl.PipelineTask, placement: Placement, *, gpus: Any, node_selector: Any, tolerations: Any) -> None:
    """What training needs besides. The tune task hands it on to the trials' pods, as all that it asks for, and its own pod takes none of it."""
    task.set_accelerator_type(placement.accelerator)
    task.set_accelerator_limit(gpus)
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration(task, key=placement.accelerator, operator="Exists", effect="NoSchedule")  # nodes with GPUs are often tainted so
    kubernetes.add_toleration_json(task, tolerations)


def launch_pods(task: dsl.PipelineTask, placement: Placement) -> None:
    """What the launcher of trial pods needs: the database of studies, by reference, and the platform's template, if it keeps one."""
    kubernetes.use_secret_as_env(task, placement.study_secret, STUDY_SECRET, optional=True)
    kubernetes.use_config_map_as_volume(task, placement.template_map, str(TEMPLATE.parent), optional=True)


def share_memory(task: dsl.PipelineTask) -> None:
    """Where the processes of a training on several GPUs meet: a pod has 64 MB of it by itself."""
    kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory")  # noqa: S108  # a mount, no file of ours
