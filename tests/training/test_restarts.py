"""Runs made to fail: they go back to where they were healthy, on from there under a remedy, and end cleanly where none is left."""

import json
import logging
import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from tts.config.load import override
from tts.errors import PreemptedError, TrainingDivergedError
from tts.progress import Silent
from tts.training.checkpoint import Checkpoints
from tts.training.loop import train
from tts.training.metrics_log import WALL_CLOCK_FIELDS, read_metrics
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
        assert sorted(path.name for path in (folder / "anomalies").glob("*.json")) == ["step-00000001.json", "step-00000002.json"]
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


@pytest.fixture(scope="module")
def poisoned(tiny):
    """Each update on the clip with a NaN is one too many; a reduction factor that falls, and losses of all kinds."""
    knobs = {"steps": 8, "validation_interval": 3, "checkpoint_interval": 2, "log_interval": 2, "keep_checkpoints": 1, "reduction_interval": 3}
    network = {"initial_reduction_factor": 7, "coarse_reduction_factor": 9, "recogniser": 8, "frame_drop": 0.2}
    rules = {"max_skipped_updates": 1, "probation_steps": 1}
    sections = {"training": knobs, "model": network, "recovery": rules}
    return override(tiny, {f"{section}.{name}": value for section, names in sections.items() for name, value in names.items()})


@pytest.fixture(scope="module")
def straight(damaged_store, poisoned, tmp_path_factory):
    """The run that nobody stopped."""
    run = tmp_path_factory.mktemp("straight") / "run"
    _train(damaged_store, poisoned, run)
    assert [restart.back_to_step for restart in read_restarts(run)] == [3, 6]
    return run


def _files(run):
    """What is to be the same, to the bit, but for what the clock says."""
    found = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file() and path.name != ".lock"):
        name = str(path.relative_to(run))
        if path.suffix == ".jsonl":
            found[name] = [{key: value for key, value in json.loads(line).items() if key not in WALL_CLOCK_FIELDS} for line in path.open()]
        elif path.suffix == ".npz":
            with np.load(path) as file:
                found[name] = {key: array.tobytes() for key, array in file.items()}
        elif path.suffix != ".pt" and path.name not in ("index.json", "run.json"):
            found[name] = path.read_bytes()
    state = read_state(run)
    found["run"] = state.model_copy(update={"totals": state.totals.model_copy(update={"seconds": 0.0})})
    for entry in Checkpoints(run).index().checkpoints:
        content = Checkpoints(run).read(entry, CPU)
        content["tally"]["seconds"] = 0.0
        found[entry.file] = _bits(content)
    return found


def _bits(value):
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _bits(part) for key, part in value.items()}
    return [_bits(part) for part in value] if isinstance(value, list) else value


class StopAfter:
    """Progress that asks a run to stop after so many updates, whether it went back meanwhile or not."""

    def __init__(self, updates, stop):
        self.left, self.stop = updates, stop

    @contextmanager
    def task(self, _title, _total=0, **_options):
        yield self

    def advance(self, steps=1, **_figures):
        self.left -= steps == 1
        if not self.left:
            self.stop.set()


def test_stopped_after_every_update_equals_the_run_that_was_not(damaged_store, poisoned, straight, tmp_path):
    """Also where the update is the one too many: the checkpoint then knows, and the restart is the next attempt's first act."""
    stops = 0
    while True:
        stop = StopFlag()
        try:
            _train(damaged_store, poisoned, tmp_path / "run", StopAfter(1, stop), stop)
        except PreemptedError:
            stops += 1
            continue
        break
    assert stops > 8
    assert _files(tmp_path / "run") == _files(straight)


def _killed(store, config, run, at):
    """Trains in a process that kills itself before its `at`-th renaming or removal of a file after its first restart began.

    Whether it came so far.
    """
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    seen = 0

    def on_event(event, arguments):
        nonlocal seen
        if event in ("os.rename", "os.remove"):
            begun = seen or "restart-01" in str(arguments[1 if event == "os.rename" else 0])
            seen += bool(begun)
            if begun and seen == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(on_event)
    try:
        _train(store, config, run)
    finally:
        os._exit(0)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6, 7])
def test_killed_in_the_middle_of_a_restart_and_resumed_equals_the_run_that_was_not(damaged_store, poisoned, straight, tmp_path, at):
    run = tmp_path / "run"
    assert _killed(damaged_store, poisoned, run, at)
    _train(damaged_store, poisoned, run)
    assert _files(run) == _files(straight)


@pytest.mark.parametrize("updates", [4, 5])
def test_a_damaged_newest_checkpoint_costs_its_steps_and_no_more(damaged_store, poisoned, straight, tmp_path, caplog, updates):
    """Be it that of the step that was one too many, or the first after the restart."""
    run, stop = tmp_path / "run", StopFlag()
    with pytest.raises(PreemptedError):
        _train(damaged_store, poisoned, run, StopAfter(updates, stop), stop)
    before, newest = Checkpoints(run).index().checkpoints[-2:]
    assert (before.step, newest.step, "restart" in before.file) == (3, 4, updates == 5)
    (run / "checkpoints" / newest.file).write_bytes(b"cut")
    with caplog.at_level(logging.WARNING):
        _train(damaged_store, poisoned, run)
    assert f"{newest.file} is damaged" in caplog.text
    assert _files(run) == _files(straight)


@pytest.mark.parametrize(("metric", "trigger"), [("attention_diagonality", "attention collapse"), ("gate_on_time", "gate collapse")])
def test_what_validations_see_collapse_is_taken_back_to_the_last_sound_one(store, tiny, tmp_path, metric, trigger):
    """The figure is given from outside, as a network of this size finds neither attention nor the gate in a few steps."""
    figures = iter([0.9, 0.8, 0.1, 0.0] + [0.9] * 3 if metric == "attention_diagonality" else [0.5, 1.0, 0.0, 0.0] + [1.0] * 3)
    knobs = {"training.steps": 10, "training.validation_interval": 2, "training.checkpoint_interval": 1, "training.keep_checkpoints": 1}
    rules = {"recovery.probation_steps": 1, "recovery.remedies": [{"guided_attention": 2.0}], "guided_attention.hold_steps": 0}
    config = override(tiny, knobs | rules | {"guided_attention.decay_steps": 1, "guided_attention.final_share": 0.5})
    run = tmp_path / "run"
    records = _train(store, config, run, measure=lambda _model: {metric: next(figures)})
    assert [record.step for record in records] == [2, 4, 6, 8, 6, 8, 10]
    (restart,) = read_restarts(run)
    assert (restart.trigger, restart.began_step, restart.noticed_step) == (trigger, 6, 8)
    # Not 5, which was followed by as many steps: nobody has looked at it before it was found lost.
    assert restart.back_to_step == 4
    weight = config.guided_attention.weight
    assert restart.remedy.items() >= {"guided_attention.weight": (weight, 2 * weight), "guided_attention.hold_steps": (0, 4)}.items()
    assert sorted(path.name for path in (run / "restarts" / "01" / "snapshots").iterdir()) == ["step-00000006.npz", "step-00000008.npz"]
    assert [line["step"] for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "validation"] == [2, 4, 6, 8, 10]
    assert read_state(run).state == "finished"
