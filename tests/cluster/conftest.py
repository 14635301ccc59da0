"""Fixtures of the tests that need a cluster. Each test in this folder is marked `cluster`: make test-cluster runs them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from images.build import REPOSITORIES, in_cluster
from tests.cluster.cluster import ApiServer, Cluster, Control, Kubelet, absent, kubectl
from tests.cluster.object_store import ObjectStore, server

STACK = "tts"
"""The namespace that manifests/overlays/test installs into."""
OURS = "smart-tuner-tts/test"
"""The annotation of a namespace that tests may take over and delete."""
ROLLOUT_SECONDS = 240


@dataclass(frozen=True)
class Images:
    """The names of the images that `make test-cluster` brings into the cluster."""

    tts: str
    postgresql: str
    mlflow: str


@dataclass(frozen=True)
class Stack:
    """The installed test overlay: its namespace, and the object store with the bucket that it uses."""

    namespace: str
    store: ObjectStore


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks this folder's tests, before those that were not asked for are taken out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("cluster")


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster of KUBECONFIG. Without one the tests are skipped, or with CI=true fail."""
    if not os.environ.get("KUBECONFIG"):
        absent("KUBECONFIG names no cluster")
    found = Cluster()
    found.kubectl("get", "nodes", seconds=30)
    return found


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own that refuses pods outside the restricted profile."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> Images:
    """The images that pods use. The cluster has them: `make test-cluster` builds them and brings them in."""
    tag = os.environ.get("TTS_TEST_TAG", "test")
    names = {name: f"{repository}:{tag}" for name, repository in REPOSITORIES.items()}
    for name in names.values():
        assert in_cluster(name), f"the cluster has no image {name}: make test-cluster brings it in"
    return Images(**names)


@pytest.fixture(scope="session")
def cluster_control(cluster: Cluster) -> Control:
    """Faults of the cluster itself. Without TTS_CLUSTER_CONTROL the tests are skipped, or with CI=true fail."""
    program = os.environ.get("TTS_CLUSTER_CONTROL")
    if not program:
        absent("TTS_CLUSTER_CONTROL names no program that stops the cluster's processes")
    return Control(program, cluster)


@pytest.fixture
def api_server(cluster_control: Control) -> Iterator[ApiServer]:
    """The API server, to be stopped; it runs again at the end."""
    handle = ApiServer(cluster_control)
    yield handle
    handle.start()


@pytest.fixture
def kubelet(cluster_control: Control) -> Iterator[Kubelet]:
    """The node's agent, to be stopped; it runs again at the end."""
    handle = Kubelet(cluster_control)
    yield handle
    handle.up()


@pytest.fixture(scope="session")
def s3_server(cluster: Cluster) -> ObjectStore:
    """The S3 server that pods and this process reach, without a bucket."""
    program = os.environ.get("TTS_CLUSTER_CONTROL")
    return server(Control(program, cluster) if program else None)


@pytest.fixture
def object_store(s3_server: ObjectStore) -> Iterator[ObjectStore]:
    """A bucket of the test's own on it."""
    with s3_server.own_bucket() as own:
        yield own


@pytest.fixture(scope="session")
def stack(cluster: Cluster, images: Images, s3_server: ObjectStore) -> Iterator[Stack]:
    """The test overlay, installed and ready; removed at the end. A namespace of that name that tests did not make is left alone."""
    with installed(cluster, s3_server) as made:
        yield made


@contextmanager
def installed(cluster: Cluster, s3_server: ObjectStore) -> Iterator[Stack]:
    """The test overlay for the time of the block; the cluster has its images."""
    there = [found for found in cluster.get("namespaces") if found["metadata"]["name"] == STACK]
    if there and OURS not in there[0]["metadata"].get("annotations", {}):
        pytest.fail(f"namespace {STACK} exists, and tests did not make it: they would delete it. Delete it, or name another cluster")
    with s3_server.own_bucket(STACK) as store:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": STACK, "annotations": {OURS: "true"}}})
        cluster.apply(store.secret(), namespace=STACK)
        cluster.kubectl("apply", "--kustomize", "manifests/overlays/test")
        cluster.kubectl("annotate", "namespace", STACK, f"{OURS}=true", "--overwrite")
        try:
            for workload in ("statefulset/tts-postgresql", "deployment/tts-mlflow"):
                cluster.kubectl("rollout", "status", workload, "--namespace", STACK, f"--timeout={ROLLOUT_SECONDS}s", seconds=ROLLOUT_SECONDS + 10)
            yield Stack(STACK, store)
        finally:
            cluster.end_jobs(STACK)
            cluster.kubectl("delete", "--kustomize", "manifests/overlays/test", "--ignore-not-found", "--wait", seconds=180)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """A failed test shows what its namespace held: it is gone by the time anybody looks."""
    report = yield
    used = getattr(item, "funcargs", {})
    name = used.get("namespace") or (used["stack"].namespace if "stack" in used else "")
    if report.failed and name:
        shown = kubectl("get", "jobs,pods,events", "--namespace", name, "--output", "wide", seconds=60)
        report.sections.append((f"namespace {name}", shown.stdout + shown.stderr))
    return report
