"""The whole pipeline through kfp.local: real steps, each a process of its own, on a corpus of seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tts.config.load import flatten

ROOT = Path(__file__).parents[2]


def _start(corpus: Path, out: Path, overrides: dict[str, object]) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-m", "pipelines.local", str(corpus), str(out), "--preset", "demo", "--overrides", json.dumps(overrides)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(argv, cwd=out.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def overrides(tiny) -> dict[str, object]:
    wanted = {"tuning.knobs": ["optimiser.learning_rate"], "tuning.trials": 1, "tracking.backend": "jsonl"}
    return {name: value for name, value in (flatten(tiny) | wanted).items() if name != "tracking.uri"}


@pytest.mark.slow
def test_the_pipeline_on_this_machine(corpus, overrides, tmp_path):
    out = tmp_path / "out"
    process = _start(corpus, out, overrides)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    for path in (
        "features/features.json",
        "study/best.yaml",
        "study/study.html",
        "run/checkpoints/index.json",
        "diagnostics/diagnostics.html",
        "evaluation/report.html",
        "evaluation/evaluation.json",
        "registration/registration.json",
        "tracking.jsonl",
    ):
        assert (out / path).is_file(), path
    pages = list((out / "steps").glob("*/evaluate/report"))
    assert [page.read_bytes() for page in pages] == [(out / "evaluation" / "report.html").read_bytes()]
    assert json.loads((out / "registration" / "registration.json").read_text())["version"] == 1
    tracked = [json.loads(line) for line in (out / "tracking.jsonl").read_text().splitlines()]
    parents = [line["run"] for line in tracked if line["kind"] == "start" and line["parent"] is None]
    assert any(line["kind"] == "start" and line["parent"] in parents for line in tracked), "trials hang below their study"
    assert f"report: {out / 'evaluation' / 'report.html'}" in output
    assert "Got executor_input" not in output

    process = _start(corpus, out, overrides)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "was done before" in output
    assert "Executing task" not in output


def test_a_failed_step_is_named(corpus, overrides, tmp_path):
    process = _start(corpus, tmp_path / "out", {**overrides, "quality.min_seconds": 14.0})
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "pipeline: error: " in output
    assert "prepare" in output.splitlines()[-1]
    assert "14.0" in output, "the step's own message is shown"
    assert "Traceback" not in output


def test_a_wrong_field_stops_before_the_first_step(corpus, tmp_path):
    process = _start(corpus, tmp_path / "out", {"training.stepz": 3})
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 64
    assert output == "pipeline: error: option: 'training.stepz' is not a knob; did you mean training.steps?\n"
    assert list(tmp_path.iterdir()) == []
