"""The manifests on a server: it takes each of them, a second time nothing changes, and what they install works."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, eventually, kubectl, pod
from tests.manifests.kustomize import OVERLAYS, built, containers, moved, overlay, pods
from tests.manifests.schemas import DEFINITIONS
from tts.config import Config
from tts.config.load import override
from tts.tuning.kubernetes.job import build
from tts.tuning.kubernetes.template import read_template
from tts.tuning.launch import Task

SHOWN = ("NetworkPolicy", "Role", "RoleBinding", "ServiceAccount", "ConfigMap", "Secret", "Service", "StatefulSet", "Deployment",
         "PodDisruptionBudget", "ResourceQuota", "LimitRange")  # fmt: skip


@pytest.fixture(scope="module")
def foreign_kinds(cluster: Cluster) -> Iterator[dict[str, str]]:
    """Definitions of the kinds that the cluster lacks: by hand where it has none of its own."""
    there = {found["metadata"]["name"] for found in cluster.get("customresourcedefinitions")}
    lacking = [found for found in DEFINITIONS if found["metadata"]["name"] not in there]
    cluster.apply(*lacking)
    try:
        for found in lacking:
            cluster.kubectl("wait", "--for=condition=Established", f"crd/{found['metadata']['name']}", "--timeout=30s")
        yield {found["metadata"]["name"]: "by hand" if found in lacking else "the cluster's" for found in DEFINITIONS}
    finally:
        for found in lacking:
            cluster.kubectl("delete", "crd", found["metadata"]["name"], "--wait=false")


@pytest.mark.parametrize("folder", [*(f"overlays/{name}" for name in OVERLAYS), "base", "katib", "pipeline"])
@pytest.mark.parametrize("way", ["--server-side=false", "--server-side=true"])
def test_the_server_takes_it(cluster, namespace, foreign_kinds, tmp_path, folder, way):
    place = moved(folder, namespace, tmp_path / "it")
    done = kubectl("apply", "--kustomize", str(place), "--dry-run=server", way, "--validate=strict", "--force-conflicts=" + way.split("=")[1])
    assert done.returncode == 0, done.stderr
    # The one warning is of the namespace, which is there already, made by the test.
    warned = [line for line in done.stderr.splitlines() if "kubectl.kubernetes.io/last-applied-configuration" not in line]
    assert warned == []
    taken = [line for line in done.stdout.splitlines() if "(server dry run)" in line]
    assert len(taken) == len(built(folder))


def test_the_definitions_refuse_what_is_not_in_them(cluster, namespace, foreign_kinds, tmp_path):
    (experiment, _) = built("katib")
    wrong = json.loads(json.dumps(experiment))
    wrong["spec"]["objective"]["typo"] = "minimize"
    message = cluster.refused("create", "--namespace", namespace, "--dry-run=server", "--validate=strict", "--filename", "-", told=json.dumps(wrong))
    assert foreign_kinds["experiments.kubeflow.org"] == "the cluster's" or 'unknown field "spec.objective.typo"' in message


def versions(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Each object that the overlay made, with its version."""
    marked = {}
    for kind in SHOWN:
        for found in cluster.get(kind, namespace=namespace, labels="app.kubernetes.io/part-of=smart-tuner-tts"):
            # A quota's status counts, a workload's tells of its pods: their generation says whether the object itself is another.
            counted = found["metadata"].get("generation") or found["metadata"]["resourceVersion"]
            marked[f"{kind}/{found['metadata']['name']}"] = str(found["spec"] if kind == "ResourceQuota" else counted)
    return marked


@pytest.mark.parametrize("way", ["--server-side=false", "--server-side=true"])
def test_a_second_time_nothing_changes(cluster, stack, way):
    once = [way, "--force-conflicts"] if way.endswith("true") else [way]
    cluster.kubectl("apply", "--kustomize", "manifests/overlays/test", *once)
    before = versions(cluster, stack.namespace)
    assert len(before) == len([found for found in overlay("test") if found["kind"] in SHOWN])
    cluster.kubectl("apply", "--kustomize", "manifests/overlays/test", *once)
    assert versions(cluster, stack.namespace) == before
    assert kubectl("diff", "--kustomize", "manifests/overlays/test", way).stdout == ""


