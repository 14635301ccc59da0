"""The compiled pipeline: current, the same anywhere, readable in the form, fit for a restricted namespace."""

import itertools
import os
import subprocess
import sys

import pytest
import yaml

from pipelines.compile import COMPILED, compiled

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
    assert list(fields) == sorted(["corpus", "preset", "language", "trials", "training_steps", "overrides", "tracking_uri", "work"])
    assert all(len(field["description"]) > 20 for field in fields.values())
    assert [name for name, field in fields.items() if not field.get("isOptional")] == ["corpus"]
    assert {name: fields[name]["parameterType"] for name in ("trials", "training_steps")} == dict.fromkeys(
        ("trials", "training_steps"), "NUMBER_INTEGER"
    )
    assert documents[0]["pipelineInfo"]["displayName"] == "Smart Tuner TTS"


def test_stages_follow_each_other(documents):
    tasks = documents[0]["root"]["dag"]["tasks"]
    assert sorted(tasks) == sorted(STAGES)
    for before, after in itertools.pairwise(STAGES):
        assert before in tasks[after]["dependentTasks"]
    assert tasks["tune"]["taskInfo"]["name"] == "Tune"
    assert [name for name, task in tasks.items() if not task["cachingOptions"]] == ["register"]


def test_every_step_runs_without_root(documents):
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert sorted(executors) == sorted(f"exec-{name}" for name in STAGES)
    assert all(executor["securityContext"]["runAsNonRoot"] for executor in executors.values())


def test_nothing_is_installed_at_run_time():
    assert "pip install" not in COMPILED.read_text(encoding="utf-8")
