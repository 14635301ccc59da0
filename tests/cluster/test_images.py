"""The images where they run: in pods with a read-only root, under a uid that nobody knows, and in the builder's store."""

import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator

import pytest

from images.build import build, builder, in_cluster, layers
from tests.cluster.cluster import RESTRICTED_POD, ROOT, absent, eventually, kubectl, pod

CONTEXT = ("LICENSE", "README.md", ".dockerignore", "images", "pyproject.toml", "requirements", "tts")
SHIPPED = 20_000_000
"""Bytes, unpacked, that a change of the program may send to each node."""
UNKNOWN = 1_234_567


@pytest.fixture(scope="module")
def inside(cluster, images) -> Iterator[Callable[..., str]]:
    """Runs a shell's line in a pod of the program's image, as an unknown user of group 0."""
    with cluster.namespace() as namespace:
        waiting = pod("inside", images.tts, ["sleep", "infinity"])
        waiting["spec"]["securityContext"] = RESTRICTED_POD | {"runAsUser": UNKNOWN, "runAsGroup": 0}
        cluster.apply(waiting, namespace=namespace)
        eventually(lambda: cluster.phase("inside", namespace) == "Running", "the pod runs")
        yield lambda line: cluster.inside("inside", namespace, "sh", "-c", line)


def test_any_user_of_group_0_will_do(inside):
    assert inside("id --user; id --group").split() == [str(UNKNOWN), "0"]
    assert inside("python3 -c 'import getpass, pathlib; print(getpass.getuser(), pathlib.Path.home())'").split() == ["tts", "/tmp"]  # noqa: S108


def test_everything_works_on_a_read_only_root(inside):
    assert "Read-only file system" in inside("touch /home/tts/x 2>&1 || true")
    findings = {finding["name"]: finding for finding in json.loads(inside("tts doctor --json"))}
    assert {name for name, finding in findings.items() if finding["needed"] and not finding["works"]} == set()
    assert findings["kfp"]["works"], findings["kfp"]["detail"]
    assert findings["espeak-ng"]["works"], findings["espeak-ng"]["detail"]


def test_a_pipelines_step_finds_what_it_starts(inside):
    for program in ("sh", "mktemp", "python3"):
        assert inside(f"command -v {program}").startswith("/")
    assert "--executor_input" in inside("python3 -m kfp.dsl.executor_main --help")


def test_it_holds_this_version_of_the_program_with_its_bytecode(inside):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert inside("python3 -c 'import importlib.metadata as m; print(m.version(\"smart-tuner-tts\"))'").strip() == version
    told = inside("python3 -c 'import tts, os; p = os.path.dirname(tts.__file__); print(p); print(os.path.exists(tts.__cached__))'").split()
    assert told == ["/opt/tts/lib/python3.11/site-packages/tts", "True"]


def test_no_compiler_installer_cache_or_test_is_left(inside):
    for program in ("gcc", "cc", "g++", "clang", "make", "nvcc", "git", "uv"):
        assert inside(f"command -v {program} || true") == ""
    assert inside("ls /root/.cache /tmp/uv /uv /wheel /source 2>/dev/null || true") == ""
    assert inside("python3 -m pip --version 2>&1 || true").endswith("No module named pip\n")
    assert inside("find /opt /home -perm -0002 ! -type l 2>/dev/null || true") == ""
    assert inside("find / -xdev -name test_doctor.py 2>/dev/null || true") == ""


def test_its_own_user_is_a_number_so_that_a_kubelet_can_tell_it_from_root(cluster, namespace, images):
    commands = {images.tts: ["10001", "0"], images.mlflow: ["10001", "0"], images.postgresql: ["999", "999"]}
    for number, image in enumerate(commands):
        cluster.apply(pod(f"user-{number}", image, ["sh", "-c", "id --user; id --group"]), namespace=namespace)
    for number, ids in enumerate(commands.values()):
        name = f"user-{number}"
        eventually(lambda name=name: cluster.phase(name, namespace) in {"Succeeded", "Failed"}, f"the end of {name}")
        assert cluster.logs(name, namespace).split() == ids


def test_the_mlflow_server_has_its_drivers(cluster, namespace, images):
    program = "import boto3, psycopg, mlflow.server; print(mlflow.__version__)"
    cluster.apply(pod("drivers", images.mlflow, ["python3", "-c", program]), namespace=namespace)
    eventually(lambda: cluster.phase("drivers", namespace) in {"Succeeded", "Failed"}, "the pod's end", 120)
    locked = (ROOT / "requirements" / "runtime.txt").read_text()
    assert f"\nmlflow=={cluster.logs('drivers', namespace).strip()} " in locked


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_changed_line_of_the_program_ships_little(tmp_path, images):
    if not os.environ.get("IMAGE_BUILDER") and not any(shutil.which(name) for name in ("docker", "podman", "buildah")):
        absent("no builder of images")
    for name in CONTEXT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, tmp_path / name)
    before, after = "smart-tuner-tts:before-change", "smart-tuner-tts:after-change"
    try:
        build("tts", before, tmp_path)
        with (tmp_path / "tts" / "errors.py").open("a") as file:
            file.write("\n# changed\n")
        build("tts", after, tmp_path)
        old = set(layers(before))
        fresh = [layer for layer in layers(after) if layer not in old]
        assert fresh, "the change is in no layer"
        assert sum(layer.size for layer in fresh) < SHIPPED, fresh
    finally:
        remove = ["buildah", "rmi"] if builder()[0] not in {"docker", "podman"} else [builder()[0], "rmi"]
        subprocess.run([*remove, before, after], check=False, capture_output=True)


def test_a_missing_image_is_said_by_name(cluster):
    assert in_cluster("smart-tuner-tts:never-built") == ""
    assert "never-built" not in kubectl("get", "pods").stdout