def test_every_pod_runs_as_it_says(cluster, stack):
    found = cluster.get("pods", namespace=stack.namespace, labels="app.kubernetes.io/part-of=smart-tuner-tts")
    assert {entry["metadata"]["labels"]["app.kubernetes.io/name"] for entry in found} == {"postgresql", "mlflow"}
    for entry in found:
        assert all(state["ready"] for state in entry["status"]["containerStatuses"])
        name = entry["metadata"]["name"]
        assert cluster.inside(name, stack.namespace, "id", "-u").strip() == str(entry["spec"]["securityContext"]["runAsUser"])
        assert "Read-only file system" in kubectl("exec", name, "--namespace", stack.namespace, "--", "touch", "/etc/mine").stderr
        assert kubectl("exec", name, "--namespace", stack.namespace, "--", "ls", "/var/run/secrets/kubernetes.io").returncode != 0


def sql(cluster: Cluster, namespace: str, user: str, database: str, statement: str, password: str = "throw-away"):  # noqa: S107  # the overlay's
    """What psql says over the network, as one of the two users."""
    line = f'PGPASSWORD={password} psql --host=tts-postgresql --username={user} --dbname={database} --tuples-only --no-align --command="{statement}"'
    return kubectl("exec", "tts-postgresql-0", "--namespace", namespace, "--container=postgresql", "--", "sh", "-c", line)


def test_each_user_has_a_database_of_its_own(cluster, stack):
    for user in ("tts", "mlflow"):
        done = sql(cluster, stack.namespace, user, user, "SELECT current_user || ' ' || rolsuper FROM pg_roles WHERE rolname = current_user")
        assert done.stdout == f"{user} false\n", done.stderr
    assert "permission denied for database" in sql(cluster, stack.namespace, "tts", "mlflow", "SELECT 1").stderr
    assert "permission denied for database" in sql(cluster, stack.namespace, "mlflow", "tts", "SELECT 1").stderr
    wrong = sql(cluster, stack.namespace, "tts", "tts", "SELECT 1", password="wrong")  # noqa: S106  # it is
    assert "password authentication failed" in wrong.stderr
    assert "password authentication failed" in sql(cluster, stack.namespace, "postgres", "postgres", "SELECT 1").stderr  # it has none


def test_the_database_keeps_what_it_has_and_takes_a_new_password(cluster, stack):
    where, old = stack.namespace, "throw-away"
    assert sql(cluster, where, "tts", "tts", "CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer").returncode == 0
    new = "another's \\ $HOME"
    change = [("password", new)]
    try:
        _set(cluster, where, change)
        _restart(cluster, where)
        assert "password authentication failed" in sql(cluster, where, "tts", "tts", "SELECT 1", password=old).stderr
        quoted = "'" + new.replace("'", "'\\''") + "'"
        assert sql(cluster, where, "tts", "tts", "SELECT answer FROM kept", password=quoted).stdout == "42\n"
    finally:
        _set(cluster, where, [("password", old)])
        _restart(cluster, where)
    assert sql(cluster, where, "tts", "tts", "DROP TABLE kept").returncode == 0


def _set(cluster: Cluster, namespace: str, values: list[tuple[str, str]]) -> None:
    body = json.dumps({"stringData": dict(values)})
    cluster.kubectl("patch", "secret", "tts-study", "--namespace", namespace, "--patch-file", "/dev/stdin", told=body)


def _restart(cluster: Cluster, namespace: str) -> None:
    """A new pod on the same volume."""
    cluster.kubectl("delete", "pod", "tts-postgresql-0", "--namespace", namespace, "--wait")
    cluster.kubectl("rollout", "status", "statefulset/tts-postgresql", "--namespace", namespace, "--timeout=120s", seconds=130)


