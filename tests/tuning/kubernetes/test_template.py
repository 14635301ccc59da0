import pytest
import yaml

from tts.errors import UsageError
from tts.tuning.kubernetes.template import read_template

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"team": "voices"}}, "spec": {"containers": [{"name": "any", "image": "x"}]}}


def written(folder, content):
    file = folder / "pod.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(file)


def test_the_programs_own_template_passes_its_own_checks_and_is_fit_for_restricted_namespaces():
    spec = read_template("").pod["spec"]
    (container,) = spec["containers"]

    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert "value" not in next(entry for entry in container["env"] if entry["name"] == "TTS_STORAGE")


def test_a_platforms_template_is_read(tmp_path):
    template = read_template(written(tmp_path, POD))

    assert template.pod == {"metadata": POD["metadata"], "spec": POD["spec"]}
    assert template.file == str(tmp_path / "pod.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not YAML"),
        ("", "got 0 documents"),
        ("- x", "must hold one object"),
        (POD | {"kind": "Deployment"}, "is no pod: needs apiVersion v1 and kind Pod, got 'v1' and 'Deployment'"),
        (POD | {"spce": {}}, "unknown field 'spce'"),
        (POD | {"spec": None}, "spec: must be a mapping, got None"),
        (POD | {"spec": {"containers": []}}, "spec.containers: a container is needed"),
        (POD | {"spec": {"containers": {"name": "worker"}}}, "spec.containers: must be a list of mappings, each with a name"),
        (POD | {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}, "one of several must be named 'worker', to run the worker in; got 'a', 'b'"),
        (POD | {"spec": {"containers": [{"name": "a", "env": {"X": "1"}}]}}, "spec.containers.a.env: must be a list"),
        (POD | {"metadata": {"labels": ["x"]}}, "metadata.labels: must be a mapping"),
    ],
)
def test_what_is_no_pod_is_refused_with_file_and_field(tmp_path, content, message):
    file = written(tmp_path, content)

    with pytest.raises(UsageError) as refused:
        read_template(file)

    assert message in str(refused.value)
    assert file in str(refused.value)


def test_a_secret_in_the_open_is_refused_and_not_shown(tmp_path):
    pod = POD | {"spec": {"containers": [{"name": "worker", "env": [{"name": "TTS_STORAGE", "value": "postgresql://tuner:hush@db/x"}]}]}}

    with pytest.raises(UsageError, match=r"spec.containers.worker.env.TTS_STORAGE holds a value") as refused:
        read_template(written(tmp_path, pod))

    assert "hush" not in str(refused.value)


def test_a_template_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cluster.template: cannot read .*nowhere.yaml: No such file"):
        read_template(str(tmp_path / "nowhere.yaml"))
