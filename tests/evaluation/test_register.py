"""Voices into a registry of JSON lines: the champion is only ever replaced by a better one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tts.config import Config
from tts.errors import DataError, UsageError
from tts.evaluation.register import register
from tts.evaluation.speak import synthesise_text
from tts.tracking import NoTracker
from tts.tracking.json_lines import JsonLinesTracker


def copy(evaluated: Path, folder: Path, **changes: Any) -> Path:
    """The evaluation as if it had come out otherwise."""
    folder.mkdir()
    document = json.loads((evaluated / "evaluation.json").read_text())
    distortion = changes.pop("distortion", None)
    document.update(changes)
    if distortion is not None:
        document["metrics"]["mel_cepstral_distortion"] = distortion
    (folder / "evaluation.json").write_text(json.dumps(document))
    shutil.copy(evaluated / "report.html", folder)
    return folder


def test_champion_only_if_passed_and_better(trained: Path, evaluated: Path, tiny: Config, tmp_path: Path):
    tracker = JsonLinesTracker(tmp_path / "tracking.jsonl")
    outcomes = [
        register(trained, copy(evaluated, tmp_path / name, passed=passed, distortion=distortion), tracker, tiny)
        for name, passed, distortion in (("a", False, 3.0), ("b", True, 8.0), ("c", True, 9.0), ("d", True, 7.0))
    ]
    assert [(outcome.version, outcome.champion) for outcome in outcomes] == [(1, False), (2, True), (3, False), (4, True)]
    assert json.loads((tmp_path / "d" / "registration.json").read_text()) == {
        "name": tiny.tracking.registered_model, "version": 4, "champion": True, "reason": outcomes[3].reason,
    }  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "tracking.jsonl").read_text().splitlines()]
    assert [line["values"]["evaluation/mel_cepstral_distortion"] for line in lines if line["kind"] == "metrics"] == [3.0, 8.0, 9.0, 7.0]


def test_registering_again_changes_nothing(trained: Path, evaluated: Path, tiny: Config, tmp_path: Path):
    tracker = JsonLinesTracker(tmp_path / "tracking.jsonl")
    evaluation = copy(evaluated, tmp_path / "a", passed=True, distortion=5.0)
    first, second = (register(trained, evaluation, tracker, tiny) for _ in range(2))
    assert (first.version, first.champion) == (second.version, second.champion) == (1, True)


def test_what_is_registered_speaks_as_the_run_does(trained: Path, evaluated: Path, patient: Config, tmp_path: Path):
    out = tmp_path / "registration"
    made = register(trained, evaluated, NoTracker(), patient, out=out)
    assert made.version == 0
    assert not (evaluated / "model").exists()
    model = out / "model"
    assert {path.name for path in model.iterdir()} == {"checkpoints", "config.json", "evaluation.json", "symbols.json"}
    size = {folder: sum(path.stat().st_size for path in (folder / "checkpoints").glob("*.pt")) for folder in (model, trained)}
    assert size[model] < size[trained] / 2  # one checkpoint, without the optimiser
    for name, run in (("a", trained), ("b", model)):
        synthesise_text(run, "hello", tmp_path / f"{name}.wav", patient)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_an_evaluation_of_another_checkpoint_is_refused(trained: Path, evaluated: Path, tiny: Config, tmp_path: Path):
    with pytest.raises(UsageError, match=r"judged step 1 on features .*; run `tts evaluate` again"):
        register(trained, copy(evaluated, tmp_path / "a", step=1), NoTracker(), tiny)
    with pytest.raises(UsageError, match="on features other"):
        register(trained, copy(evaluated, tmp_path / "b", features="other"), NoTracker(), tiny)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; run `tts evaluate` first"),
        ("{", "is damaged"),
        ('{"metrics": {}}', r"is damaged \(a field is missing\)"),
        ('{"step": 1, "features": "f", "passed": true, "metrics": {"mel_cepstral_distortion": "NaN"}}', "it passed without a finite"),
        ('{"step": 1, "features": "f", "passed": true, "metrics": {"mel_cepstral_distortion": "many"}}', "is damaged"),
    ],
)
def test_damage_is_named(trained: Path, tiny: Config, tmp_path: Path, content: str | None, message: str):
    if content is not None:
        (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(DataError, match=message):
        register(trained, tmp_path, NoTracker(), tiny)
    assert not (tmp_path / "registration.json").exists()
