"""Launchers in a namespace of a test's own: templates whose worker is a line of shell, and a look at the pods that they make."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from kubernetes import config

from tests.cluster.cluster import Cluster, eventually
from tts.config import Config
from tts.config.load import override
from tts.config.presets import demo
from tts.tuning.kubernetes.launcher import KubernetesLauncher
from tts.tuning.kubernetes.template import read_template
from tts.tuning.launch import Task, Workers

FOREVER = "trap 'exit 75' TERM; sleep 600 & wait"
"""A worker that stops when it is asked to."""


class Room:
    """Makes launchers whose pods run a line of shell, and stops them."""

    def __init__(self, cluster: Cluster, namespace: str, image: str, folder: Path) -> None:
        self.cluster, self.namespace, self.image, self._folder = cluster, namespace, image, folder
        self._numbers = itertools.count()
        self._launchers: list[KubernetesLauncher] = []

    def launcher(
        self, shell: str, *, container: dict[str, Any] | None = None, template: dict[str, Any] | None = None, **knobs: Any
    ) -> KubernetesLauncher:
        """A launcher whose pods run a line of shell as their worker."""
        made = KubernetesLauncher.of(self.config(shell, container=container, template=template, **knobs))
        self._launchers.append(made)
        return made

    def config(self, shell: str, *, container: dict[str, Any] | None = None, template: dict[str, Any] | None = None, **knobs: Any) -> Config:
        """Its configuration; `container` adds to the worker's container, `template` to the pod, knobs to section cluster."""
        pod = read_template("").pod
        (worker,) = pod["spec"]["containers"]
        worker |= {"command": ["sh", "-c", shell, "sh"], "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}, "limits": {"memory": "64Mi"}}}
        worker["env"] = [entry for entry in worker["env"] if entry["name"] != "TTS_STORAGE"]
        worker["env"].append({"name": "TTS_STORAGE", "valueFrom": {"secretKeyRef": {"name": "tts-study", "key": "storage", "optional": True}}})
        worker |= container or {}
        pod["spec"] |= template or {}
        file = self._folder / f"pod-{next(self._numbers)}.yaml"
        file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", **pod}))
        tuning = {name: knobs.pop(name) for name in ("trials", "trials_per_pod", "gpus_per_trial") if name in knobs}
        section = {"namespace": self.namespace, "template": str(file), "image": self.image, "grace_seconds": 30, **knobs}
        return override(demo(), {f"cluster.{name}": v for name, v in section.items()} | {f"tuning.{name}": v for name, v in tuning.items()})

    def close(self) -> None:
        """Stops them all: namespaces with running pods go slowly."""
        for launcher in self._launchers:
            launcher.stop()

    def task(self, study: str | None = None) -> Task:
        """A study of a name of its own."""
        return Task("s3://bucket/features", "postgresql://nobody@nowhere/x", study or f"voices {uuid4().hex[:6]}")

    def jobs(self) -> list[Any]:
        """Jobs that are there."""
        return self.cluster.batch.list_namespaced_job(self.namespace).items

    def pods(self, launcher: KubernetesLauncher) -> list[Any]:
        """Pods of a launcher's Job, by index."""
        _, name, _ = launcher.job
        found = self.cluster.core.list_namespaced_pod(self.namespace, label_selector=f"app.kubernetes.io/instance={name}").items
        return sorted(found, key=lambda pod: (pod.metadata.labels["batch.kubernetes.io/job-completion-index"], pod.metadata.creation_timestamp))

    def running(self, launcher: KubernetesLauncher, number: int) -> list[Any]:
        """Its pods, once so many run."""

        def enough() -> list[Any]:
            pods = [pod for pod in self.pods(launcher) if pod.status.phase == "Running" and not pod.metadata.deletion_timestamp]
            return pods if len(pods) == number else []

        return eventually(enough, f"{number} pods run")


@pytest.fixture
def room(cluster: Cluster, namespace: str, images: Any, tmp_path: Path) -> Iterator[Room]:
    """One for the test."""
    made = Room(cluster, namespace, images.tts, tmp_path)
    yield made
    made.close()


def polled(launcher: KubernetesLauncher, condition: Callable[[Workers], Any]) -> Workers:
    """Looks at the workers until they are as they should be."""
    seen: list[Workers] = []

    def right() -> bool:
        seen[:] = [launcher.poll()]
        return bool(condition(seen[0]))

    try:
        eventually(right, "workers are as they should be", 90)
    except AssertionError as error:
        raise AssertionError(f"{error}; they are {seen}") from None
    return seen[0]


def kubeconfig_of(folder: Path, namespace: str, *, token: str | None = None, server: str | None = None) -> Path:
    """A kubeconfig like the current one, with another server, or a token instead of a certificate."""
    current = config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION
    loaded = yaml.safe_load(Path(current).expanduser().read_text())
    context = next(entry["context"] for entry in loaded["contexts"] if entry["name"] == loaded["current-context"])
    cluster = next(entry["cluster"] for entry in loaded["clusters"] if entry["name"] == context["cluster"])
    user = next(entry["user"] for entry in loaded["users"] if entry["name"] == context["user"])
    made = {
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster | ({"server": server} if server else {})}],
        "users": [{"name": "tester", "user": {"token": token} if token else user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "tester", "namespace": namespace}}],
    }  # fmt: skip
    file = folder / f"kubeconfig-{uuid4().hex[:6]}"
    file.write_text(json.dumps(made))
    return file
