"""A pipeline's step: the form's fields, the folder that stays, the end with the pipeline."""

import fcntl
import json
import logging
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tts import step
from tts.chain import Stage
from tts.config.load import flatten


def test_places():
    assert step.place("/artefacts/features", "", "features") == "/artefacts/features"
    assert step.place("/artefacts/features", "/voices", "features") == "/voices/features"


def test_the_forms_fields_and_overrides_reach_the_features(corpus, tiny, tmp_path):
    overrides = json.dumps(flatten(tiny) | {"text.unknown_symbol": "drop"})
    figures = step.prepare(str(corpus), str(tmp_path / "features"), preset="demo", language="en", overrides=overrides, work="")
    assert figures["utterances"] == 20.0
    stored = json.loads((tmp_path / "features" / "config.json").read_text())
    assert stored["text"] == {"language": "en", "unknown_symbol": "drop"}
    assert stored["model"]["prenet"] == tiny.model.prenet


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"overrides": '{"training.stepz": 3}'}, 64, "did you mean training.steps?"),
        ({"overrides": "steps=3"}, 64, "overrides must be a JSON object"),
        ({"preset": "big"}, 64, "preset 'big' is not known"),
        ({"language": "fr"}, 64, "text.language"),
        ({}, 65, "does not exist"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(tmp_path, caplog, fields, code, message):
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as stop:
        step.prepare(str(tmp_path / "missing"), str(tmp_path / "f"), **({"preset": "", "language": "", "overrides": "", "work": ""} | fields))
    assert stop.value.code == code
    assert [record.getMessage() for record in caplog.records if message in record.getMessage()]
    assert list(tmp_path.iterdir()) == []


def test_the_page_becomes_the_artefact(trained, tmp_path):
    figures = step.diagnose(str(trained), str(tmp_path / "diagnostics"), str(tmp_path / "artefacts" / "page"), work="")
    assert (tmp_path / "artefacts" / "page").read_bytes() == (tmp_path / "diagnostics" / "diagnostics.html").read_bytes()
    assert figures["mel_loss"] > 0


def test_figures_that_are_not_finite_stay_behind():
    stage = Stage("train", Path("run"), done_before=False, figures={"loss": 1, "mel_loss": math.nan, "gate_loss": math.inf})
    assert step._end(stage) == {"loss": 1.0}


def test_nothing_is_tracked_where_nothing_would_last(monkeypatch, tiny, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = tiny.model_copy(update={"tracking": tiny.tracking.model_copy(update={"backend": "jsonl"})})
    assert type(step._tracking(config, "", "")[0]).__name__ == "NoTracker"
    assert type(step._tracking(config, str(tmp_path), "")[0]).__name__ == "JsonLinesTracker"


STEP = """
import signal, sys
from tts import step
with step._running(sys.argv[1]):
    print("running", flush=True)
    signal.pause()
"""


def test_a_step_ends_with_the_pipeline_that_started_it(tmp_path: Path):
    """The lock is held by this process, as by a pipeline's; letting it go is what the kernel does when its holder is killed."""
    with (tmp_path / step.PIPELINE_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen([sys.executable, "-c", STEP, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        assert process.poll() is None
    assert process.wait(timeout=60) == -signal.SIGTERM
    process.stdout.close()


def test_a_step_waits_for_one_that_is_still_ending(tmp_path: Path):
    program = STEP.replace("with step", 'print("starting", flush=True)\nwith step').replace(
        'print("running"', 'from pathlib import Path\n    print("ended" if (Path(sys.argv[1]) / "ended").exists() else "too early"'
    )
    with (tmp_path / step.STEP_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "starting\n"
        (tmp_path / "ended").touch()
    assert process.stdout.readline() == "ended\n"
    process.terminate()
    process.wait(timeout=60)
    process.stdout.close()
