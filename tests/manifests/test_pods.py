"""Pods: restricted, bounded, watched, with images that are pinned and secrets that are elsewhere."""

import re
from pathlib import Path

import pytest
import yaml

from tests.manifests.kustomize import MANIFESTS, OVERLAYS, PRODUCTION, built, containers, named, of_kind, overlay, pods
from tts.config.load import read_config
from tts.tuning.kubernetes.template import read_template

WHERE = [f"overlays/{name}" for name in OVERLAYS] + ["katib"]
ALL = [pytest.param(pod, id=f"{where}:{name}") for where in WHERE for name, pod in pods(built(where))]
VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}


def test_they_are_found():
    assert [name for name, _ in pods(overlay("test"))] == ["ConfigMap/tts-trial-pod", "Deployment/tts-mlflow", "StatefulSet/tts-postgresql"]
    assert len(ALL) == 9


@pytest.mark.parametrize("pod", ALL)
def test_restricted_and_with_a_root_that_nobody_writes_to(pod):
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for container in containers(pod):
        security = container["securityContext"]
        assert security == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}  # noqa: S108  # in the pod
    for volume in spec["volumes"]:
        assert set(volume) - {"name"} <= VOLUMES


@pytest.mark.parametrize("pod", ALL)
def test_no_way_to_the_api(pod):
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("pod", ALL)
def test_every_container_says_what_it_needs(pod):
    for container in containers(pod):
        assert set(container["resources"]["requests"]) >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_services_are_probed(name):
    for found in (*of_kind(overlay(name), "Deployment"), *of_kind(overlay(name), "StatefulSet")):
        for container in found["spec"]["template"]["spec"]["containers"]:
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


@pytest.mark.parametrize("name", PRODUCTION)
def test_images_in_production_are_pinned_by_digest(name):
    images = [
        container["image"]
        for kind, pod in pods(overlay(name))
        if kind != "ConfigMap/tts-trial-pod"  # its image is the configuration's
        for container in containers(pod)
    ]
    assert images
    assert all(re.fullmatch(r"[^@:]+(/[^@:]+)*@sha256:[0-9a-f]{64}", image) for image in images), images


def test_images_for_tests_are_those_that_are_loaded():
    assert {image["image"] for _, pod in pods(overlay("test")) for image in containers(pod) if "image" in image} == {
        "tts-mlflow:test", "tts-postgresql:test",
    }  # fmt: skip
    policies = {image.get("imagePullPolicy", "IfNotPresent") for _, pod in pods(overlay("test")) for image in containers(pod)}
    assert policies == {"IfNotPresent"}


@pytest.mark.parametrize("file", sorted(MANIFESTS.rglob("*.yaml")), ids=lambda file: str(file.relative_to(MANIFESTS)))
def test_no_moving_tag_and_no_wildcard(file):
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"image: \S+:latest|newTag: latest", text)
    assert not re.search(r"(verbs|resources|apiGroups|resourceNames|nonResourceURLs): *\[[^]]*[\"']?\*", text)
    assert not re.search(r"^ *- [\"']?\*[\"']?$", text, re.MULTILINE)


def test_a_secret_is_in_no_file_but_the_throw_away_one():
    for name in OVERLAYS:
        secrets = of_kind(overlay(name), "Secret")
        assert {found["metadata"]["name"] for found in secrets} == ({"tts-study", "tts-mlflow"} if name == "test" else set())
    for file in MANIFESTS.rglob("*"):
        if file.is_file() and file != MANIFESTS / "overlays" / "test" / "kustomization.yaml":
            text = file.read_text(encoding="utf-8")
            assert "throw-away" not in text
            assert not re.search(r"//[^/\s:$\"']+:[^@/\s$%]+@", text), f"{file}: a URL with a password"


@pytest.mark.parametrize("pod", ALL)
def test_secrets_come_by_reference(pod):
    for container in containers(pod):
        for entry in container.get("env", []):
            if re.search("STORAGE|STORE_URI|ACCESS_KEY|PASSWORD|TOKEN", entry["name"]):
                assert "secretKeyRef" in entry["valueFrom"]


