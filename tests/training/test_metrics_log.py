import json
import math

import pytest

from tts.errors import CannotWriteError, DataError
from tts.training.metrics_log import MetricsLog, read_metrics


@pytest.fixture
def log(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in range(1, 4):
        log.append("train", step, {"loss": 1.0 / step})
    log.append("validation", 3, {"loss": math.inf, "mel_loss": math.nan})
    return log


def test_lines_are_strict_json_in_the_order_they_came(log):
    lines = [json.loads(line, parse_constant=pytest.fail) for line in log.path.read_text().splitlines()]
    assert lines == [
        {"kind": "train", "step": 1, "loss": 1.0},
        {"kind": "train", "step": 2, "loss": 0.5},
        {"kind": "train", "step": 3, "loss": 1 / 3},
        {"kind": "validation", "step": 3, "loss": None, "mel_loss": None},
    ]


def test_what_is_not_finite_reads_as_nan(log):
    last = read_metrics(log.path)[-1]
    assert math.isnan(last["loss"])
    assert math.isnan(last["mel_loss"])


def test_cut_removes_later_lines_and_a_torn_one(log):
    with log.path.open("ab") as file:
        file.write(b'{"kind": "train", "st')
    assert [line["step"] for line in read_metrics(log.path)] == [1, 2, 3, 3]
    assert [line["step"] for line in log.cut(2, validated=True)] == [1, 2]
    assert log.path.read_bytes() == b'{"kind": "train", "step": 1, "loss": 1.0}\n{"kind": "train", "step": 2, "loss": 0.5}\n'


def test_cut_at_the_last_step_changes_nothing(log):
    before = log.path.read_bytes()
    assert len(log.cut(3, validated=True)) == 4
    assert log.path.read_bytes() == before


def test_cut_removes_a_validation_that_nothing_else_knows_of(log):
    assert [(line["kind"], line["step"]) for line in log.cut(3, validated=False)] == [("train", 1), ("train", 2), ("train", 3)]
    assert len(read_metrics(log.path)) == 3


def test_a_new_log_is_an_empty_file(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.cut(0, validated=True) == []
    assert log.path.read_bytes() == b""


@pytest.mark.parametrize("line", ["no json", "[1]", '{"kind": "train"}', '{"step": 1}', '{"kind": "train", "step": "1"}'])
def test_a_line_that_is_no_measurement_is_named(log, line):
    log.path.write_text(log.path.read_text() + line + "\n")
    with pytest.raises(DataError, match="line 5 is not a measurement"):
        read_metrics(log.path)
    with pytest.raises(DataError, match="line 5"):
        log.cut(1, validated=True)


def test_no_file_is_no_run(tmp_path):
    with pytest.raises(DataError, match="holds no training run"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_a_full_disk_leaves_no_part_of_a_line(log, file_size_limit):
    before = log.path.read_bytes()
    with file_size_limit(len(before) + 10), pytest.raises(CannotWriteError, match=r"metrics\.jsonl"):
        log.append("train", 4, {"loss": 0.25})
    assert log.path.read_bytes() == before
    log.append("train", 4, {"loss": 0.25})
    assert read_metrics(log.path)[-1] == {"kind": "train", "step": 4, "loss": 0.25}
