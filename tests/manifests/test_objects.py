"""Objects: the namespace that refuses, the few verbs, what a profile keeps of its own, the pipeline as objects."""

import pytest
import yaml

from pipelines.compile import COMPILED
from pipelines.objects import OBJECTS, objects, text
from tests.manifests.kustomize import OVERLAYS, built, named, of_kind, overlay

CLUSTER_WIDE = {"Namespace", "PriorityClass", "ClusterQueue", "ResourceFlavor"}
LEVELS = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}


@pytest.mark.parametrize("name", OVERLAYS)
def test_all_is_in_one_namespace_and_marked_as_ours(name):
    found = overlay(name)
    assert {entry["metadata"].get("namespace") for entry in found if entry["kind"] not in CLUSTER_WIDE} == {
        "kubeflow-user-example-com" if name == "kubeflow" else "tts"
    }
    assert {entry["metadata"]["labels"]["app.kubernetes.io/part-of"] for entry in found} == {"smart-tuner-tts"}
    identities = [(entry["apiVersion"], entry["kind"], entry["metadata"]["name"]) for entry in found]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("name", ["test", "cloud"])
def test_the_namespace_refuses_what_is_not_restricted(name):
    (namespace,) = of_kind(overlay(name), "Namespace")
    assert LEVELS.items() <= namespace["metadata"]["labels"].items()


def test_a_profile_keeps_its_namespace_quota_limits_and_the_rules_of_its_other_pods():
    found = overlay("kubeflow")
    assert not {"Namespace", "ResourceQuota", "LimitRange"} & {entry["kind"] for entry in found}
    for policy in of_kind(found, "NetworkPolicy"):
        assert "app.kubernetes.io/component" in str(policy["spec"]["podSelector"]), policy["metadata"]["name"]
    for entry in (*of_kind(found, "Deployment"), *of_kind(found, "StatefulSet")):
        assert entry["spec"]["template"]["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"


def granted(found, account):
    """(group, resource, name or *any*, verb) that an account of the installation may."""
    roles = {entry["metadata"]["name"]: entry["rules"] for entry in of_kind(found, "Role")}
    rights = set()
    for binding in of_kind(found, "RoleBinding"):
        if account in {subject["name"] for subject in binding["subjects"]}:
            for rule in roles[binding["roleRef"]["name"]]:
                rights |= {
                    (group, resource, name, verb)
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                    for name in rule.get("resourceNames", ["any"])
                    for verb in rule["verbs"]
                }
    return rights


LAUNCHER = {
    *(("batch", "jobs", "any", verb) for verb in ("create", "get", "list", "watch", "delete", "patch")),
    *(("", "pods", "any", verb) for verb in ("get", "list", "watch")),
    ("", "pods/log", "any", "get"),
    ("", "events", "any", "list"),
    ("argoproj.io", "workflows", "any", "get"),
}
STEP = {
    ("argoproj.io", "workflowtaskresults", "any", "create"),
    ("argoproj.io", "workflowtaskresults", "any", "patch"),
    ("", "configmaps", "kfp-launcher", "get"),
    ("", "secrets", "mlpipeline-minio-artifact", "get"),
}


@pytest.mark.parametrize("name", OVERLAYS)
def test_accounts_may_what_they_need_and_no_more(name):
    found = overlay(name)
    assert granted(found, "tts-launcher") == LAUNCHER | STEP
    assert granted(found, "tts-trial") == granted(found, "tts-service") == set()
    assert not {"ClusterRole", "ClusterRoleBinding"} & {entry["kind"] for entry in found}
    for account in ("tts-trial", "tts-service"):
        assert named(found, "ServiceAccount", account)["automountServiceAccountToken"] is False


def test_the_accounts_of_kubeflows_runs_may_launch():
    for account in ("default-editor", "pipeline-runner"):
        assert granted(overlay("kubeflow"), account) == LAUNCHER
    for binding in of_kind(overlay("kubeflow"), "RoleBinding"):
        assert {subject["namespace"] for subject in binding["subjects"]} == {binding["metadata"]["namespace"]}


def test_what_the_launcher_is_refused_names_the_role_that_grants_it():
    from tts.tuning.kubernetes.access import GRANTS

    role, file = GRANTS.removeprefix("role ").split(" in ")
    kinds = list(yaml.safe_load_all((OBJECTS.parents[2] / file).read_text(encoding="utf-8")))
    assert role in {entry["metadata"]["name"] for entry in kinds if entry["kind"] == "Role"}


def test_the_committed_pipeline_is_current():
    assert OBJECTS.read_text(encoding="utf-8") == text(COMPILED.read_bytes()), "run `python -m pipelines.objects` and commit the result"


def test_the_pipeline_as_objects_is_the_compiled_one():
    spec, platform = yaml.safe_load_all(COMPILED.read_text(encoding="utf-8"))
    pipeline, version = built("pipeline")
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert {pipeline["apiVersion"], version["apiVersion"]} == {"pipelines.kubeflow.org/v2beta1"}
    assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"] == spec["pipelineInfo"]["name"]
    assert version["spec"]["pipelineSpec"] == spec
    assert version["spec"]["platformSpec"] == platform
    assert version["metadata"]["name"] == f"{pipeline['metadata']['name']}-{version['spec']['versionName']}"


def test_another_pipeline_is_another_version():
    before, after = (objects(content)[1] for content in (COMPILED.read_bytes(), COMPILED.read_bytes().replace(b"Smart Tuner", b"Other")))
    assert before["metadata"]["name"] != after["metadata"]["name"]
    assert objects(COMPILED.read_bytes())[1] == before
