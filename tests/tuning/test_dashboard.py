"""optuna-dashboard opens a study of ours and shows what is in it."""

import json
import math
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.tuning.told import FOUR, tell
from tts.tuning.keep.archive import export_study
from tts.tuning.keep.warm_start import import_archive


@pytest.fixture
def study(make_study, tmp_path):
    """Told trials, one that was handed back, and imported ones."""
    source = make_study("source", trials=20)
    tell(source, FOUR)
    study = make_study(trials=20)
    tell(study, (*FOUR, TrialState.RUNNING), spread=2)
    handed_back = study.trials.trials[5]._trial_id
    study.storage.sign(handed_back, "host-1:1", {"worker": "host-1"})
    assert study.storage.release(handed_back, {"interruptions": ["its worker died"]}, lease="host-1:1")
    import_archive(study, export_study(source, tmp_path / "source.json"))
    return study


@pytest.fixture
def dashboard(study, until):
    """The real program on a free port of this machine."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    argv = [str(program), study.url, "--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref", "--quiet"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def answers() -> bool:
        assert process.poll() is None, process.stderr.read()
        try:
            return bool(ask(port, "/api/studies"))
        except urllib.error.URLError:
            return False

    try:
        until(answers)
        yield port
    finally:
        process.kill()
        process.communicate()


def ask(port: int, path: str) -> dict:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:  # our own address
        return json.load(answer)


def test_the_dashboard_shows_the_study(study, dashboard):
    (summary,) = ask(dashboard, "/api/studies")["study_summaries"]
    assert summary["study_name"] == study.name
    shown = ask(dashboard, f"/api/studies/{summary['study_id']}")

    ours = study.trials.trials
    assert [trial["number"] for trial in shown["trials"]] == [trial.number for trial in ours] == list(range(9))
    assert [trial["state"] for trial in shown["trials"]] == [trial.state.name.capitalize() for trial in ours]
    assert shown["trials"][5]["state"] == "Waiting", "handed back"
    for trial, known in zip(shown["trials"], ours, strict=True):
        assert [float(value) for value in trial.get("values", [])] == (known.values or [])
        assert {param["name"]: param["param_external_value"] for param in trial["params"]} == {
            name: str(value) for name, value in known.params.items()
        }
        reports = {report["step"]: float(report["value"]) for report in trial["intermediate_values"]}
        assert {step: value for step, value in reports.items() if not math.isnan(value)} == {
            step: value for step, value in known.intermediate_values.items() if not math.isnan(value)
        }
    attributes = {attribute["key"]: attribute["value"] for attribute in shown["trials"][6]["user_attrs"]}
    assert attributes["imported"].strip('"') == "voices"
    interrupted = {attribute["key"]: attribute["value"] for attribute in shown["trials"][5]["user_attrs"]}
    assert "its worker died" in interrupted["interruptions"]
