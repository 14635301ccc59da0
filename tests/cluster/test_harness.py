"""What the other tests stand on: namespaces that enforce, a store that both sides reach, faults that pass."""

import json

import pytest

from tests.cluster.cluster import eventually, kubectl, pod


def test_a_namespace_refuses_a_pod_that_the_restricted_profile_does(cluster, namespace, images):
    privileged = pod("privileged", images.tts, ["true"], securityContext={"privileged": True})
    message = cluster.refused("create", "--namespace", namespace, "--filename", "-", told=json.dumps(privileged))
    assert 'violates PodSecurity "restricted:latest"' in message
    assert [found.metadata.name for found in cluster.core.list_namespaced_pod(namespace).items] == []


def test_a_namespace_goes_though_an_index_of_a_job_has_failed(cluster, images):
    with cluster.namespace() as name:
        template = pod("", images.tts, ["false"])["spec"]
        spec = {"completionMode": "Indexed", "completions": 1, "parallelism": 1, "backoffLimitPerIndex": 6, "podReplacementPolicy": "Failed"}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "failing"}, "spec": spec | {"template": {"spec": template}}}
        cluster.apply(job, namespace=name)
        eventually(lambda: [found for found in cluster.get("pods", namespace=name) if found["status"]["phase"] == "Failed"], "a failed pod")
    eventually(lambda: name not in {found["metadata"]["name"] for found in cluster.get("namespaces")}, "the namespace is gone")


def test_a_pod_and_the_test_reach_one_object_store(cluster, namespace, images, object_store):
    program = "import boto3, sys; boto3.client('s3').put_object(Bucket=sys.argv[1], Key='from/pod', Body=b'1')"
    reach = [{"name": name, "value": value} for name, value in object_store.environment().items()]
    cluster.apply(pod("writer", images.tts, ["python3", "-c", program, object_store.bucket], env=reach), namespace=namespace)
    eventually(lambda: cluster.phase("writer", namespace) in {"Succeeded", "Failed"}, "the pod's end", 120)
    assert cluster.phase("writer", namespace) == "Succeeded", cluster.logs("writer", namespace)
    assert object_store.objects() == ["from/pod"]


def test_the_api_server_stops_and_comes_back(cluster, api_server):
    api_server.stop()
    assert kubectl("get", "nodes", "--request-timeout=2s").returncode != 0
    api_server.start()
    assert cluster.ready()


@pytest.mark.slow
def test_a_node_is_lost_and_comes_back(cluster, kubelet):
    kubelet.down()
    eventually(lambda: not cluster.ready(), "the node is given up", 90)
    kubelet.up()
    assert cluster.ready()


def test_the_test_overlay_is_ready_with_its_bucket(cluster, stack):
    assert cluster.get("statefulset", "tts-postgresql", stack.namespace)["status"]["readyReplicas"] == 1
    assert cluster.get("deployment", "tts-mlflow", stack.namespace)["status"]["readyReplicas"] == 1
    labels = cluster.get("namespace", stack.namespace)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert stack.store.objects() == []
