"""Reading a run's files: torn lines, nulls, damage."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.diagnostics.handmade_run import write_anomaly, write_run, write_snapshot
from tts.config import Config
from tts.diagnostics.run_record import Series, read_run, read_snapshot, thinned
from tts.errors import DataError

LINES = [
    {"kind": "train", "step": 1, "loss": 3.0},
    {"kind": "train", "step": 2, "loss": None, "gate": 0.5},
    {"kind": "validation", "step": 2, "mel_loss": 2.0},
    {"kind": "validation", "step": 4, "mel_loss": 1.5},
    {"kind": "validation", "step": 6, "mel_loss": 1.8},
]


def test_lines_become_columns_and_null_is_not_a_number(tmp_path: Path):
    record = read_run(write_run(tmp_path / "run", Config(), LINES, skipped=2))
    assert record.train.steps == (1, 2)
    assert record.train.columns["loss"][0] == 3
    assert math.isnan(record.train.columns["loss"][1])
    assert math.isnan(record.train.columns["gate"][0])
    assert record.validation.lowest("mel_loss") == (4, 1.5)
    assert record.validation.last("mel_loss") == 1.8
    assert math.isnan(record.validation.last("unknown"))
    assert record.train.lowest("unknown") is None
    assert (record.state, record.step, record.totals["skipped_updates"]) == ("finished", 6, 2)


def test_a_torn_last_line_is_left_out(tmp_path: Path):
    run = write_run(tmp_path / "run", Config(), LINES)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    assert read_run(run).train.steps == (1, 2)


def test_a_run_without_a_line_is_empty(tmp_path: Path):
    run = write_run(tmp_path / "run", Config(), [])
    (run / "metrics.jsonl").unlink()
    record = read_run(run)
    assert not record.train
    assert not record.validation
    assert record.snapshots == ()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", None, "is not a run folder: it has no run.json"),
        ("config.json", None, "is not a run folder: it has no config.json"),
        ("run.json", "{", "run.json cannot be read"),
        ("run.json", "[1]", "should hold a JSON object, got list"),
        ("run.json", '{"state": "finished"}', "does not hold the state of a run \\(KeyError: 'step'\\)"),
        ("metrics.jsonl", "nonsense\n", "metrics.jsonl, line 1 is not a measurement"),
        ("metrics.jsonl", '{"kind": "train", "step": 1}\n{"kind": "other", "step": 1}\n', "line 2 is not a measurement"),
        ("metrics.jsonl", "[1, 2]\n", "line 1 is not a measurement"),
        ("anomalies/step-00000001.json", "{", "step-00000001.json cannot be read"),
    ],
)  # fmt: skip
def test_damage_is_named(tmp_path: Path, name: str, content: str | None, message: str):
    run = write_run(tmp_path / "run", Config(), LINES)
    write_anomaly(run, 1)
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_run(run)


def test_a_folder_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"has no run.json and no config.json; expected a folder made by `tts train`"):
        read_run(tmp_path / "nothing")


def test_snapshot_comes_back_as_it_was_written(tmp_path: Path):
    run = write_run(tmp_path / "run", Config(), LINES)
    alignment = np.random.default_rng(0).random((2, 5, 3))
    path = write_snapshot(run, 120, alignment, np.zeros((2, 5)), [5, 4], ["ab", "cd"])
    snapshot = read_snapshot(path)
    assert (snapshot.step, snapshot.ids, snapshot.texts) == (120, ("clip-0", "clip-1"), ("ab", "cd"))
    np.testing.assert_allclose(snapshot.alignment_BSN, alignment.astype(np.float32))
    assert snapshot.step_lengths_B.tolist() == [5, 4]


def test_a_snapshot_cut_in_half_is_named(tmp_path: Path):
    path = write_snapshot(write_run(tmp_path / "run", Config(), LINES), 120, np.zeros((1, 5, 3)), np.zeros((1, 5)), [5], ["ab"])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"step-00000120.npz is damaged"):
        read_snapshot(path)


def test_a_snapshot_without_its_arrays_is_named(tmp_path: Path):
    path = tmp_path / "step-00000001.npz"
    np.savez(path, other=np.zeros(3))
    with pytest.raises(DataError, match=r"step-00000001.npz is damaged \(KeyError"):
        read_snapshot(path)


@given(values=st.lists(st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf), max_size=30), points=st.integers(1, 12))
def test_thinning_keeps_the_mean_of_neighbours(values: list[float], points: int):
    series = Series(tuple(range(1, len(values) + 1)), {"loss": tuple(values)})
    steps, means = thinned(series, "loss", points)
    assert len(steps) == len(means) == min(points, len(values))
    assert steps == sorted(steps)
    if len(values) <= points:
        assert steps == list(series.steps)
        assert [mean for mean in means if not math.isnan(mean)] == pytest.approx([value for value in values if math.isfinite(value)])
    finite = [value for value in values if math.isfinite(value)]
    known = [mean for mean in means if not math.isnan(mean)]
    assert not known or min(finite) - 1e-6 <= min(known) <= max(known) <= max(finite) + 1e-6
