"""Statements about a run follow from its figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.diagnostics.handmade_run import validation, write_anomaly, write_run, write_snapshot
from tts.config import Config
from tts.diagnostics.findings import findings
from tts.diagnostics.measured import measure
from tts.diagnostics.run_record import read_run


def levels(found: list[Any], words: str) -> list[str]:
    return [finding.level for finding in found if words in finding.text]


def of(tmp_path: Path, mel_losses: list[float | None], **state: Any) -> list[Any]:
    run = write_run(tmp_path / "run", Config(), [validation(10 * place + 10, loss) for place, loss in enumerate(mel_losses)], **state)
    if state.get("skipped"):
        write_anomaly(run, 3)
    return findings(read_run(run), None)


@pytest.mark.parametrize(
    ("mel_losses", "level", "words"),
    [
        ([3.0, 2.0, 1.0], "good", "fell from 3.00 to 1.00; its lowest is 1.00, at step 30"),
        ([3.0, 1.0, 1.04], "good", "its lowest is 1.00, at step 20"),
        ([3.0, 1.0, 1.06], "warning", "rose from its lowest, 1.00 at step 20, to 1.06"),
        ([1.0, 2.0], "bad", "did not fall: 1.00 at the first validation, 2.00 at the last"),
        ([1.0, 1.0], "bad", "did not fall"),
        ([2.0, None], "bad", "The newest held-out mel loss is NaN; the lowest was 2.00 at step 10"),
        ([2.0], "warning", "one validation only"),
        ([None, None], "warning", "No validation has a finite mel loss yet"),
        ([], "warning", "No validation has a finite mel loss yet"),
    ],
)
def test_loss(tmp_path: Path, mel_losses: list[float | None], level: str, words: str):
    assert levels(of(tmp_path, mel_losses), words) == [level]


@pytest.mark.parametrize(("state", "level"), [("finished", "good"), ("running", "warning"), ("preempted", "warning"), ("diverged", "bad")])
def test_state(tmp_path: Path, state: str, level: str):
    words = "finished all" if state == "finished" else f"is {state} at step 20"
    assert levels(of(tmp_path, [2.0, 1.0], state=state), words) == [level]


def test_skipped_updates_name_the_first_offender(tmp_path: Path):
    assert levels(of(tmp_path, [2.0, 1.0], skipped=4), "4 updates were skipped") == ["bad"]
    assert levels(of(tmp_path / "b", [2.0, 1.0], skipped=4), "the first, at step 3, began in decoder.gate.weight") == ["bad"]
    assert levels(of(tmp_path / "c", [2.0, 1.0]), "No update was skipped") == ["good"]


def test_bad_news_comes_first(tmp_path: Path):
    found = [finding.level for finding in of(tmp_path, [2.0, 1.0, 1.5], state="diverged", skipped=1)]
    assert found == sorted(found, key=["bad", "warning", "good"].index)
    assert {"bad", "warning"} <= set(found)


def attention_of(tmp_path: Path, alignment_SN: np.ndarray, gate_T: np.ndarray) -> list[Any]:
    run = write_run(tmp_path / "run", Config(), [validation(10, 1.0)])
    steps = len(alignment_SN)
    path = write_snapshot(run, 10, alignment_SN[None], gate_T[None], [steps], ["abcdefghi"])
    return findings(read_run(run), measure(path))


def test_aligned_attention_and_a_gate_that_opens_are_good(tmp_path: Path):
    found = attention_of(tmp_path, np.eye(10), np.eye(10)[9])
    assert levels(found, "Attention is aligned: 1.00 of the attention") == ["good"]
    assert levels(found, "The stop gate opens in all 1 recordings, on average 0 frames off") == ["good"]


def test_blurred_attention_and_a_shut_gate_are_bad(tmp_path: Path):
    found = attention_of(tmp_path, np.full((10, 10), 0.1), np.zeros(10))
    assert levels(found, "Attention is not aligned") == ["bad"]
    assert levels(found, "never opens within 1 of 1 recordings") == ["bad"]


def test_what_is_no_attention_is_said(tmp_path: Path):
    assert levels(attention_of(tmp_path, np.full((10, 10), np.nan), np.eye(10)[9]), "1 of 1 alignments are no attention at all") == ["bad"]
