"""What the launcher of trial pods costs with a Job of 1,000 indexes: CPU for each look at the workers, and memory. Needs a cluster.

The Job is real, and so are its pods, which Kubernetes' own controller makes; a scheduling gate holds them back, as no cluster for tests runs 1,000.
Each second one look, as `tts tune` does. CPU is the whole process's, its watches and lists included: first while the pods are made and change, then
while nothing happens but a list of all pods each few seconds, which otherwise comes each five minutes.

    python -m tests.benchmarks.launcher
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psutil
import yaml

from tests.cluster.cluster import Cluster
from tts.config.load import override
from tts.config.presets import demo
from tts.tuning.kubernetes.access import connect
from tts.tuning.kubernetes.launcher import KubernetesLauncher
from tts.tuning.kubernetes.template import read_template
from tts.tuning.launch import Task

PODS = 1000
RELIST_SECONDS = 5.0
LISTS = 24
"""Over which memory is looked at."""
SETTLING = 4
"""Lists before that."""


def measure() -> dict[str, float]:
    """launcher_poll_cpu_seconds: the most CPU between two looks, a second apart; memory in MiB."""
    cluster = Cluster()
    with tempfile.TemporaryDirectory() as folder, cluster.namespace() as namespace, _started(Path(folder), namespace) as launcher:
        me = psutil.Process()
        making = [_look(launcher)]
        end = time.monotonic() + 600
        while launcher.pods < PODS:
            if time.monotonic() > end:
                raise RuntimeError(f"only {launcher.pods} pods were made in ten minutes")
            making.append(_look(launcher))
        steady, resident = [], []
        for number in range(int((SETTLING + LISTS) * RELIST_SECONDS)):
            steady.append(_look(launcher))
            if number >= SETTLING * RELIST_SECONDS:
                resident.append(me.memory_info().rss / 2**20)
    tenth = max(1, len(resident) // 10)
    return {
        "launcher_poll_cpu_seconds": max(making + steady),
        "launcher_poll_cpu_seconds_mean": sum(making + steady) / len(making + steady),
        "launcher_memory_growth": sum(resident[-tenth:]) / tenth - sum(resident[:tenth]) / tenth,
        "launcher_memory": resident[-1],
        "launcher_pods_known_after_seconds": float(len(making)),
    }


@contextmanager
def _started(folder: Path, namespace: str) -> Iterator[KubernetesLauncher]:
    pod = read_template("").pod
    pod["spec"]["schedulingGates"] = [{"name": "smart-tuner-tts/benchmark"}]
    file = folder / "pod.yaml"
    file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", **pod}))
    config = override(demo(), {"cluster.template": str(file), "cluster.grace_seconds": 30})
    launcher = KubernetesLauncher(connect(namespace), read_template(str(file)), config, relist_seconds=RELIST_SECONDS)
    try:
        launcher.start(Task("s3://bucket/features", "", f"benchmark {uuid4().hex[:6]}"), PODS)
        yield launcher
    finally:
        launcher.stop()


def _look(launcher: KubernetesLauncher) -> float:
    """CPU seconds of one look and the second after it."""
    begun, cpu = time.monotonic(), time.process_time()
    launcher.poll()
    time.sleep(max(0.0, 1.0 - (time.monotonic() - begun)))
    return time.process_time() - cpu


if __name__ == "__main__":
    if not os.environ.get("KUBECONFIG"):
        sys.exit("launcher: KUBECONFIG names no cluster")
    json.dump(measure(), sys.stdout, indent=2)
    sys.stdout.write("\n")
