"""A run of the compiled pipeline, step by step, as Kubeflow Pipelines' driver would make its pods: each from the compiled YAML and nothing else.

What is beside a step on a real backend stands in: kfp_launcher.py for the launcher, an object of kind Workflow for Argo's.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from tests.cluster.cluster import Cluster, eventually
from tests.cluster.object_store import ObjectStore

ACCOUNT = "tts-launcher"
SCRIPT = "/kfp-launcher/kfp_launcher.py"
WRITABLE = ("/minio", "/s3", "/gcs", "/.local", "/.cache", "/.config")
"""The backend gives a pod emptyDirs at these places; its root is not read-only."""
WORKFLOWS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "workflows.argoproj.io"},
    "spec": {
        "group": "argoproj.io",
        "scope": "Namespaced",
        "names": {"kind": "Workflow", "plural": "workflows", "singular": "workflow"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


class PipelineRun:
    """One run."""

    def __init__(self, cluster: Cluster, namespace: str, store: ObjectStore, compiled: bytes, **form: Any) -> None:
        self.cluster, self.namespace, self.store, self.form = cluster, namespace, store, form
        self.pipeline, platform = yaml.safe_load_all(compiled)
        self.platform = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self.name = f"smart-tuner-tts-{uuid4().hex[:5]}"
        self.image = self.pipeline["deploymentSpec"]["executors"]["exec-tune"]["container"]["image"]
        self.outputs: dict[str, dict[str, dict[str, Any]]] = {}
        """Artefacts of the steps that are done, as the backend keeps them."""
        workflow = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": self.name}, "spec": {}}
        script = {"kfp_launcher.py": Path(__file__).with_name("kfp_launcher.py").read_text()}
        launcher = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kfp-stand-in"}, "data": script}
        cluster.apply(workflow, launcher, namespace=namespace)

    def step(
        self, task: str, *, inputs: dict[str, dict[str, Any]] | None = None, look: Callable[[], object] = lambda: None, seconds: float = 240
    ) -> tuple[str, str]:
        """Runs a step to its end: (phase, log). `inputs` replaces artefacts; `look` is called again and again while it runs."""
        given = self._executor_input(task, inputs or {})
        pod = self._pod(task, given)
        name = pod["metadata"]["name"]
        self.cluster.apply(pod, namespace=self.namespace)

        def ended() -> bool:
            look()
            return self.cluster.phase(name, self.namespace) in ("Succeeded", "Failed")

        eventually(ended, f"step {task} ends", seconds)
        log, phase = self.cluster.logs(name, self.namespace), self.cluster.phase(name, self.namespace)
        if phase == "Succeeded":
            (done,) = [line for line in log.splitlines() if line.startswith("executor output: ")]
            self.outputs[task] = json.loads(done.removeprefix("executor output: "))
        return phase, log

    def _executor_input(self, task: str, replaced: dict[str, dict[str, Any]]) -> dict[str, Any]:
        spec = self.pipeline["root"]["dag"]["tasks"][task]
        component = self.pipeline["components"][f"comp-{task}"]
        artefacts = {}
        for name, source in spec["inputs"].get("artifacts", {}).items():
            found = source["taskOutputArtifact"]
            artefacts[name] = replaced.get(name) or self.outputs[found["producerTask"]][found["outputArtifactKey"]]
        where = f"minio://{self.store.bucket}/v2/artifacts/smart-tuner-tts/{self.name}/{task}/{uuid4()}"
        outputs = {
            name: {"name": name, "type": kind["artifactType"], "uri": f"{where}/{name}", "metadata": {}}
            for name, kind in component["outputDefinitions"]["artifacts"].items()
        }
        return {
            "inputs": {
                "parameterValues": self._parameters(spec, component),
                "artifacts": {name: {"artifacts": [artefact]} for name, artefact in artefacts.items()},
            },
            "outputs": {
                "artifacts": {name: {"artifacts": [artefact]} for name, artefact in outputs.items()},
                "outputFile": "/tmp/kfp_outputs/output_metadata.json",  # noqa: S108  # in the pod
            },
        }

    def _parameters(self, spec: dict[str, Any], component: dict[str, Any]) -> dict[str, Any]:
        fields = self.pipeline["root"]["inputDefinitions"]["parameters"]
        form = {name: self.form.get(name, field.get("defaultValue")) for name, field in fields.items()}
        values = {}
        for name, source in spec["inputs"]["parameters"].items():
            if "componentInputParameter" in source:
                value = form[source["componentInputParameter"]]
            else:
                value = source["runtimeValue"]["constant"].replace("{{$.pipeline_job_resource_name}}", self.name)
            # The backend keeps all numbers as one kind, and hands whole ones on without a point.
            values[name] = int(value) if isinstance(value, float) and value.is_integer() else value
        if "placement" in component["inputDefinitions"].get("parameters", {}):
            values["placement"] = self._placed(self.platform["exec-tune"], self._resources("tune"), form)
        return values

    def _placed(self, platform: dict[str, Any], resources: dict[str, Any], form: dict[str, Any]) -> dict[str, Any]:
        """The TaskConfig, with all of the driver's fields."""
        volumes, mounts = self._volumes(platform)
        return {
            "affinity": None, "tolerations": [entry for entry in platform["tolerations"] if "key" in entry] + form["tolerations"],
            "nodeSelector": form["node_selector"], "env": self._env(platform), "volumes": volumes, "volumeMounts": mounts, "resources": resources,
        }  # fmt: skip

    def _resources(self, task: str) -> dict[str, Any]:
        said = self.pipeline["deploymentSpec"]["executors"][f"exec-{task}"]["container"]["resources"]
        fields = {"requests": {"cpu": "resourceCpuRequest", "memory": "resourceMemoryRequest"}, "limits": {"memory": "resourceMemoryLimit"}}
        resources = {kind: {name: said[field] for name, field in names.items() if field in said} for kind, names in fields.items()}
        if "accelerator" in said:
            resources["limits"][said["accelerator"]["resourceType"]] = self.form["gpus"]
        return resources

    def _env(self, platform: dict[str, Any]) -> list[dict[str, Any]]:
        env = []
        for kind, reference in (("secretAsEnv", "secretKeyRef"), ("configMapAsEnv", "configMapKeyRef")):
            name, key = ("secretName", "secretKey") if kind == "secretAsEnv" else ("configMapName", "configMapKey")
            for part in platform.get(kind, []):
                for entry in part["keyToEnv"]:
                    source = {"name": part[name], "key": entry[key], "optional": part["optional"]}
                    env.append({"name": entry["envVar"], "valueFrom": {reference: source}})
        return env

    def _volumes(self, platform: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        maps = platform.get("configMapAsVolume", [])
        volumes = [{"name": part["configMapName"], "configMap": {"name": part["configMapName"], "optional": part["optional"]}} for part in maps]
        return volumes, [{"name": part["configMapName"], "mountPath": part["mountPath"]} for part in maps]

    def _pod(self, task: str, given: dict[str, Any]) -> dict[str, Any]:
        executor = self.pipeline["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
        platform = self.platform[f"exec-{task}"]
        volumes, mounts = self._volumes(platform)
        shared = [{"name": part["volumeName"], "emptyDir": {"medium": part["medium"]}} for part in platform.get("emptyDirMounts", [])]
        volumes += [*shared, *({"name": f"scratch-{number}", "emptyDir": {}} for number, _ in enumerate(WRITABLE))]
        mounts += [{"name": part["volumeName"], "mountPath": part["mountPath"]} for part in platform.get("emptyDirMounts", [])]
        mounts += [{"name": f"scratch-{number}", "mountPath": path} for number, path in enumerate(WRITABLE)]
        passed = "placement" in given["inputs"]["parameterValues"]
        own = {"fieldRef": {"fieldPath": "metadata.name"}}
        container = {
            "name": "main", "image": executor["image"], "imagePullPolicy": "IfNotPresent",
            "command": ["python3", SCRIPT, json.dumps(given), "--", *executor["command"]], "args": executor["args"],
            "env": [*self._env(platform), {"name": "KFP_POD_NAME", "valueFrom": own}],
            "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}} if passed else self._resources(task),
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, **platform["securityContext"]},
            "volumeMounts": [*mounts, {"name": "kfp-launcher", "mountPath": str(Path(SCRIPT).parent)}],
        }  # fmt: skip
        return {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": f"{self.name}-{task}-{uuid4().hex[:5]}",
                "labels": {"pipelines.kubeflow.org/v2_component": "true", "workflows.argoproj.io/workflow": self.name},
            },
            "spec": {
                "serviceAccountName": ACCOUNT, "restartPolicy": "Never",
                "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [container],
                "volumes": [*volumes, {"name": "kfp-launcher", "configMap": {"name": "kfp-stand-in"}}],
            },
        }  # fmt: skip
