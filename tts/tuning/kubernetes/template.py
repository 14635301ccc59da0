"""The template of trial pods: a pod in YAML that the platform's owner keeps."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from tts.errors import UsageError

DEFAULT = "trial-pod.yaml"
CONTAINER = "worker"
FIELDS = ("apiVersion", "kind", "metadata", "spec")
SECRET = ("TTS_STORAGE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""Variables that a pod has by reference only: whoever may read pods would read them."""


@dataclass(frozen=True)
class Template:
    """A pod that was checked as far as can be without a cluster, which checks the rest."""

    file: str
    """For messages."""
    pod: dict[str, Any]


def read_template(file: str) -> Template:
    """The template in `file`; empty: the one that comes with the program. Raises UsageError naming file and field."""
    if not file:
        return _checked("the program's own template", files(__package__).joinpath(DEFAULT).read_text(encoding="utf-8"))
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cluster.template: cannot read {file}: {getattr(error, 'strerror', None) or error}; give a YAML file with a pod") from error
    return _checked(file, text)


def worker_of(pod: dict[str, Any], source: str) -> dict[str, Any]:
    """The container that the worker runs in: the only one, or the one named worker. Raises UsageError."""
    containers: list[dict[str, Any]] = pod["spec"]["containers"]
    named = [container for container in containers if container["name"] == CONTAINER]
    if len(containers) == 1 or len(named) == 1:
        return (named or containers)[0]
    names = ", ".join(repr(container["name"]) for container in containers)
    raise UsageError(f"{source}: spec.containers: one of several must be named {CONTAINER!r}, to run the worker in; got {names}")


def check_secrets(pod: dict[str, Any], source: str) -> None:
    """Raises UsageError where a secret stands in the open. Its value is not shown."""
    for kind in ("containers", "initContainers"):
        for container in pod["spec"].get(kind) or []:
            for entry in container.get("env") or []:
                if entry.get("name") in SECRET and entry.get("value"):
                    raise UsageError(
                        f"{source}: spec.{kind}.{container['name']}.env.{entry['name']} holds a value that everybody can read who may read pods; "
                        "keep it in a Secret and refer to that: valueFrom.secretKeyRef"
                    )


def _checked(source: str, text: str) -> Template:
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise UsageError(f"{source}: must hold one object, a pod (kind: Pod), got {len(documents)} documents")
    pod = documents[0]
    if (pod.get("apiVersion"), pod.get("kind")) != ("v1", "Pod"):
        raise UsageError(f"{source}: is no pod: needs apiVersion v1 and kind Pod, got {pod.get('apiVersion')!r} and {pod.get('kind')!r}")
    for name in pod:
        if name not in FIELDS:
            raise UsageError(f"{source}: unknown field {name!r}; a pod has {', '.join(FIELDS)}")
    checked = {"metadata": _mapping(source, "metadata", pod.get("metadata") or {}), "spec": _mapping(source, "spec", pod.get("spec"))}
    _check_parts(source, **checked)
    worker_of(checked, source)
    check_secrets(checked, source)
    return Template(source, checked)


def _check_parts(source: str, metadata: dict[str, Any], spec: dict[str, Any]) -> None:
    """What merging relies on."""
    for part in ("labels", "annotations"):
        _mapping(source, f"metadata.{part}", metadata.get(part) or {})
    for kind in ("containers", "initContainers", "volumes"):
        _named(source, f"spec.{kind}", spec.get(kind) or [])
    if not spec.get("containers"):
        raise UsageError(f"{source}: spec.containers: a container is needed, to run the worker in, got {spec.get('containers')!r}")
    for kind in ("containers", "initContainers"):
        for container in spec.get(kind) or []:
            _named(source, f"spec.{kind}.{container['name']}.env", container.get("env") or [])
            _named(source, f"spec.{kind}.{container['name']}.volumeMounts", container.get("volumeMounts") or [], key="mountPath")


def _mapping(source: str, field: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{source}: {field}: must be a mapping, got {value!r}")
    return value


def _named(source: str, field: str, value: Any, *, key: str = "name") -> None:
    if not isinstance(value, list) or not all(isinstance(entry, dict) and isinstance(entry.get(key), str) for entry in value):
        raise UsageError(f"{source}: {field}: must be a list of mappings, each with a {key}")  # what it is may be secret
