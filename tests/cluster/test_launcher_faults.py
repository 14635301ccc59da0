"""What befalls trial pods, their launcher and the API between them, on a real cluster."""

import time

import pytest
import yaml
from kubernetes import client

from tests.cluster.cluster import eventually
from tests.cluster.launching import FOREVER, kubeconfig_of, polled, room
from tests.tracking.relay import Relay
from tts.errors import ServiceUnavailableError, UsageError
from tts.tuning.kubernetes.books import PodBook
from tts.tuning.kubernetes.watch import Watch
from tts.tuning.launch import Workers
from tts.tuning.report.fleet import reason_of

__all__ = ["room"]  # a fixture

EATS_MEMORY = "python3 -c \"x = b'x' * 500_000_000\""


def started(room, shell=FOREVER, workers=1, **said):
    launcher = room.launcher(shell, **said)
    launcher.start(room.task(), workers)
    return launcher


def test_a_worker_that_is_killed_for_its_memory_says_so(room):
    launcher = started(room, f"exec {EATS_MEMORY}", pod_retries=0)

    (ended,) = polled(launcher, lambda workers: workers.alive == 0).ended

    assert ended.code == -9
    assert ended.reason.startswith("was killed for its memory (OOMKilled, limit 64Mi); give it more in the pods' template or")


def test_an_evicted_worker_goes_on_in_another_pod_and_costs_no_retry(room):
    launcher = started(room, pod_retries=0)
    (first,) = room.running(launcher, 1)

    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name=first.metadata.name, namespace=room.namespace))
    room.cluster.core.create_namespaced_pod_eviction(first.metadata.name, room.namespace, eviction)

    workers = polled(launcher, lambda workers: workers.notes)
    assert workers.notes == (f"worker 0 was evicted, as when its node is drained (pod {first.metadata.name})",)
    assert (workers.alive, workers.ended) == (1, ())
    (second,) = eventually(lambda: [p for p in room.running(launcher, 1) if p.metadata.uid != first.metadata.uid], "another pod runs")
    assert second.metadata.labels["batch.kubernetes.io/job-completion-index"] == "0"


@pytest.mark.parametrize("grace", [None, 0])
def test_a_worker_whose_pod_is_deleted_is_started_again(room, grace):
    launcher = started(room, pod_retries=3)
    (first,) = room.running(launcher, 1)

    room.cluster.core.delete_namespaced_pod(first.metadata.name, room.namespace, grace_period_seconds=grace)

    workers = polled(launcher, lambda workers: workers.notes)
    assert workers.notes[0].startswith("worker 0 was deleted")
    assert (workers.alive, workers.ended) == (1, ())
    eventually(lambda: [p for p in room.running(launcher, 1) if p.metadata.uid != first.metadata.uid], "another pod runs")


def test_workers_for_whom_there_is_no_gpu_wait_and_say_why(room):
    workers = polled(started(room, workers=2, gpus_per_trial=16), lambda workers: workers.waiting)

    (line,) = workers.waiting
    assert line.startswith("2 pods wait: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu")
    assert workers.alive == 2


def test_a_quota_that_is_used_up_is_named(room):
    quota = client.V1ResourceQuota(metadata=client.V1ObjectMeta(name="small"), spec=client.V1ResourceQuotaSpec(hard={"pods": "0"}))
    room.cluster.core.create_namespaced_resource_quota(room.namespace, quota)
    eventually(lambda: room.cluster.core.read_namespaced_resource_quota("small", room.namespace).status.hard, "the quota holds")

    workers = polled(started(room), lambda workers: workers.waiting)

    (line,) = workers.waiting
    assert line.startswith("1 pod waits: the cluster does not make them: pods ")
    assert "exceeded quota: small" in line


def test_pods_that_the_namespace_does_not_let_in_are_told_with_the_rule(room):
    workers = polled(started(room, template={"hostNetwork": True}), lambda workers: workers.waiting)

    assert 'violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)' in workers.waiting[0]


def test_a_secret_that_is_missing_is_named(room):
    env = [{"name": "TTS_STORAGE", "valueFrom": {"secretKeyRef": {"name": "tts-study", "key": "storage"}}}]

    workers = polled(started(room, container={"env": env}), lambda workers: workers.waiting)

    assert workers.waiting == ('1 pod waits: CreateContainerConfigError: secret "tts-study" not found',)