TRACKED = """
import mlflow, pathlib
with mlflow.start_run() as run:
    mlflow.log_metric('mel_loss', 0.5)
    pathlib.Path('/tmp/note.txt').write_text('kept')
    mlflow.log_artifact('/tmp/note.txt')
print(mlflow.get_tracking_uri(), run.info.run_id, mlflow.get_run(run.info.run_id).data.metrics)
"""


def test_a_run_is_tracked_and_its_artefact_lies_in_the_object_store(cluster, stack):
    (server,) = cluster.get("pods", namespace=stack.namespace, labels="app.kubernetes.io/name=mlflow")
    tracking = cluster.get("configmap", "tts-tracking", stack.namespace)["data"]["MLFLOW_TRACKING_URI"]
    said = cluster.inside(server["metadata"]["name"], stack.namespace, "env", f"MLFLOW_TRACKING_URI={tracking}", "python", "-c", TRACKED)
    uri, run, metrics = said.strip().splitlines()[-1].split(" ", 2)
    assert (uri, metrics) == ("http://tts-mlflow:5000", "{'mel_loss': 0.5}")
    assert [key for key in stack.store.objects("mlflow/") if run in key and key.endswith("/note.txt")]
    assert run in sql(cluster, stack.namespace, "mlflow", "mlflow", "SELECT run_uuid FROM metrics").stdout.splitlines()


@pytest.mark.parametrize(
    ("host", "status"), [("tts-mlflow:5000", 200), ("tts-mlflow.tts.svc:5000", 200), ("localhost:5000", 200), ("evil.example", 403)]
)
def test_the_tracking_server_answers_by_its_own_names_alone(cluster, stack, host, status):
    (server,) = cluster.get("pods", namespace=stack.namespace, labels="app.kubernetes.io/name=mlflow")
    program = (
        "import sys, http.client; c = http.client.HTTPConnection('tts-mlflow', 5000); "
        "c.request('GET', '/api/2.0/mlflow/experiments/get?experiment_id=0', headers={'Host': sys.argv[1]}); print(c.getresponse().status)"
    )
    assert cluster.inside(server["metadata"]["name"], stack.namespace, "python", "-c", program, host).strip() == str(status)


