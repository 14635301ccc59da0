#!/usr/bin/env python3
"""Builds the images, says what each layer weighs, and with --load brings what changed into the cluster of the current kubeconfig.

Needs Python's own library and a builder: IMAGE_BUILDER names one that takes `build` as docker does; else it is docker, podman or
buildah, whichever is there. IMAGE_BUILDER_FLAGS go to its `build` as well, with the image's name for {name}. IMAGE_LOADER names
the command that brings an image into the cluster; for kind it is known.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPOSITORIES = {"tts": "smart-tuner-tts", "postgresql": "tts-postgresql", "mlflow": "tts-mlflow"}
"""Each image's folder and the name that the manifests know it by."""
SHOWN_SECONDS = 60


@dataclass(frozen=True)
class Layer:
    """One step of a Dockerfile: when it was made, what it ran, and its size unpacked in bytes."""

    made: str
    step: str
    size: int


def output(*command: str, told: str = "") -> str:
    """What the command prints, given `told`. It ends the program where the command fails."""
    if shutil.which(command[0]) is None:
        sys.exit(f"images: there is no program {command[0]} on PATH")
    done = subprocess.run(command, cwd=ROOT, input=told, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603  # our own commands
    if done.returncode:
        sys.exit(f"images: failed with exit code {done.returncode}: {shlex.join(command)}")
    return done.stdout


def builder() -> list[str]:
    """The command that builds."""
    if named := os.environ.get("IMAGE_BUILDER"):
        if shutil.which(shlex.split(named)[0]) is None:
            sys.exit(f"images: IMAGE_BUILDER is {named}, and there is no such program")
        return shlex.split(named)
    for name in ("docker", "podman", "buildah"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:  # noqa: S603
            return [name]
    sys.exit("images: no builder works here: install docker, podman or buildah, or name one, as in IMAGE_BUILDER=/path/to/builder")


def loader() -> list[str]:
    """The command that brings an image into the cluster."""
    if named := os.environ.get("IMAGE_LOADER"):
        return shlex.split(named)
    context = output("kubectl", "config", "current-context").strip()
    if context.startswith("kind-"):
        return ["kind", "load", "docker-image", "--name", context.removeprefix("kind-")]
    sys.exit(f"images: it is unknown how context {context} takes images: say so, as in IMAGE_LOADER='k3d image import'")


def build(name: str, reference: str, context: Path = ROOT) -> None:
    """Builds one image from the files of `context`. The environment says more: BASE, REVISION, and for tts UV_TORCH_BACKEND."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    arguments = {"BASE": os.environ.get("BASE"), "REVISION": os.environ.get("REVISION"), "VERSION": version}
    if name == "tts":
        arguments["TORCH_BACKEND"] = os.environ.get("UV_TORCH_BACKEND")
    given = [part for key, value in arguments.items() if value for part in ("--build-arg", f"{key}={value}")]
    flags = shlex.split(os.environ.get("IMAGE_BUILDER_FLAGS", "").replace("{name}", name))
    command = [*builder(), "build", *flags, "--tag", reference, "--file", str(context / "images" / name / "Dockerfile"), *given, str(context)]
    done = subprocess.run(command, stdout=sys.stderr, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"images: {reference} could not be built: {shlex.join(command)} ended with exit code {done.returncode}")


def identity(reference: str) -> str:
    """What the builder's store calls the image, sha256 and all: the digest of its configuration."""
    if Path(builder()[0]).name in {"docker", "podman"}:
        found = output(builder()[0], "image", "inspect", "--format", "{{.Id}}", reference).strip()
    else:
        found = json.loads(output("buildah", "inspect", "--type", "image", reference))["FromImageID"]
    return f"sha256:{found.removeprefix('sha256:')}"


def layers(reference: str) -> list[Layer]:
    """The image's layers, the base's first."""
    if Path(builder()[0]).name in {"docker", "podman"}:
        history = output(builder()[0], "history", "--no-trunc", "--human=false", "--format", "{{.CreatedAt}}\t{{.Size}}\t{{.CreatedBy}}", reference)
        lines = [line.split("\t", 2) for line in reversed(history.splitlines())]
        return [Layer(made, step, int(size)) for made, size, step in lines if int(size)]
    store = json.loads(output("buildah", "info"))["store"]
    folder = Path(store["GraphRoot"]) / f"{store['GraphDriverName']}-layers"
    sizes = {layer.get("diff-digest"): layer.get("diff-size", 0) for layer in json.loads((folder / "layers.json").read_text())}
    about = json.loads(output("buildah", "inspect", "--type", "image", reference))["OCIv1"]
    steps = [step for step in about["history"] if not step.get("empty_layer")]
    return [
        Layer(step["created"], step.get("created_by", ""), sizes[digest]) for step, digest in zip(steps, about["rootfs"]["diff_ids"], strict=True)
    ]


def in_cluster(reference: str) -> str:
    """What the node calls the image that it has under this name, as a pod tells; empty where it has none."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "tts-image-check-"},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "main",
                    "image": reference,
                    "imagePullPolicy": "Never",
                    "command": ["true"],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
    made = output("kubectl", "create", "--filename", "-", "--output", "name", told=json.dumps(pod)).strip()
    try:
        end = time.monotonic() + SHOWN_SECONDS
        while time.monotonic() < end:
            for status in json.loads(output("kubectl", "get", made, "--output", "json"))["status"].get("containerStatuses", []):
                if status["imageID"]:
                    return str(status["imageID"])
                if status["state"].get("waiting", {}).get("reason") == "ErrImageNeverPull":
                    return ""
            time.sleep(0.3)
    finally:
        output("kubectl", "delete", made, "--wait=false")
    sys.exit(f"images: no pod with {reference} started within {SHOWN_SECONDS} s: kubectl describe node")


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=[], metavar="NAME", help=f"which, of {', '.join(REPOSITORIES)}; all of them unless said")
    parser.add_argument("--tag", default="test", help="the tag that they get")
    parser.add_argument("--load", action="store_true", help="bring them into the cluster, unless it has just these")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(REPOSITORIES)):
        sys.exit(f"images: there is no image {', '.join(unknown)}: there are {', '.join(REPOSITORIES)}")
    for name in given.names or REPOSITORIES:
        reference = f"{REPOSITORIES[name]}:{given.tag}"
        began = time.monotonic()
        build(name, reference)
        parts = layers(reference)
        print(f"{reference}: {sum(layer.size for layer in parts) / 1e6:,.0f} MB, built in {time.monotonic() - began:.0f} s")  # noqa: T201
        for layer in parts:
            print(f"  {layer.size / 1e6:10,.1f} MB  {' '.join(layer.step.split())[:100]}")  # noqa: T201
        if given.load and identity(reference) not in in_cluster(reference):
            began = time.monotonic()
            output(*loader(), reference)
            print(f"  loaded in {time.monotonic() - began:.0f} s")  # noqa: T201
        elif given.load:
            print("  the cluster has it")  # noqa: T201


if __name__ == "__main__":
    main()