def test_an_image_that_is_missing_is_named_with_the_clusters_words(room):
    workers = polled(started(room, image="localhost/nobody/nothing:1"), lambda workers: workers.waiting)

    assert workers.waiting[0].startswith("1 pod waits: image localhost/nobody/nothing:1 cannot be pulled: failed to pull")


def test_a_volume_that_is_missing_is_told_by_its_events(room):
    volume = {"name": "tmp", "configMap": {"name": "nowhere"}}
    launcher = started(room, template={"volumes": [volume, {"name": "node-cache", "emptyDir": {}}]})

    workers = polled(launcher, lambda workers: workers.waiting)

    assert 'configmap "nowhere" not found' in workers.waiting[0]


@pytest.fixture
def account(room):
    """Makes a service account that may do what is listed, and gives a token for it."""

    def make(*rules):
        name, core, rbac = "limited", room.cluster.core, client.RbacAuthorizationV1Api(room.cluster.core.api_client)
        meta = client.V1ObjectMeta(name=name)
        core.create_namespaced_service_account(room.namespace, client.V1ServiceAccount(metadata=meta))
        listed = [client.V1PolicyRule(api_groups=[group], resources=[resource], verbs=verbs.split()) for group, resource, verbs in rules]
        rbac.create_namespaced_role(room.namespace, client.V1Role(metadata=meta, rules=listed))
        subject = client.RbacV1Subject(kind="ServiceAccount", name=name, namespace=room.namespace)
        reference = client.V1RoleRef(api_group="rbac.authorization.k8s.io", kind="Role", name=name)
        rbac.create_namespaced_role_binding(room.namespace, client.V1RoleBinding(metadata=meta, subjects=[subject], role_ref=reference))
        request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
        return core.create_namespaced_service_account_token(name, room.namespace, request).status.token

    return make


def test_a_verb_that_is_forbidden_is_named_with_what_grants_it(room, account, tmp_path, monkeypatch):
    token = account(("batch", "jobs", "get list watch"))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig_of(tmp_path, room.namespace, token=token)))

    with pytest.raises(UsageError) as refused:
        started(room)

    assert f"may not do this: create jobs in namespace {room.namespace}" in str(refused.value)
    assert "role tts-launcher in manifests/base/rbac.yaml grants it" in str(refused.value)
    assert token not in str(refused.value)


def test_the_role_that_manifests_grant_is_enough(room, account, tmp_path, monkeypatch):
    documents = yaml.safe_load_all((tmp_path.cwd() / "manifests" / "base" / "rbac.yaml").read_text())
    role = next(found for found in documents if found["kind"] == "Role" and found["metadata"]["name"] == "tts-launcher")
    token = account(*((rule["apiGroups"][0], resource, " ".join(rule["verbs"])) for rule in role["rules"] for resource in rule["resources"]))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig_of(tmp_path, room.namespace, token=token)))
    launcher = started(room, "echo last words; exit 64", container={"terminationMessagePolicy": "File"})

    (ended,) = polled(launcher, lambda workers: workers.alive == 0).ended

    assert ended.log == "last words"
    launcher.start(room.task(), 1)
    launcher.stop()


def test_credentials_that_are_not_accepted_are_named(room, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig_of(tmp_path, room.namespace, token="old")))  # noqa: S106  # it is none

    with pytest.raises(UsageError, match=r"does not accept the credentials of user tester of the kubeconfig \(401 Unauthorized\)"):
        started(room)


@pytest.fixture
def relay(room, tmp_path, monkeypatch):
    """What is between launchers and the API server."""
    port = int(room.cluster.core.api_client.configuration.host.rsplit(":", 1)[1])
    made = Relay(port)
    made.up()
    place = str(kubeconfig_of(tmp_path, room.namespace, server=f"https://127.0.0.1:{made.port}"))
    monkeypatch.setenv("KUBECONFIG", place)
    yield made
    made.up()


def test_a_hundred_lost_connections_lose_nothing(room, relay):
    launcher = started(room, workers=2)
    first = {found.metadata.uid for found in room.running(launcher, 2)}
    watches = launcher._watches
    polled(launcher, lambda workers: not workers.waiting)

    for number in range(1, 101):
        relay.up()  # cuts off who is connected
        eventually(lambda number=number: all(watch.connections > number for watch in watches), "both watches are connected again")
        assert launcher.poll() == Workers(2, ())

    gone = room.pods(launcher)[0].metadata.name
    room.cluster.core.delete_namespaced_pod(gone, room.namespace)
    workers = polled(launcher, lambda workers: workers.notes)
    assert workers.notes[0].endswith(f"(pod {gone})")
    assert {found.metadata.uid for found in room.running(launcher, 2)} & first