def test_what_pods_refer_to_is_there_or_named_as_to_be_made():
    to_be_made = {"tts-object-store": {"accesskey", "secretkey", "endpoint", "region"}}
    made = {found["metadata"]["name"]: set(found["data"]) for found in of_kind(overlay("test"), "Secret")} | to_be_made
    maps = {found["metadata"]["name"]: set(found["data"]) for found in of_kind(overlay("test"), "ConfigMap")}
    referred = []
    for _, pod in pods(overlay("test")):
        for container in containers(pod):
            for entry in container.get("env", []):
                source = entry.get("valueFrom", {})
                referred += [(made, source[kind]) for kind in ("secretKeyRef",) if kind in source]
                referred += [(maps, source[kind]) for kind in ("configMapKeyRef",) if kind in source]
            referred += [(maps, {"name": source["configMapRef"]["name"]}) for source in container.get("envFrom", [])]
        for volume in pod["spec"]["volumes"]:
            referred += [(maps, volume["configMap"])] if "configMap" in volume else []
            referred += [(made, {"name": volume["secret"]["secretName"], **item}) for item in volume.get("secret", {}).get("items", [])]
    assert len(referred) > 10
    for there, reference in referred:
        assert reference["name"] in there
        assert reference.get("key", next(iter(there[reference["name"]]))) in there[reference["name"]]


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_trial_pods_template_is_the_launchers_with_an_account(name, tmp_path):
    text = named(overlay(name), "ConfigMap", "tts-trial-pod")["data"]["trial-pod.yaml"]
    (tmp_path / "trial-pod.yaml").write_text(text)
    pod = read_template(str(tmp_path / "trial-pod.yaml")).pod
    assert pod["spec"].pop("serviceAccountName") == "tts-trial"
    assert pod == read_template("").pod


@pytest.mark.parametrize("file", ["components/gpu/gpu.yaml", "overlays/cloud/cluster.yaml"])
def test_settings_for_the_launcher_are_settings_of_ours(file):
    config = read_config(MANIFESTS / file)
    assert config.cluster.node_selector == ("nvidia.com/gpu.present=true",)
    assert config.cluster.tolerations[0].key == "nvidia.com/gpu"
    classes = {found["metadata"]["name"] for found in of_kind(overlay("cloud"), "PriorityClass")}
    assert config.cluster.priority_class in classes
    assert config.tuning.gpus_per_trial == 1
    if config.cluster.queue:
        assert config.cluster.queue in {found["metadata"]["name"] for found in of_kind(overlay("cloud"), "LocalQueue")}


def test_the_queue_takes_what_trial_pods_ask_for():
    queue = named(overlay("cloud"), "ClusterQueue", "tts")["spec"]
    flavor = named(overlay("cloud"), "ResourceFlavor", "tts-gpu")["spec"]
    settings = read_config(MANIFESTS / "overlays" / "cloud" / "cluster.yaml").cluster
    assert dict(pair.split("=") for pair in settings.node_selector) == flavor["nodeLabels"]
    covered = queue["resourceGroups"][0]["coveredResources"]
    asked = read_template("").pod["spec"]["containers"][0]["resources"]["requests"]
    assert {*asked, "nvidia.com/gpu"} == set(covered)
    assert [entry["name"] for entry in queue["resourceGroups"][0]["flavors"][0]["resources"]] == covered
    (local,) = of_kind(overlay("cloud"), "LocalQueue")
    assert local["spec"]["clusterQueue"] == "tts"
    assert queue["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": local["metadata"]["namespace"]}


def test_every_file_belongs_to_a_kustomization():
    used = set()
    for file in MANIFESTS.rglob("kustomization.yaml"):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        named_files = [*content.get("resources", []), *content.get("components", []), *content.get("transformers", [])]
        named_files += [entry for generator in content.get("configMapGenerator", []) for entry in generator.get("files", [])]
        used |= {file, *((file.parent / name).resolve() for name in named_files)}
    assert {file for file in MANIFESTS.rglob("*") if file.is_file()} == {file for file in used if Path(file).is_file()}
