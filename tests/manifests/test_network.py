"""Who may talk to whom: every flow that the system needs, and nothing else. A test cluster may not enforce policies, so they are evaluated here."""

import itertools

import pytest

from tests.manifests.kustomize import built, named, of_kind, overlay, pods
from tests.manifests.network import Peer, allowed, selects

PROFILE = "kubeflow-user-example-com"
NAMESPACES = {"test": "tts", "cloud": "tts", "kubeflow": PROFILE}
STEP = {"pipelines.kubeflow.org/v2_component": "true"}

DNS = Peer("dns", {"k8s-app": "kube-dns"}, "kube-system")
METADATA = Peer("metadata", {"component": "metadata-grpc-server"}, "kubeflow")
PIPELINES = Peer("pipelines", {"app": "ml-pipeline"}, "kubeflow")
SEAWEED = Peer("seaweedfs", {"app": "seaweedfs"}, "kubeflow")
OTHER_SYSTEM = Peer("other system pod", {"k8s-app": "metrics-server"}, "kube-system")
OTHER_TENANT = Peer("other tenant", {"app.kubernetes.io/component": "trial"}, "someone-else")
API_SERVER = Peer("api server", address="10.0.0.1")
STORE_OUTSIDE = Peer("store outside", address="192.0.2.2")
INTERNET = Peer("internet", address="203.0.113.9")
METADATA_OF_CLOUD = Peer("metadata of the cloud", address="169.254.169.254")
DATABASE_OUTSIDE = Peer("database outside", address="10.20.0.5")

PORTS = (22, 53, 80, 443, 2049, 5000, 5432, 6443, 8080, 8333, 8887, 8888, 9000, 17070)


def inside(overlay_name):
    """Our pods as the overlay labels them; trial pods get the launcher's labels besides those of their template."""
    namespace = NAMESPACES[overlay_name]
    found = {name: pod.get("metadata", {}).get("labels", {}) for name, pod in pods(overlay(overlay_name))}
    return {
        "trial": Peer("trial", found["ConfigMap/tts-trial-pod"] | {"app.kubernetes.io/component": "trial"}, namespace),
        "launcher": Peer("launcher", {"app.kubernetes.io/component": "launcher"}, namespace),
        "step": Peer("step", STEP, namespace),
        "tracking": Peer("tracking", found["Deployment/tts-mlflow"], namespace),
        "database": Peer("database", found.get("StatefulSet/tts-postgresql", {"app.kubernetes.io/component": "database"}), namespace),
        "stranger": Peer("stranger", {"app": "notebook"}, namespace),
    }


NAMES = [("dns", 53, "UDP"), ("dns", 53, "TCP")]
OF_TRIALS = [("database", 5432, "TCP"), ("tracking", 5000, "TCP")]
TO_THE_API = [(end, port, "TCP") for port in (443, 6443) for end in (
    "api server", "internet", "store outside", "metadata of the cloud", "database outside", "dns", "metadata", "pipelines", "seaweedfs",
    "other system pod", "other tenant",
)]  # fmt: skip
"""No label and no address says where the API server is: those who need it may call these ports anywhere that lets them."""
TO_NEIGHBOURS = [(end, port, "TCP") for end in ("step", "stranger") for port in (443, 6443)]
OF_STEPS = [*OF_TRIALS, *TO_THE_API, ("metadata", 8080, "TCP"), ("pipelines", 8887, "TCP"), ("pipelines", 8888, "TCP"), ("seaweedfs", 8333, "TCP")]
STORE = {
    "test": [(end, 17070, "TCP") for end in (
        "api server", "internet", "store outside", "metadata of the cloud", "database outside", "dns", "metadata", "pipelines", "seaweedfs",
        "other system pod", "other tenant",
    )],
    "cloud": [("internet", 443, "TCP"), ("store outside", 443, "TCP")],
    "kubeflow": [("seaweedfs", 8333, "TCP")],
}  # fmt: skip
"""A throw-away cluster's object store is at any address."""
DATABASE = {"test": [], "cloud": [("database outside", 5432, "TCP")], "kubeflow": []}