def test_an_api_that_nobody_reaches_is_told_and_what_happened_meanwhile_is_known_afterwards(room, relay):
    launcher = started(room)
    (first,) = room.running(launcher, 1)
    polled(launcher, lambda workers: not workers.waiting)

    relay.refuse()
    workers = polled(launcher, lambda workers: workers.waiting)
    assert "has told nothing for" in workers.waiting[0]
    assert reason_of(workers.waiting[0]).endswith("Connection refused; workers go on"), "the same from second to second"
    assert (workers.alive, workers.ended) == (1, ())
    room.cluster.core.delete_namespaced_pod(first.metadata.name, room.namespace, grace_period_seconds=0)
    eventually(lambda: [p for p in room.running(launcher, 1) if p.metadata.uid != first.metadata.uid], "another pod runs")
    relay.up()

    workers = polled(launcher, lambda workers: workers.notes and not workers.waiting)
    assert workers.notes[0].startswith("worker 0 was deleted")


def test_a_version_that_the_server_has_forgotten_is_followed_by_a_list(room):
    launcher = started(room)
    (first,) = room.running(launcher, 1)
    cluster, name, _ = launcher.job
    book = PodBook()
    watch = Watch(cluster, "pods", {"labelSelector": f"app.kubernetes.io/instance={name}"}, book, relist_seconds=1000)
    watch._version, watch._listed = "1", time.monotonic()

    watch.start()

    assert watch.wait(60)
    assert [found.name for found in book.living()] == [first.metadata.name]
    watch.stop()
    eventually(lambda: not watch._thread.is_alive(), "its thread ends")


@pytest.mark.slow
def test_a_worker_whose_node_does_not_answer_is_told_and_goes_on_when_it_does(room, kubelet):
    launcher = started(room)
    (first,) = room.running(launcher, 1)
    polled(launcher, lambda workers: not workers.waiting)

    kubelet.down()
    workers = polled(launcher, lambda workers: workers.waiting)
    assert workers.waiting == (f"1 pod waits: its node {first.spec.node_name} does not answer",)
    assert workers.alive == 1
    kubelet.up()

    assert polled(launcher, lambda workers: not workers.waiting).notes == ()
    assert [found.metadata.uid for found in room.pods(launcher)] == [first.metadata.uid]


def test_a_server_that_does_not_answer_the_first_time_ends_the_command_soon(room, relay):
    relay.refuse()

    with pytest.raises(ServiceUnavailableError, match=r"the Kubernetes API at https://127.0.0.1:\d+ is out of reach after 15 s .*refused"):
        started(room)


def test_the_api_server_is_away_for_a_while(room, api_server):
    launcher = started(room, workers=2)
    first = {found.metadata.uid for found in room.running(launcher, 2)}

    api_server.stop()
    workers = polled(launcher, lambda workers: workers.waiting)
    assert (workers.alive, workers.ended) == (2, ())
    api_server.start()

    assert polled(launcher, lambda workers: not workers.waiting).alive == 2
    assert {found.metadata.uid for found in room.running(launcher, 2)} == first


@pytest.mark.parametrize(
    ("shell", "knobs", "worn"),
    [
        ("exit 1", {"pod_retries": 5}, lambda status: (status.failed or 0) > 1 and not status.active and not status.terminating),
        (f'test "$JOB_COMPLETION_INDEX" = 1 || exit 1; {FOREVER}', {"pod_retries": 0}, lambda status: status.failed_indexes == "0"),
    ],
)
def test_a_job_whose_workers_are_lost_or_wait_after_failures_is_made_anew(room, shell, knobs, worn):
    task = room.task()
    first = room.launcher(shell, **knobs)
    first.start(task, 2)
    eventually(lambda: worn(room.jobs()[0].status), "its workers have failed", 90)
    first.leave()

    second = room.launcher(shell, **knobs)
    second.start(task, 2)

    assert [job.metadata.uid for job in room.jobs()] == [second.job[2]]
    assert second.job[2] != first.job[2]
