"""Who may do what: each verb that is needed, none beside it, by the server's own word and by calls that it refuses."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.cluster import Cluster, kubectl
from tests.manifests.kustomize import MANIFESTS, build, moved

NEEDED = [
    *(f"{verb} jobs.batch" for verb in ("create", "get", "list", "watch", "delete", "patch")),
    *(f"{verb} pods" for verb in ("get", "list", "watch")),
    "get pods --subresource=log",
    "list events",
    "get workflows.argoproj.io",
    "create workflowtaskresults.argoproj.io",
    "patch workflowtaskresults.argoproj.io",
    "get configmaps/kfp-launcher",
    "get secrets/mlpipeline-minio-artifact",
]
DENIED = [
    *(f"{verb} secrets" for verb in ("get", "list", "watch", "create", "update", "patch", "delete")),
    "get secrets/tts-study",
    "get secrets/tts-object-store",
    "list secrets/mlpipeline-minio-artifact",
    *(f"{verb} pods" for verb in ("create", "update", "patch", "delete", "deletecollection")),
    *(f"{verb} pods --subresource={part}" for verb, part in (("create", "exec"), ("get", "exec"), ("create", "portforward"), ("create", "eviction"))),
    *(f"{verb} jobs.batch" for verb in ("update", "deletecollection")),
    "update jobs.batch --subresource=status",
    *(f"{verb} configmaps" for verb in ("get", "list", "create", "update", "delete")),
    *(f"create {kind}" for kind in ("deployments.apps", "statefulsets.apps", "daemonsets.apps", "cronjobs.batch", "services")),
    *(f"{verb} workflows.argoproj.io" for verb in ("list", "create", "patch", "delete")),
    *(f"{verb} workflowtaskresults.argoproj.io" for verb in ("get", "list", "delete")),
    *(f"create {kind}.rbac.authorization.k8s.io" for kind in ("roles", "rolebindings", "clusterroles", "clusterrolebindings")),
    "create serviceaccounts --subresource=token",
    "impersonate serviceaccounts",
    "create events",
    "get events",
    "list networkpolicies.networking.k8s.io",
    "delete resourcequotas",
]  # fmt: skip
OF_THE_CLUSTER = [
    "list nodes",
    "list namespaces",
    "delete namespaces",
    "list persistentvolumes",
    "create customresourcedefinitions.apiextensions.k8s.io",
]


@pytest.fixture(scope="module")
def installed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base in a namespace of its own."""
    with cluster.namespace() as name:
        cluster.kubectl("apply", "--kustomize", str(moved("base", name, tmp_path_factory.mktemp("base"))))
        yield name


@pytest.fixture(scope="module")
def as_account(cluster: Cluster, installed: str, tmp_path_factory: pytest.TempPathFactory):
    """kubectl with the token of an account, and with nothing else to be known by."""
    found = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "--flatten", "--output", "json"))["clusters"][0]["cluster"]
    folder = tmp_path_factory.mktemp("accounts")

    def call(account: str, *arguments: str, told: str = ""):
        token = cluster.kubectl("create", "token", account, "--namespace", installed)
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": found}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": installed}}],
        }  # fmt: skip
        (folder / account).write_text(json.dumps(config))
        return kubectl("--kubeconfig", str(folder / account), *arguments, told=told)

    return call


def rights(cluster: Cluster, asked: list[str], account: str, namespace: str, where: str | None = None) -> dict[str, bool]:
    """The server's word on each, for an account of `namespace`: `where` is another namespace, or empty for all of them."""
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{namespace}:{account}",
                "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"],
                "resourceAttributes": {"namespace": namespace if where is None else where, **attributes(what)},
            },
        }
        for what in asked
    ]
    told = json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews})
    answers = yaml.safe_load_all(cluster.kubectl("create", "--filename", "-", "--output", "yaml", told=told))
    return {what: review["status"]["allowed"] for what, review in zip(asked, answers, strict=True)}


def attributes(what: str) -> dict[str, str]:
    """`get secrets/name`, `list jobs.batch`, `get pods --subresource=log` in the API's words."""
    verb, kind, *rest = what.split()
    kind, _, name = kind.partition("/")
    resource, _, group = kind.partition(".")
    subresource = rest[0].removeprefix("--subresource=") if rest else ""
    return {"verb": verb, "group": group, "resource": resource, "name": name, "subresource": subresource}


