"""The compiled pipeline: current, the same anywhere, readable in the form, fit for a restricted namespace."""

import itertools
import os
import subprocess
import sys

import pytest
import yaml

from components.image import IMAGE
from pipelines.compile import COMPILED, compiled
from tts.step.cluster import TEMPLATE

FIELDS = [
    "corpus", "preset", "language", "trials", "workers", "training_steps", "gpus", "launcher", "overrides", "tracking_uri", "work",
    "node_selector", "tolerations",
]  # fmt: skip
STAGES = ["prepare", "tune", "train", "diagnose", "evaluate", "register"]


@pytest.fixture(scope="module")
def documents():
    return list(yaml.safe_load_all(COMPILED.read_text(encoding="utf-8")))


def test_the_committed_file_is_current():
    assert COMPILED.read_bytes() == compiled(), "run `make compile` and commit the result"


@pytest.mark.parametrize("seed", ["1", "4711"])
def test_the_same_bytes_anywhere_and_no_torch(tmp_path, seed):
    program = (
        "import sys, pathlib; from pipelines.compile import compiled; pathlib.Path('out.yaml').write_bytes(compiled());"
        "print([name for name in ('torch', 'mlflow', 'optuna', 'matplotlib', 'numpy') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo", "PYTHONPATH": str(COMPILED.parents[2])}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert (tmp_path / "out.yaml").read_bytes() == COMPILED.read_bytes()
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_form_explains_its_fields(documents):
    fields = documents[0]["root"]["inputDefinitions"]["parameters"]
    assert list(fields) == sorted(FIELDS)
    assert all(len(field["description"]) > 20 for field in fields.values())
    assert [name for name, field in fields.items() if not field.get("isOptional")] == ["corpus"]
    kinds = {name: field["parameterType"] for name, field in fields.items()}
    assert [name for name, kind in kinds.items() if kind == "NUMBER_INTEGER"] == ["training_steps", "trials", "workers"]
    assert (kinds["node_selector"], kinds["tolerations"], kinds["gpus"]) == ("STRUCT", "LIST", "STRING")
    assert documents[0]["pipelineInfo"]["displayName"] == "Smart Tuner TTS"


