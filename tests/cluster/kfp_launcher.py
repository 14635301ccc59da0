"""Stands in for the launcher of Kubeflow Pipelines inside a step's pod: fetches inputs, runs the component's command, uploads outputs.

As the real one: a URI's content is under /minio or /s3, inputs are fetched by their prefix, an output is uploaded from its custom path if it has
one, outputs of a failed step are not uploaded, and a component's exit code is lost: a pod that fails ends with 1.

    python3 kfp_launcher.py EXECUTOR_INPUT -- COMMAND ARGUMENTS
"""

import json
import subprocess
import sys
from pathlib import Path

import boto3

DONE = "executor output: "


def place(uri):
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    return bucket, key, Path("/", scheme, rest)


def fetch(store, uri):
    bucket, key, path = place(uri)
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
    for found in (found for page in pages for found in page.get("Contents", [])):
        below = found["Key"][len(key) :]
        if not below or below.startswith("/"):
            target = Path(f"{path}{below}")
            target.parent.mkdir(parents=True, exist_ok=True)
            store.download_file(bucket, found["Key"], str(target))


def upload(store, artefact):
    bucket, key, path = place(artefact["uri"])
    path = Path(artefact.get("custom_path") or path)
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            below = "" if file == path else f"/{file.relative_to(path).as_posix()}"
            kind = {"ExtraArgs": {"ContentType": "text/html"}} if artefact["type"]["schemaTitle"] == "system.HTML" else {}
            store.upload_file(str(file), bucket, f"{key}{below}", **kind)


def main():
    given, command = json.loads(sys.argv[1]), sys.argv[3:]
    store = boto3.client("s3")
    for held in given["inputs"].get("artifacts", {}).values():
        fetch(store, held["artifacts"][0]["uri"])
    outputs = {name: held["artifacts"][0] for name, held in given["outputs"]["artifacts"].items()}
    for artefact in outputs.values():
        place(artefact["uri"])[2].parent.mkdir(parents=True, exist_ok=True)
    code = subprocess.run([argument.replace("{{$}}", sys.argv[1]) for argument in command], check=False).returncode
    if code:
        return 1
    written = json.loads(Path(given["outputs"]["outputFile"]).read_text())
    for name, artefact in outputs.items():
        artefact |= {key: value for key, value in written["artifacts"][name]["artifacts"][0].items() if value or key == "metadata"}
        upload(store, artefact)
    sys.stdout.write(f"{DONE}{json.dumps(outputs)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
