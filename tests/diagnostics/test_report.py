"""The diagnosis of a real run and of broken ones."""

import json
import math
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

from tests.diagnostics.full_run import write_full_run
from tests.diagnostics.handmade_run import validation, write_anomaly, write_run, write_snapshot
from tests.diagnostics.html_page import ReadPage
from tts.config import Config
from tts.diagnostics.attention import attention_measures
from tts.diagnostics.report import diagnose, schema
from tts.diagnostics.run_record import read_snapshot
from tts.errors import CannotWriteError, DataError

SECTIONS = ["overview", "training", "alignments", "gates", "predictions", "anomalies"]


def read(path: Path) -> dict:
    document = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(document, schema())
    return document


@pytest.fixture(scope="module")
def diagnosis(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("diagnosis")
    diagnose(trained, out)
    return out


def test_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(schema())


def test_json_says_what_the_snapshots_hold(diagnosis: Path, trained: Path):
    document = read(diagnosis / "diagnostics.json")
    assert document["state"] == "finished"
    assert [snapshot["step"] for snapshot in document["snapshots"]] == [3, 6]
    snapshot = read_snapshot(trained / "snapshots" / "step-00000006.npz")
    lengths = torch.from_numpy(snapshot.symbol_lengths_B), torch.from_numpy(snapshot.step_lengths_B)
    expected = attention_measures(torch.from_numpy(snapshot.alignment_BSN), *lengths)
    for row, utterance in enumerate(document["snapshots"][1]["utterances"]):
        assert utterance["id"] == snapshot.ids[row]
        assert utterance["attention"]["entropy"] == pytest.approx(float(expected["entropy"][row]))
    assert document["newest"]["validation"]["step"] == 6
    assert document["newest"]["train"]["step"] == 6


def test_page_shows_every_section_with_data(diagnosis: Path, trained: Path):
    page = ReadPage((diagnosis / "diagnostics.html").read_text(encoding="utf-8"))
    page.check()
    assert set(SECTIONS) <= set(page.ids)
    assert page.absent == {"anomalies": True}
    utterances = len(read_snapshot(trained / "snapshots" / "step-00000006.npz").ids)
    assert page.pictures["training"] >= 9
    assert page.pictures["alignments"] == 2 + utterances
    assert page.pictures["gates"] == utterances
    assert page.pictures["predictions"] == 2
    assert len(page.tables["alignments"]) == utterances + 1


def test_again_gives_the_same_files(diagnosis: Path, trained: Path, tmp_path: Path):
    (tmp_path / "diagnostics.html").write_text("older")
    diagnose(trained, tmp_path)
    for name in ("diagnostics.json", "diagnostics.html"):
        assert (tmp_path / name).read_bytes() == (diagnosis / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diagnostics.html", "diagnostics.json"]


def test_a_run_that_has_just_begun_says_what_is_missing(tmp_path: Path):
    run = write_run(tmp_path / "run", Config(), [], state="running")
    result = diagnose(run, tmp_path / "out")
    page = ReadPage(result.html.read_text(encoding="utf-8"))
    page.check()
    assert page.ids == SECTIONS
    assert set(page.absent) == set(SECTIONS) - {"overview"}
    assert "logged no step yet" in page.sections["training"]
    assert "has not validated yet" in page.sections["alignments"]
    document = read(result.json)
    assert document["best"] is None
    assert document["newest"] == {"train": None, "validation": None}
    assert result.metrics == {}


def test_a_broken_run_is_shown_as_broken(tmp_path: Path):
    lines = [{"kind": "train", "step": 1, "loss": 2.0, "gradient_norm": 1.0}, {"kind": "train", "step": 2, "loss": None, "gradient_norm": None}]
    run = write_run(tmp_path / "run", Config(), [*lines, validation(2, None)], state="diverged", skipped=1)
    write_anomaly(run, 2)
    alignment = np.stack([np.full((6, 4), np.nan), np.eye(6, 4) + np.eye(6, 4, -4)])
    write_snapshot(run, 2, alignment, np.zeros((2, 6)), [6, 6], ["abc", "<b>"])
    result = diagnose(run, tmp_path / "out")
    document = read(result.json)
    first, second = document["snapshots"][0]["utterances"]
    assert first["attention"]["entropy"] == "NaN"
    assert second["attention"]["entropy"] == 0
    assert second["gate"]["stop_error_frames"] == "Infinity"
    assert document["snapshots"][0]["attention"]["invalid"] == 1
    assert document["newest"]["train"]["loss"] == "NaN"
    assert math.isnan(result.metrics["mel_loss"])
    page = ReadPage(result.html.read_text(encoding="utf-8"))
    page.check()
    assert page.absent == {}
    assert page.tables["anomalies"] == [["2", "gradient", "decoder.gate.weight", "nan", "clip-7"]]
    assert page.tables["alignments"][0][1] == "NaN"
    assert "Not finite, and so not drawn: 1 values" in page.sections["training"]
    assert "Mel loss: none of its 1 values is finite." in page.sections["training"]
    assert "∞" in page.sections["gates"]
    assert "<b>" in page.sections["alignments"]


def test_nothing_is_left_where_the_run_is_damaged(trained: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", Config(), [validation(2, 1.0)])
    (run / "snapshots").mkdir()
    (run / "snapshots" / "step-00000002.npz").write_bytes(b"not an archive")
    with pytest.raises(DataError, match=r"step-00000002.npz is damaged"):
        diagnose(run, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotWriteError, match="a file is in the way"):
        diagnose(trained, tmp_path / "file")


def test_a_run_with_everything_shows_everything(tmp_path: Path):
    run = write_full_run(tmp_path / "run")
    result = diagnose(run, tmp_path / "out")
    page = ReadPage(result.html.read_text(encoding="utf-8"))
    page.check()
    assert page.ids == ["overview", "training", "restarts", "alignments", "gates", "predictions", "modules", "timing", "corpus", "anomalies"]
    assert page.absent == {}
    assert page.tables["restarts"][0][1:5] == ["divergence", "301", "400", "300"]
    assert "optimiser.learning_rate 0.001 → 0.0005" in page.tables["restarts"][0][6]
    assert "batches shrank from 8,000 to 4,000 frames" in page.sections["restarts"]
    assert "faint" in page.sections["training"]
    assert page.pictures["modules"] == 2
    assert "postnet: gradients were not finite in 1 of 60 logged steps" in page.sections["modules"]
    assert "57%" in page.sections["timing"], "the backward pass"
    assert page.tables["corpus"][:2] == [["“z”", "0", "1"], ["“x”", "2", "0"]]
    assert ["clip-17", "too short"] in page.tables["corpus"]
    document = read(result.json)
    assert document["restarts"][0]["remedy"] == {"optimiser.learning_rate": [0.001, 0.0005], "training.seed": [0, 1]}
    assert document["modules"]["decoder.gate"]["non_finite"] == 3
    assert document["seconds_per_step"] == {"data": 0.02, "forward": 0.11, "backward": 0.21, "update": 0.03}
    assert document["corpus"]["untrained_symbols"] == ["z"]
    assert document["corpus"]["rejected"] == {"silent": 1, "rate_outlier": 2, "too_short": 1, "duplicate": 1}
    advised = {finding["code"]: finding for finding in document["findings"]}
    assert advised["restarted"]["turns"] == [{"knob": "optimiser.learning_rate", "way": "set", "to": 0.0005}]
    assert advised["restarted"]["advice"] in page.sections["overview"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("modules.jsonl", '{"step": 3}\n', "modules.jsonl, line 1 is not a measurement"),
        ("corpus.json", "{}", "corpus.json does not tell of a corpus"),
        ("restarts/01/restart.json", '{"number": 1}', "restart.json does not tell of a restart"),
        ("restarts/01/metrics.jsonl", "torn", "") ,
    ],
)  # fmt: skip
def test_damage_to_what_is_optional_is_named(tmp_path: Path, name: str, content: str, message: str):
    run = write_full_run(tmp_path / "run")
    (run / name).write_text(content)
    if message:
        with pytest.raises(DataError, match=message):
            diagnose(run, tmp_path / "out")
    else:
        diagnose(run, tmp_path / "out")