@pytest.fixture(scope="module")
def installed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base in a namespace of its own."""
    with cluster.namespace() as name:
        cluster.kubectl("apply", "--kustomize", str(moved("base", name, tmp_path_factory.mktemp("base"))))
        yield name


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"securityContext": {"privileged": True}}, "privileged"),
        ({"securityContext": {"allowPrivilegeEscalation": True}}, "allowPrivilegeEscalation != false"),
        (
            {"securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}},
            "unrestricted capabilities",
        ),
        ({"ports": [{"containerPort": 80, "hostPort": 80}]}, "hostPort"),
    ],
)
def test_the_namespace_refuses_what_is_not_restricted(cluster, installed, change, complaint):
    message = cluster.refused("create", "--namespace", installed, "--filename", "-", told=json.dumps(pod("it", "none", ["true"], **change)))
    assert "Error from server (Forbidden)" in message
    assert 'violates PodSecurity "restricted:latest"' in message
    assert complaint in message


def test_the_namespace_refuses_root(cluster, installed):
    root = pod("it", "none", ["true"])
    root["spec"]["securityContext"] = root["spec"]["securityContext"] | {"runAsUser": 0}
    assert "runAsUser=0" in cluster.refused("create", "--namespace", installed, "--filename", "-", told=json.dumps(root))


def taken(cluster: Cluster, namespace: str, template: dict[str, Any]) -> str:
    """What the server says of a pod of ours, which it must take: nothing."""
    template = json.loads(json.dumps(template))
    found = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template.get("metadata", {}), "generateName": "ours-"}, "spec": template["spec"]}
    found["spec"].setdefault("restartPolicy", "Never")
    there = {volume["name"] for volume in found["spec"]["volumes"]}
    for container in containers(found):
        container.setdefault("image", "smart-tuner-tts:test")
        claimed = {mount["name"] for mount in container["volumeMounts"]} - there  # a StatefulSet's own
        found["spec"]["volumes"] += [{"name": name, "emptyDir": {}} for name in claimed]
        there |= claimed
    done = kubectl("create", "--namespace", namespace, "--dry-run=server", "--validate=strict", "--filename", "-", told=json.dumps(found))
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("folder", [*(f"overlays/{name}" for name in OVERLAYS), "katib"])
def test_pods_of_ours_are_let_in_without_a_warning(cluster, installed, folder):
    found = {name: dict(template) for name, template in pods(built(folder))}
    assert found
    assert {name: taken(cluster, installed, template) for name, template in found.items()} == dict.fromkeys(found, "")


def test_a_studys_job_is_let_in_without_a_warning(cluster, installed, tmp_path):
    file = tmp_path / "trial-pod.yaml"
    file.write_text(cluster.get("configmap", "tts-trial-pod", installed)["data"]["trial-pod.yaml"])
    config = override(Config(), {"cluster.template": str(file), "cluster.image": "smart-tuner-tts:test"})
    job = build(Task("s3://tts/features", "", "voices"), 2, config, read_template(str(file)))
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == "tts-trial"
    done = kubectl("create", "--namespace", installed, "--dry-run=server", "--validate=strict", "--filename", "-", told=json.dumps(job))
    assert (done.returncode, done.stderr) == (0, "")


def test_katibs_job_is_let_in(cluster, installed):
    (experiment, _) = built("katib")
    job = json.loads(json.dumps(experiment["spec"]["trialTemplate"]["trialSpec"]))
    job["metadata"] = {"name": "tts-1"}
    done = kubectl("create", "--namespace", installed, "--dry-run=server", "--validate=strict", "--filename", "-", told=json.dumps(job))
    assert (done.returncode, done.stderr) == (0, "")


def test_who_asks_for_nothing_gets_the_default(cluster, installed):
    cluster.apply(pod("modest", "none", ["true"]), namespace=installed)
    (container,) = cluster.get("pod", "modest", installed)["spec"]["containers"]
    assert container["resources"] == {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "4Gi"}}
    cluster.kubectl("delete", "pod", "modest", "--namespace", installed, "--wait=false", "--grace-period=0", "--force")


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (pod("greedy", "none", ["true"], resources={"requests": {"cpu": "2k", "memory": "1Gi"}}), "exceeded quota: tts, requested: requests.cpu=2k"),
        (
            pod("greedy", "none", ["true"], resources={"limits": {"nvidia.com/gpu": "200"}}),
            "exceeded quota: tts, requested: requests.nvidia.com/gpu=200",
        ),
        (
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "open"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}},
            "exceeded quota: tts, requested: services.loadbalancers=1",
        ),
    ],
)
def test_a_mistake_ends_at_the_quota(cluster, installed, found, complaint):
    eventually(lambda: cluster.get("resourcequota", "tts", installed).get("status", {}).get("hard"), "the quota is counted")
    assert complaint in cluster.refused("create", "--namespace", installed, "--filename", "-", told=json.dumps(found))


def test_the_disruption_budget_holds_the_database(cluster, stack):
    eventually(lambda: cluster.get("pdb", "tts-postgresql", stack.namespace)["status"].get("expectedPods"), "the budget is counted")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "tts-postgresql-0", "namespace": stack.namespace}}
    path = f"/api/v1/namespaces/{stack.namespace}/pods/tts-postgresql-0/eviction"
    message = cluster.refused("create", "--raw", path, "--filename", "-", told=json.dumps(eviction))
    assert "Cannot evict pod as it would violate the pod's disruption budget" in message
