"""`tts pipeline upload`: the compiled pipeline as a version on a Kubeflow Pipelines server. A second time changes nothing."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from pipelines import COMPILED
from pipelines.form import Form
from pipelines.server import CONFLICT, Server, connect
from tts import __version__
from tts.errors import UsageError

Endpoint = Annotated[str, tyro.conf.arg(metavar="URL", help_behavior_hint="(default: what KF_PIPELINES_ENDPOINT says)")]


def upload(*, endpoint: Endpoint = "", package: Path = COMPILED, pipeline: str = "", version: str = "", namespace: str = "", ca: str = "") -> None:
    """Upload the compiled pipeline as a version; one that is there already stays.

    A token, where the server wants one, is in the environment variable KF_PIPELINES_TOKEN.

    Args:
        endpoint: Address of the Kubeflow Pipelines server.
        package: Compiled pipeline.
        pipeline: Name of the pipeline on the server; empty: its own.
        version: Name of the version; empty: this program's version and the commit, of a checkout with changes also what they come to.
        namespace: Namespace, on a server for several users.
        ca: File with the certificate of the server's authority; empty: the system's.
    """
    form = Form.of(package)
    pipeline, version = pipeline or form.pipeline, version or version_of(package)
    server = connect(endpoint, namespace, ca)
    made = _pipeline(server, pipeline)
    new = server.ask(
        lambda: server.client.upload_pipeline_version(str(package), version, pipeline_id=made), f"version {version}", allowed=(CONFLICT,)
    )
    if new is None:
        new = _there(server, made, version, package)
        print(f"version {version} of {pipeline} is there already")
    else:
        print(f"version {version} of {pipeline}: uploaded")
    print(f"id: {new.pipeline_version_id}")
    print(server.page("pipelines", f"{made}/version/{new.pipeline_version_id}"))


def _pipeline(server: Server, name: str) -> str:
    """Id of the pipeline, which is made where it is not there: by another at the same time, say."""
    import kfp_server_api

    found = _find(server, name)
    if found is None:
        body = kfp_server_api.V2beta1Pipeline(display_name=name, name=name, namespace=server.namespace)
        create = server.client.pipelines.pipeline_service_create_pipeline
        made = server.ask(lambda: create(body), f"pipeline {name}", allowed=(CONFLICT,))
        found = made.pipeline_id if made else _find(server, name)
    if found is None:
        raise UsageError(f"{server.host} says that pipeline {name} exists, and does not show it: it is in another namespace; give --namespace")
    return str(found)


def _find(server: Server, name: str) -> str | None:
    answer = server.ask(lambda: server.client.list_pipelines(filter=_called(name), namespace=server.namespace), f"pipeline {name}")
    return next((str(found.pipeline_id) for found in answer.pipelines or ()), None)


def _called(name: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _there(server: Server, pipeline: str, version: str, package: Path) -> Any:
    """The version of that name. Raises UsageError where it is another pipeline: versions never change."""
    answer = server.ask(lambda: server.client.list_pipeline_versions(pipeline, filter=_called(version)), f"version {version}")
    for found in answer.pipeline_versions or ():
        known = found.pipeline_spec or {}
        if known and known.get("pipeline_spec", known) != next(iter(yaml.safe_load_all(package.read_text(encoding="utf-8")))):
            raise UsageError(f"version {version} is on {server.host} with another content, and versions never change; give another --version")
        return found
    raise UsageError(f"{server.host} says that version {version} exists, and does not show it; give another --version")


def version_of(package: Path) -> str:
    """A name for the version: where the package is as it was committed the commit, else with a hash of what it is."""
    commit = _git(package, "rev-parse", "--short=12", "HEAD")
    changed = not commit or _git(package, "status", "--porcelain", "--", package.name) != "" or not _git(package, "ls-files", package.name)
    digest = hashlib.sha256(package.read_bytes()).hexdigest()[:8] if changed else ""
    return "-".join(part for part in (__version__, commit, digest) if part)


def _git(package: Path, *arguments: str) -> str:
    try:
        command = ["git", "-C", str(package.resolve().parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603  # our own words
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
