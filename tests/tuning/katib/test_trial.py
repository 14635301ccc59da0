"""A trial for Katib: it trains for its budget, and Katib's collector can read what it says."""

import re
import shutil
from datetime import datetime

import numpy as np
import pytest

from tts.config.load import to_json
from tts.data.store import FeatureStore
from tts.progress import Silent
from tts.tracking.nothing import NoTracker
from tts.training.preemption import StopFlag
from tts.training.validation import VALIDATION_METRICS
from tts.tuning.katib.trial import line, trial
from tts.tuning.search.objective import Objective, UnusableMetricError

COLLECTOR = re.compile(r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)")
"""Katib's default filter of metrics."""


def read(text: str) -> dict[str, str]:
    """What Katib reads in a line."""
    return {name: value for name, value, *_ in COLLECTOR.findall(text)}


def test_it_trains_for_its_budget_and_says_its_objective(tiny, features, tmp_path):
    lines = list(trial(features, tmp_path / "run", tiny, tracker=NoTracker(), progress=Silent(), stop=StopFlag()))
    found = [read(text) for text in lines]
    assert [entry["step"] for entry in found] == ["2", "4"]  # tuning.validation_interval, tuning.steps
    for text, entry in zip(lines, found, strict=True):
        datetime.fromisoformat(text.split(" ")[0])
        metrics = {name: float(entry[name]) for name in ("mel_loss", "gate_loss", "attention_diagonality")}
        assert float(entry["objective"]) == Objective(tiny.tuning.objective).values(metrics)[0]
        assert set(entry) <= {"step", "objective", *VALIDATION_METRICS}


def test_an_objective_that_is_no_number_fails_the_trial(tiny, features, tmp_path):
    damaged = shutil.copytree(features, tmp_path / "features")
    store = FeatureStore.open(damaged)
    mels = np.load(damaged / "mels.npy", mmap_mode="r+")
    mels[store._offsets[store.held_out[0]] + 3, 5] = np.nan
    mels.flush()
    with pytest.raises(UnusableMetricError, match=r"metric mel_loss is nan at step 2"):
        list(trial(damaged, tmp_path / "run", tiny, tracker=NoTracker(), progress=Silent(), stop=StopFlag()))


def test_what_is_not_finite_is_left_out():
    text = line(7, {"objective": 1e-05, "mel_loss": float("nan"), "gate_loss": float("inf"), "loss": -2.0})
    assert read(text) == {"step": "7", "objective": "1e-05", "loss": "-2.0"}


def test_from_the_command_line(tts, tiny, features, tmp_path):
    (tmp_path / "tiny.json").write_text(to_json(tiny))
    code, out, _ = tts("katib-trial", features, tmp_path / "run", "--config", tmp_path / "tiny.json", "--optimiser.learning_rate", "0.001")
    assert code == 0
    assert [read(text)["step"] for text in out.splitlines()] == ["2", "4"]
    assert '"learning_rate": 0.001' in (tmp_path / "run" / "config.json").read_text()