def test_stages_follow_each_other(documents):
    tasks = documents[0]["root"]["dag"]["tasks"]
    assert sorted(tasks) == sorted(STAGES)
    for before, after in itertools.pairwise(STAGES):
        assert before in tasks[after]["dependentTasks"]
    assert tasks["tune"]["taskInfo"]["name"] == "Tune"
    assert [name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")] == ["prepare"]
    assert not any("retryPolicy" in task for task in tasks.values()), "the backend's retries are inert; steps retry by themselves"


def platform(documents, stage):
    return documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{stage}"]


def container(documents, stage):
    return documents[0]["deploymentSpec"]["executors"][f"exec-{stage}"]["container"]


def env_of(parts, kind):
    return {entry["envVar"]: (part[f"{kind}Name"], part["optional"]) for part in parts for entry in part["keyToEnv"]}


def test_every_step_runs_without_root(documents):
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert sorted(executors) == sorted(f"exec-{name}" for name in STAGES)
    assert all(executor["securityContext"] == {"runAsNonRoot": True} for executor in executors.values())


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_has_the_image_resources_and_keys_by_reference(documents, stage):
    step = container(documents, stage)
    assert step["image"] == IMAGE
    assert ({"resourceCpuRequest", "resourceMemoryRequest", "resourceMemoryLimit"} <= set(step["resources"])) == (stage != "tune")
    assert "env" not in step, "no value stands in the open"
    secrets = env_of(platform(documents, stage)["secretAsEnv"], "secret")
    assert secrets["AWS_ACCESS_KEY_ID"] == secrets["AWS_SECRET_ACCESS_KEY"] == ("tts-object-store", True)
    assert ("TTS_STORAGE" in secrets) == (stage == "tune"), "only the study's step knows the database"
    maps = env_of(platform(documents, stage).get("configMapAsEnv", []), "configMap")
    assert maps == ({"MLFLOW_TRACKING_URI": ("tts-tracking", True)} if stage in ("tune", "train", "register") else {})
    assert "pvcMount" not in platform(documents, stage)


@pytest.mark.parametrize("stage", STAGES)
def test_gpus_nodes_and_taints_are_those_of_the_form_where_training_is(documents, stage):
    trains = stage in ("tune", "train")
    accelerator = container(documents, stage)["resources"].get("accelerator")
    given = {"resourceCount": "{{$.inputs.parameters['pipelinechannel--gpus']}}", "resourceType": "nvidia.com/gpu", "type": "nvidia.com/gpu"}
    assert accelerator == (given if trains else None)
    placed = platform(documents, stage)
    assert placed.get("nodeSelector") == ({"nodeSelectorJson": {"componentInputParameter": "node_selector"}} if trains else None)
    taints = [
        {"effect": "NoSchedule", "key": "nvidia.com/gpu", "operator": "Exists"},
        {"tolerationJson": {"componentInputParameter": "tolerations"}},
    ]
    assert placed.get("tolerations") == (taints if trains else None)
    inputs = documents[0]["root"]["dag"]["tasks"][stage]["inputs"]["parameters"]
    assert ("pipelinechannel--gpus" in inputs) == trains


def test_the_tune_steps_placement_goes_to_the_trials_pods(documents):
    component = documents[0]["components"]["comp-tune"]
    passed = {entry["field"]: entry.get("applyToTask", False) for entry in component["taskConfigPassthroughs"]}
    assert passed == {
        "RESOURCES": False, "KUBERNETES_AFFINITY": False, "KUBERNETES_TOLERATIONS": False, "KUBERNETES_NODE_SELECTOR": False,
        "ENV": True, "KUBERNETES_VOLUMES": True,
    }  # fmt: skip
    assert component["inputDefinitions"]["parameters"]["placement"]["parameterType"] == "TASK_CONFIG"
    inputs = documents[0]["root"]["dag"]["tasks"]["tune"]["inputs"]["parameters"]
    assert inputs["workflow"]["runtimeValue"]["constant"] == "{{$.pipeline_job_resource_name}}"
    assert inputs["image"]["runtimeValue"]["constant"] == IMAGE, "trials run in the very image of the steps"
    assert platform(documents, "tune")["configMapAsVolume"][0]["mountPath"] == str(TEMPLATE.parent)


def test_trials_ask_for_what_their_template_says_unless_the_platform_compiles_it_in(documents, tmp_path):
    assert set(container(documents, "tune")["resources"]) == {"accelerator"}
    done = _compile("--memory", "6Gi", "--cpu", "2", "--output", str(tmp_path / "voices.yaml"))
    assert done.returncode == 0, done.stderr
    other = list(yaml.safe_load_all((tmp_path / "voices.yaml").read_text()))
    asked = {name: value for name, value in container(other, "tune")["resources"].items() if name.startswith("resource")}
    assert asked == {"resourceCpuRequest": "2", "resourceMemoryRequest": "6Gi"}, "their limit stays the template's"
    assert container(other, "train")["resources"]["resourceMemoryLimit"] == "16Gi"


def test_several_processes_of_a_training_share_memory(documents):
    (mount,) = platform(documents, "train")["emptyDirMounts"]
    assert (mount["mountPath"], mount["medium"]) == ("/dev/shm", "Memory")  # noqa: S108


def test_a_platform_compiles_with_its_own_image_claim_and_gpus(tmp_path):
    file, image = tmp_path / "voices.yaml", "registry.example/tts@sha256:" + "0" * 64
    argv = ["--image", image, "--pvc", "tts-work", "--pvc_path", "/voices", "--gpus", "2", "--accelerator", "amd.com/gpu", "--memory_limit", "32Gi"]
    done = _compile(*argv, "--output", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}: written\n"), done.stderr
    documents = list(yaml.safe_load_all(file.read_text()))
    for stage in STAGES:
        assert container(documents, stage)["image"] == image
        (mount,) = platform(documents, stage)["pvcMount"]
        assert (mount["constant"], mount["mountPath"]) == ("tts-work", "/voices")
    assert documents[0]["root"]["inputDefinitions"]["parameters"]["gpus"]["defaultValue"] == "2"
    assert container(documents, "train")["resources"]["accelerator"]["resourceType"] == "amd.com/gpu"
    assert container(documents, "tune")["resources"]["resourceMemoryLimit"] == "32Gi"
    assert documents[0]["root"]["dag"]["tasks"]["tune"]["inputs"]["parameters"]["image"]["runtimeValue"]["constant"] == image
    assert _compile(*argv, "--output", str(file)).stdout == f"{file}: is current\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--image", "other"], "the committed file is compiled without options"),
        (["--gpus", "-1", "--output", "x.yaml"], "--gpus must be at least 0, got -1"),
        (["--pvc", "a", "--pvc_path", "voices", "--output", "x.yaml"], "--pvc_path must be an absolute path, got 'voices'"),
        (["--memory", "lots", "--output", "x.yaml"], "lots"),
    ],
)
def test_options_that_fit_nothing_are_refused(tmp_path, argv, message):
    done = _compile(*argv, cwd=tmp_path)
    assert done.returncode == 64
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def _compile(*argv, cwd=None):
    environment = {**os.environ, "PYTHONPATH": str(COMPILED.parents[2])}
    return subprocess.run([sys.executable, "-m", "pipelines.compile", *argv], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_nothing_is_installed_at_run_time():
    assert "pip install" not in COMPILED.read_text(encoding="utf-8")
