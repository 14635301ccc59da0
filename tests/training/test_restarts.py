"""Runs made to fail: they go back to where they were healthy, on from there under a remedy, and end cleanly where none is left."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from tts.config.load import override
from tts.errors import TrainingDivergedError
from tts.progress import Silent
from tts.training.checkpoint import Checkpoints
from tts.training.loop import train
from tts.training.metrics_log import read_metrics
from tts.training.preemption import StopFlag
from tts.training.recovery.abandoned import read_restarts
from tts.training.run_folder import read_state

CPU = torch.device("cpu")


def _train(store, config, run, progress=None, stop=None, measure=None):
    return list(train(store, config, run, progress=progress or Silent(), stop=StopFlag() if stop is None else stop, measure=measure))


def _lines(run):
    return [line for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "train"]


def test_a_learning_rate_that_explodes_is_lowered_and_the_run_ends_well(store, tiny, tmp_path, caplog):
    """Updates of the size of the rate, which rises: the loss falls first and then grows without end."""
    signs = {"optimiser.learning_rate": 1.0, "optimiser.warmup_steps": 60, "optimiser.beta1": 0.0, "optimiser.beta2": 0.0}
    knobs = {"training.steps": 50, "training.validation_interval": 50, "training.checkpoint_interval": 5, "training.keep_checkpoints": 1}
    rules = {"divergence_factor": 1.2, "divergence_steps": 2, "probation_steps": 0, "remedies": [{"learning_rate": 0.01}]}
    config = override(tiny, signs | knobs | {f"recovery.{name}": value for name, value in rules.items()})
    run = tmp_path / "run"
    with caplog.at_level(logging.WARNING):
        _train(store, config, run)
    (restart,) = read_restarts(run)
    assert (restart.number, restart.trigger) == (1, "divergence")
    assert restart.back_to_step <= restart.began_step < restart.noticed_step < 50
    assert restart.remedy["optimiser.learning_rate"] == (1.0, 0.01)
    assert f"step {restart.noticed_step}: divergence: {restart.sentence}; going back to step {restart.back_to_step} with " in caplog.text
    state = read_state(run)
    assert (state.state, state.step, state.totals.restarts) == ("finished", 50, 1)
    lines = _lines(run)
    assert [line["step"] for line in lines] == list(range(1, 51))
    assert lines[-1]["learning_rate"] == pytest.approx(50 / 60 * 0.01)
    kept, abandoned = lines[restart.back_to_step :], read_metrics(run / "restarts" / "01" / "metrics.jsonl")
    assert [line["step"] for line in abandoned] == list(range(restart.back_to_step + 1, restart.noticed_step + 1))
    assert np.mean([line["loss"] for line in kept[-10:]]) < np.mean([line["loss"] for line in abandoned[-10:]])


def test_a_ladder_that_ends_is_a_divergence_that_tells_what_was_tried(store, tiny, tmp_path):
    rules = {"max_skipped_updates": 2, "remedies": [{"learning_rate": 0.5}, {"learning_rate": 0.5, "guided_attention": 2.0}]}
    config = override(tiny, {f"recovery.{name}": value for name, value in rules.items()})
    without_numbers = replace(store, _mels=np.full_like(store._mels, np.nan))
    run = tmp_path / "run"
    with pytest.raises(TrainingDivergedError) as told:
        _train(without_numbers, config, run)
    assert told.value.exit_code == 70
    message = str(told.value)
    rate = config.optimiser.learning_rate
    assert message.startswith(
        "non-finite: 2 updates in a row were not finite (recovery.max_skipped_updates), from step 1, the last at step 2: input mel"
    )
    assert "its 2 restarts (recovery.remedies) did not help" in message
    assert f"1: non-finite at step 2, back to step 0, optimiser.learning_rate {rate:g} -> {rate / 2:g}" in message
    assert f"2: non-finite at step 2, back to step 0, optimiser.learning_rate {rate / 2:g} -> {rate / 4:g}" in message
    state = read_state(run)
    assert (state.state, state.step, state.totals.skipped_updates, state.totals.restarts) == ("diverged", 2, 6, 2)
    for number in (1, 2):
        folder = run / "restarts" / f"{number:02d}"
        record = json.loads((folder / "restart.json").read_text())
        assert (record["number"], record["trigger"], record["began_step"], record["noticed_step"], record["back_to_step"]) == (
            number, "non-finite", 1, 2, 0,
        )  # fmt: skip
        assert sorted(path.name for path in (folder / "anomalies").iterdir()) == ["step-00000001.json", "step-00000002.json"]
        assert [line["step"] for line in read_metrics(folder / "metrics.jsonl")] == [1, 2]
    (entry,) = Checkpoints(run).index().checkpoints
    assert (entry.step, entry.file) == (0, "step-00000000-restart-02.pt")
    # A user who adds a rung goes on from there; what was changed before stands as it is recorded, whatever the rungs above now say.
    longer = override(config, {"recovery.remedies": [{}, {}, {"learning_rate": 0.1}]})
    with pytest.raises(
        TrainingDivergedError, match=f"3: non-finite at step 2, back to step 0, optimiser.learning_rate {rate / 4:g} -> {rate / 40:g}"
    ):
        _train(without_numbers, longer, run)
    assert [restart.number for restart in read_restarts(run)] == [1, 2, 3]
