"""`python -m pipelines.objects`: the compiled pipeline as objects of Kubernetes, for a Kubeflow Pipelines that keeps pipelines there.

A version cannot be changed once it is in a cluster, so its name holds a hash of what it is: `kubectl apply` adds a version where the pipeline
has changed, and nothing where it has not.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import yaml

from pipelines.compile import COMPILED
from tts import __version__
from tts.storage import writing

OBJECTS = Path(__file__).parents[1] / "manifests" / "pipeline" / "pipeline.yaml"
API = "pipelines.kubeflow.org/v2beta1"
HEAD = "# Made by `python -m pipelines.objects` from the compiled pipeline; a test holds it current.\n"


def objects(compiled: bytes) -> list[dict[str, Any]]:
    """The Pipeline and its PipelineVersion. `compiled` is the compiler's YAML: the pipeline, and what it says of the platform."""
    pipeline, *platforms = yaml.safe_load_all(compiled)
    name, digest = pipeline["pipelineInfo"]["name"], hashlib.sha256(compiled).hexdigest()[:8]
    shown = pipeline["pipelineInfo"].get("displayName", name)
    described = pipeline["pipelineInfo"].get("description", "")
    version = f"{__version__}-{digest}"
    spec: dict[str, Any] = {
        "pipelineName": name,
        "versionName": version,
        "displayName": version,
        "description": described,
        "pipelineSpec": pipeline,
    }
    for platform in platforms:
        spec["platformSpec"] = platform
    return [
        {"apiVersion": API, "kind": "Pipeline", "metadata": {"name": name}, "spec": {"displayName": shown, "description": described}},
        {"apiVersion": API, "kind": "PipelineVersion", "metadata": {"name": f"{name}-{version}"}, "spec": spec},
    ]


def text(compiled: bytes) -> str:
    """The file with both objects."""
    return HEAD + yaml.safe_dump_all(objects(compiled), sort_keys=False, allow_unicode=True, width=150)


def main() -> int:
    """Writes the file where it is not current."""
    content = text(COMPILED.read_bytes()).encode()
    current = OBJECTS.exists() and OBJECTS.read_bytes() == content
    if not current:
        with writing(OBJECTS) as file:
            file.write(content)
    print(f"{OBJECTS.relative_to(OBJECTS.parents[2])}: {'is current' if current else 'written'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
