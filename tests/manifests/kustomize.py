"""What kustomize makes of the manifests, and where pods are in it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

MANIFESTS = Path(__file__).parents[2] / "manifests"
OVERLAYS = ("test", "kubeflow", "cloud")
PRODUCTION = ("kubeflow", "cloud")


@cache
def built(folder: str) -> tuple[dict[str, Any], ...]:
    """The objects of a folder below manifests/, as kubectl's own kustomize builds them."""
    return tuple(document for document in yaml.safe_load_all(build(MANIFESTS / folder)) if document)


def build(folder: Path) -> str:
    """The YAML of a kustomization anywhere. Without kubectl the test is skipped, or with CI=true fails."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        missing = "no kubectl on PATH, which carries kustomize"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"kubectl kustomize {folder}: {done.stderr}"
    assert done.stderr == "", done.stderr  # such as what is deprecated
    return done.stdout


def overlay(name: str) -> tuple[dict[str, Any], ...]:
    """The objects of an overlay."""
    return built(f"overlays/{name}")


def of_kind(objects: tuple[dict[str, Any], ...], kind: str) -> list[dict[str, Any]]:
    """Objects of one kind."""
    return [found for found in objects if found["kind"] == kind]


def named(objects: tuple[dict[str, Any], ...], kind: str, name: str) -> dict[str, Any]:
    """The one object of that kind and name."""
    (found,) = [found for found in of_kind(objects, kind) if found["metadata"]["name"] == name]
    return found


def pods(objects: tuple[dict[str, Any], ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod that they run, by the name of what runs it: workloads', the trial pods' template, and Katib's trials'."""
    for found in objects:
        name = f"{found['kind']}/{found['metadata']['name']}"
        if found["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield name, found["spec"]["template"]
        elif found["kind"] == "Experiment":
            yield name, found["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]
        elif found["kind"] == "ConfigMap" and "trial-pod.yaml" in found["data"]:
            yield name, yaml.safe_load(found["data"]["trial-pod.yaml"])


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of a pod, the ones that prepare it among them."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def moved(folder: str, namespace: str, place: Path) -> Path:
    """A kustomization in `place` that installs a folder below manifests/ into another namespace."""
    place.mkdir(parents=True, exist_ok=True)
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [os.path.relpath(MANIFESTS / folder, place.resolve())],  # kustomize takes no absolute path
    }
    (place / "kustomization.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return place