FLOWS = {
    name: {
        "trial": [*NAMES, *OF_TRIALS, *STORE[name], *DATABASE[name]],
        "launcher": [*NAMES, *OF_TRIALS, *TO_THE_API, *STORE[name], *DATABASE[name]],
        "step": [*NAMES, *OF_STEPS, *STORE[name], *DATABASE[name]],
        "tracking": [*NAMES, ("database", 5432, "TCP"), *STORE[name], *DATABASE[name]],
        "database": [*NAMES],
        "stranger": [*NAMES],
    }
    for name in ("test", "cloud")
}
FLOWS["kubeflow"] = {
    who: [*NAMES, *flows, *STORE["kubeflow"]] if who != "database" else [*NAMES]
    for who, flows in {
        "trial": OF_TRIALS, "launcher": [*OF_TRIALS, *TO_THE_API, *TO_NEIGHBOURS], "tracking": [("database", 5432, "TCP")], "database": [],
    }.items()
}  # fmt: skip
"""In a profile the others' pods and the pipelines' steps are the platform's to bound: only what reaches ours counts."""


@pytest.mark.parametrize("name", ["test", "cloud", "kubeflow"])
def test_every_flow_that_is_needed_and_nothing_else(name):
    policies = of_kind(overlay(name), "NetworkPolicy")
    ours = inside(name)
    outside = {peer.name: peer for peer in (
        DNS, METADATA, PIPELINES, SEAWEED, OTHER_SYSTEM, OTHER_TENANT, API_SERVER, STORE_OUTSIDE, INTERNET, METADATA_OF_CLOUD, DATABASE_OUTSIDE,
    )}  # fmt: skip
    targets = {**ours, **outside}
    expected = {(who, *flow) for who, flows in FLOWS[name].items() for flow in flows}
    if "StatefulSet/tts-postgresql" not in dict(pods(overlay(name))):
        targets.pop("database")
        ours.pop("database")
        expected = {flow for flow in expected if "database" not in flow}
    got = {
        (who, end, port, protocol)
        for who, end, port, protocol in itertools.product(FLOWS[name], targets, PORTS, ("TCP", "UDP"))
        if who in ours and who != end and allowed(policies, ours[who], targets[end], port, protocol)
    }
    assert got == expected


@pytest.mark.parametrize("name", ["test", "kubeflow"])
def test_database_and_tracking_answer_their_clients_alone(name):
    policies = of_kind(overlay(name), "NetworkPolicy")
    ours = inside(name)
    foreign = {peer.name: peer for peer in (OTHER_TENANT, OTHER_SYSTEM, PIPELINES, SEAWEED)}
    clients = {
        server: {who for who, peer in {**ours, **foreign}.items() if who != server and allowed(policies, peer, ours[server], port)}
        for server, port in (("database", 5432), ("tracking", 5000))
    }
    assert clients == {"database": {"trial", "launcher", "step", "tracking"}, "tracking": {"trial", "launcher", "step"}}


def test_trials_of_katib_reach_its_collector_too():
    policies = of_kind(overlay("kubeflow"), "NetworkPolicy")
    policies += [policy | {"metadata": policy["metadata"] | {"namespace": PROFILE}} for policy in of_kind(built("katib"), "NetworkPolicy")]
    labels = inside("kubeflow")["trial"].labels
    trial = Peer("katib's trial", {**labels, "katib.kubeflow.org/trial": "tts-1"}, PROFILE)
    manager = Peer("db manager", {"katib.kubeflow.org/component": "db-manager"}, "kubeflow")
    stopping = Peer("early stopping", {"katib.kubeflow.org/deployment": "tts-multivariate-tpe"}, PROFILE)
    assert allowed(policies, trial, manager, 6789)
    assert allowed(policies, trial, stopping, 6788)
    assert not allowed(policies, trial, PIPELINES, 8888)
    assert not allowed(policies, inside("kubeflow")["trial"], manager, 6789)


def test_the_launchers_labels_are_those_that_policies_select():
    from tts.tuning.kubernetes.names import labels

    assert selects(named(overlay("test"), "NetworkPolicy", "trial")["spec"]["podSelector"], labels("tts-study"))


def test_a_pod_that_no_policy_selects_is_open_and_one_that_is_selected_is_not():
    deny = {"metadata": {"namespace": "a"}, "spec": {"podSelector": {"matchLabels": {"x": "1"}}, "policyTypes": ["Ingress"]}}
    one, two = Peer("one", {"x": "1"}, "a"), Peer("two", {"x": "2"}, "a")
    assert allowed([deny], one, two, 80)
    assert not allowed([deny], two, one, 80)
    assert allowed([], two, one, 80)