def job(name: str) -> str:
    """As small a Job as the namespace takes."""
    security = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    container = {
        "name": "main", "image": "none", "command": ["true"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    pod = {"spec": {"restartPolicy": "Never", "securityContext": security, "containers": [container]}}
    return json.dumps({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"suspend": True, "template": pod}})


def test_the_launcher_may_what_it_needs(cluster, installed):
    found = rights(cluster, NEEDED, "tts-launcher", installed)
    assert [what for what, allowed in found.items() if not allowed] == []


def test_the_launcher_may_nothing_else(cluster, installed):
    found = rights(cluster, DENIED, "tts-launcher", installed)
    assert [what for what, allowed in found.items() if allowed] == []


@pytest.mark.parametrize("where", ["default", "kube-system", ""])
def test_the_launcher_may_nothing_next_door_or_everywhere(cluster, installed, where):
    found = rights(cluster, [*NEEDED, *OF_THE_CLUSTER], "tts-launcher", installed, where)
    assert [what for what, allowed in found.items() if allowed] == []


@pytest.mark.parametrize("account", ["tts-trial", "tts-service", "default"])
def test_the_others_may_nothing(cluster, installed, account):
    found = rights(cluster, [*NEEDED, *DENIED, *OF_THE_CLUSTER], account, installed)
    assert [what for what, allowed in found.items() if allowed] == []


@pytest.mark.parametrize(
    ("account", "what", "answer"),
    [
        ("tts-launcher", "create jobs", "yes"),
        ("tts-launcher", "get pods --subresource=log", "yes"),
        ("tts-launcher", "list secrets", "no"),
        ("tts-launcher", "create pods", "no"),
        ("tts-trial", "get pods", "no"),
    ],
)
def test_kubectl_says_the_same(installed, account, what, answer):
    done = kubectl("auth", "can-i", *what.split(), "--namespace", installed, f"--as=system:serviceaccount:{installed}:{account}")
    assert done.stdout.strip() == answer


def test_what_the_trial_account_is_told_that_it_may_is_what_everybody_may(cluster, installed):
    listed = {
        account: cluster.kubectl(
            "auth", "can-i", "--list", "--no-headers", "--namespace", installed, f"--as=system:serviceaccount:{installed}:{account}"
        )
        for account in ("tts-trial", "nobody-made-this-one")
    }
    assert "selfsubjectreviews" in listed["tts-trial"]
    assert sorted(listed["tts-trial"].splitlines()) == sorted(listed["nobody-made-this-one"].splitlines())


def test_a_call_that_is_allowed_is_made(cluster, installed, as_account):
    made = as_account("tts-launcher", "create", "--filename", "-", told=job("mine"))
    assert made.returncode == 0, made.stderr
    assert as_account("tts-launcher", "get", "jobs", "--output", "name").stdout == "job.batch/mine\n"
    assert as_account("tts-launcher", "delete", "job", "mine", "--wait=false").returncode == 0
    assert "mine" not in cluster.kubectl("get", "jobs", "--namespace", installed, "--selector", "none=none", "--output", "name")


@pytest.mark.parametrize(
    ("account", "arguments", "verb"),
    [
        ("tts-launcher", ["get", "secrets"], 'cannot list resource "secrets"'),
        ("tts-launcher", ["get", "secret", "tts-study"], 'cannot get resource "secrets"'),
        ("tts-launcher", ["get", "pods", "--namespace", "kube-system"], 'cannot list resource "pods"'),
        ("tts-launcher", ["delete", "configmap", "tts-trial-pod"], 'cannot delete resource "configmaps"'),
        ("tts-trial", ["get", "pods"], 'cannot list resource "pods"'),
        ("tts-trial", ["get", "jobs"], 'cannot list resource "jobs"'),
        ("tts-trial", ["get", "secret", "tts-study"], 'cannot get resource "secrets"'),
        ("tts-service", ["get", "secrets"], 'cannot list resource "secrets"'),
    ],
)
def test_a_call_that_is_not_allowed_is_refused(cluster, installed, as_account, account, arguments, verb):
    study = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tts-study"}, "data": {"storage": base64.b64encode(b"url").decode()}}
    cluster.apply(study, namespace=installed)  # what is refused is there
    done = as_account(account, *arguments)
    assert done.returncode == 1
    assert "Error from server (Forbidden)" in done.stderr
    assert f'User "system:serviceaccount:{installed}:{account}" {verb}' in done.stderr
    assert done.stdout == ""
    assert cluster.get("configmap", "tts-trial-pod", installed)["data"]


def test_a_job_next_door_is_refused(as_account):
    done = as_account("tts-launcher", "create", "--namespace", "default", "--filename", "-", told=job("not-mine"))
    assert done.returncode == 1
    assert 'cannot create resource "jobs" in API group "batch" in the namespace "default"' in done.stderr


def test_a_pod_of_the_launchers_own_is_refused(as_account):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shell"}, "spec": json.loads(job("x"))["spec"]["template"]["spec"]}
    done = as_account("tts-launcher", "create", "--filename", "-", told=json.dumps(pod))
    assert done.returncode == 1
    assert 'cannot create resource "pods"' in done.stderr


def test_the_accounts_of_a_profile_may_launch(cluster, tmp_path):
    with cluster.namespace() as profile:
        for account in ("default-editor", "pipeline-runner"):
            cluster.kubectl("create", "serviceaccount", account, "--namespace", profile)
        granting = [found for found in _profile(tmp_path, profile) if found["kind"] in ("Role", "RoleBinding", "ServiceAccount")]
        cluster.apply(*granting, namespace=profile)
        for account in ("default-editor", "pipeline-runner"):
            assert rights(cluster, ["create jobs.batch", "list secrets"], account, profile) == {"create jobs.batch": True, "list secrets": False}


def _profile(place: Path, namespace: str) -> list[dict]:
    """The overlay for Kubeflow with its namespace set to another, as its user does."""
    shutil.copytree(MANIFESTS, place / "manifests")
    file = place / "manifests" / "overlays" / "kubeflow" / "namespace.yaml"
    file.write_text(file.read_text().replace("kubeflow-user-example-com", namespace))
    return list(yaml.safe_load_all(build(file.parent)))
