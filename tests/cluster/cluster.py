"""The cluster of the current kubeconfig, the way tests use it: kubectl, the Python client, namespaces of a test's own, and faults."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from kubernetes.client import BatchV1Api, CoreV1Api

ROOT = Path(__file__).resolve().parent.parent.parent
Found = TypeVar("Found")
RESTRICTED_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
"""What Pod Security's restricted profile wants of a pod and of its containers, and a root that nobody writes to."""


def absent(what: str) -> NoReturn:
    """The test needs what is not there: it is skipped, or with CI=true fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}: CI must test with it")
    pytest.skip(what)


def eventually(found: Callable[[], Found], what: str, seconds: float = 60) -> Found:
    """The first true value of `found`, asked five times a second; `what` is waited for."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)
    return value


def kubectl(*arguments: str, told: str = "", seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """kubectl with the user's kubeconfig, given `told`, from the repository's root."""
    program = shutil.which("kubectl") or absent("no kubectl on PATH")
    return subprocess.run([program, *arguments], cwd=ROOT, input=told, capture_output=True, text=True, timeout=seconds, check=False)


class Cluster:
    """Commands go through kubectl; `core` and `batch` are the Python client with the same kubeconfig."""

    def kubectl(self, *arguments: str, told: str = "", seconds: float = 120) -> str:
        """What kubectl prints, given `told`. A refusal is a failed assertion with its message."""
        done = kubectl(*arguments, told=told, seconds=seconds)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr.strip()}"
        return done.stdout

    def refused(self, *arguments: str, told: str = "", seconds: float = 120) -> str:
        """The message with which the server refuses what kubectl asks. It must refuse."""
        done = kubectl(*arguments, told=told, seconds=seconds)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} was let through: {done.stdout.strip()}"
        return done.stderr.strip()

    def get(self, kind: str, name: str = "", namespace: str = "", labels: str = "") -> Any:
        """One object, or with no name the items of a list."""
        where = ["--namespace", namespace] if namespace else []
        chosen = ["--selector", labels] if labels else []
        found = json.loads(self.kubectl("get", kind, *([name] if name else []), *where, *chosen, "--output", "json"))
        return found if name else found["items"]

    def apply(self, *objects: dict[str, Any], namespace: str = "") -> None:
        """Creates or changes objects."""
        where = ["--namespace", namespace] if namespace else []
        self.kubectl("apply", *where, "--filename", "-", told=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def logs(self, pod: str, namespace: str) -> str:
        """What a pod has printed."""
        return self.kubectl("logs", pod, "--namespace", namespace)

    def inside(self, pod: str, namespace: str, *command: str, seconds: float = 120) -> str:
        """What a command in a running pod prints; it must end with 0."""
        return self.kubectl("exec", pod, "--namespace", namespace, "--", *command, seconds=seconds)

    def phase(self, pod: str, namespace: str) -> str:
        """Pending, Running, Succeeded or Failed."""
        return str(self.get("pod", pod, namespace)["status"]["phase"])

    def ready(self) -> bool:
        """Whether the API server answers and every node is ready."""
        done = kubectl("get", "nodes", "--output", "json", seconds=30)
        if done.returncode:
            return False
        conditions = [condition for node in json.loads(done.stdout)["items"] for condition in node["status"]["conditions"]]
        return all(condition["status"] == "True" for condition in conditions if condition["type"] == "Ready")

    @contextmanager
    def namespace(self, name: str = "") -> Iterator[str]:
        """A new namespace that refuses pods outside the restricted profile; it is gone at the end, with what is in it."""
        name = name or f"tts-test-{uuid4().hex[:8]}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        try:
            eventually(lambda: "default" in self.kubectl("get", "serviceaccounts", "--namespace", name), f"service account in {name}")
            yield name
        finally:
            self.end_jobs(name)
            self.kubectl("delete", "namespace", name, "--wait=false")

    def end_jobs(self, namespace: str) -> None:
        """Deletes the namespace's Jobs, as must be before the namespace is.

        An Indexed Job holds an index's failed pod until the next one is made, and in a namespace that goes none can be: it would stay for good.
        """
        self.kubectl("delete", "jobs", "--all", "--namespace", namespace)

    @property
    def node(self) -> str:
        """The name of a node that runs pods."""
        return str(self.get("nodes")[0]["metadata"]["name"])

    @property
    def node_ip(self) -> str:
        """Its address."""
        addresses = self.get("nodes")[0]["status"]["addresses"]
        return str(next(address["address"] for address in addresses if address["type"] == "InternalIP"))

    @cached_property
    def core(self) -> "CoreV1Api":
        """The client of pods, secrets and the like."""
        from kubernetes import client

        return client.CoreV1Api(self._api)

    @cached_property
    def batch(self) -> "BatchV1Api":
        """The client of Jobs."""
        from kubernetes import client

        return client.BatchV1Api(self._api)

    @cached_property
    def _api(self) -> Any:
        from kubernetes import config

        return config.new_client_from_config()


class Control:
    """Faults of the cluster itself, by the program named in TTS_CLUSTER_CONTROL. They hit every test: each is undone at once."""

    def __init__(self, program: str, cluster: Cluster) -> None:
        self._program, self._cluster = program, cluster

    def do(self, *arguments: str, seconds: float = 180) -> str:
        """Runs the program; it must end with 0."""
        done = subprocess.run([self._program, *arguments], capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, f"{self._program} {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def recovered(self) -> None:
        """Waits until the API server answers and the node is ready."""
        eventually(self._cluster.ready, "the cluster is ready again", 120)


class ApiServer:
    """The API server, to be stopped and started."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def stop(self) -> None:
        """Nobody reaches the cluster; pods run on."""
        self._control.do("stop", "kube-apiserver")

    def start(self) -> None:
        """It answers when this returns."""
        self._control.do("start", "kube-apiserver")
        self._control.recovered()


class Kubelet:
    """The node's agent, to be stopped and started."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def down(self) -> None:
        """The node is lost: its pods run on, but nobody hears of them."""
        self._control.do("node-down")

    def up(self) -> None:
        """The node is ready when this returns."""
        self._control.do("node-up")
        self._control.recovered()


def pod(name: str, image: str, command: Sequence[str], **container: Any) -> dict[str, Any]:
    """A pod that the restricted profile lets in, as the image's own user, with /tmp to write to. `container` adds to its container."""
    main = {
        "name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "command": list(command), "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  # in the pod
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": RESTRICTED_POD,
            "containers": [main | container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
